/* What libFuzzer does, as far as it is needed, for compilers that have none:
 * inputs are changed at random, and those that reach new code are kept, in
 * memory and in the first folder named.  gcc -fsanitize-coverage=trace-pc
 * calls __sanitizer_cov_trace_pc() at each edge of what is fuzzed.
 *
 * The options have libFuzzer's names: -max_total_time= (seconds), -max_len=,
 * -runs=, -seed=, -artifact_prefix=; others are passed over. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

enum { EDGES = 1 << 13, LONGEST = 1 << 16, HANG = 10 };

struct input {
    uint8_t *data;
    size_t size;
};

static uint8_t reached[EDGES];  /* how often in this run */
static uint8_t known[EDGES];    /* a bit for each order of magnitude */
static struct input *corpus, current;
static size_t corpus_size, corpus_room;
static const char *prefix = "", *folder;
static size_t longest = 400;
static uint64_t state = 1;


void
__sanitizer_cov_trace_pc(void)
{
    uintptr_t at = (uintptr_t)__builtin_return_address(0);
    uint8_t *count = &reached[(at ^ at >> 16) % EDGES];
    *count = (uint8_t)(*count + (*count < 255));
}


/* The next random number (xorshift). */
static size_t
chance(size_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (size_t)(state % below) : 0;
}


/* Write an input to a file named after its content. */
static void
save(const char *where, const struct input *input)
{
    char path[4096];
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < input->size; i++)
        hash = (hash ^ input->data[i]) * 1099511628211u;
    snprintf(path, sizeof path, "%s%016llx", where, (unsigned long long)hash);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (write(fd, input->data, input->size) < 0)
        perror(path);
    close(fd);
}


/* Either sanitizer ends the process by abort(), too. */
const char *
__asan_default_options(void)
{
    return "abort_on_error=1";
}


const char *
__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}


/* abort(), or an input that takes too long: the run ends with this one. */
static void
on_signal(int number)
{
    char where[4000];
    snprintf(where, sizeof where, "%scrash-", prefix);
    save(where, &current);
    signal(number, SIG_DFL);
    raise(number);
}


/* Keep a copy of an input. */
static void
keep(const uint8_t *data, size_t size)
{
    if (corpus_size == corpus_room) {
        corpus_room = corpus_room ? corpus_room * 2 : 64;
        corpus = realloc(corpus, corpus_room * sizeof *corpus);
        if (corpus == NULL)
            exit(1);
    }
    struct input *added = &corpus[corpus_size++];
    added->size = size;
    added->data = malloc(size + 1);
    if (added->data == NULL)
        exit(1);
    memcpy(added->data, data, size);
}


/* Whether the last run went where none has been, or more often. */
static int
is_news(void)
{
    int news = 0;
    for (size_t i = 0; i < EDGES; i++) {
        if (reached[i] == 0)
            continue;
        int order = 0;
        while (reached[i] >> order > 1)
            order++;
        if (!(known[i] >> order & 1)) {
            known[i] = (uint8_t)(known[i] | 1 << order);
            news = 1;
        }
        reached[i] = 0;
    }
    return news;
}


/* One run, in memory of just that size: to read beyond it is an error. */
static void
run(const uint8_t *data, size_t size)
{
    current.data = malloc(size ? size : 1);
    current.size = size;
    if (current.data == NULL)
        exit(1);
    memcpy(current.data, data, size);
    alarm(HANG);
    LLVMFuzzerTestOneInput(current.data, size);
    free(current.data);
    current.data = NULL;
}


/* Read the inputs of earlier runs. */
static void
load(void)
{
    static uint8_t data[LONGEST];
    char path[4096];
    DIR *list = folder ? opendir(folder) : NULL;
    for (struct dirent *entry; list && (entry = readdir(list));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof data);
        if (fd >= 0)
            close(fd);
        if (n < 0)
            continue;
        keep(data, (size_t)n);
        run(data, (size_t)n);
        is_news();
    }
    if (list)
        closedir(list);
    if (corpus_size == 0)
        keep(data, 0);
}


/* Move the end of `data` behind `at`, to make room for `more` bytes. */
static size_t
make_room(uint8_t *data, size_t size, size_t at, size_t more)
{
    if (size + more > longest)
        more = longest - size;
    memmove(data + at + more, data + at, size - at);
    return more;
}


/* One change of an input; its new size. */
static size_t
change(uint8_t *data, size_t size)
{
    static const char text[] = "0123456789 -:[]()/\\\n\t.,net:[4mnt_id pid";
    size_t at = chance(size + 1), n = 1 + chance(8);
    const struct input *other = &corpus[chance(corpus_size)];
    switch (chance(8)) {
    case 0: /* a bit */
        if (at < size)
            data[at] = (uint8_t)(data[at] ^ 1u << chance(8));
        return size;
    case 1: /* any byte */
        if (at < size)
            data[at] = (uint8_t)chance(256);
        return size;
    case 2: /* a character */
        if (at < size)
            data[at] = (uint8_t)text[chance(sizeof text - 1)];
        return size;
    case 3: /* some less */
        n = n < size - at ? n : size - at;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 4: /* some more */
        n = make_room(data, size, at, n);
        for (size_t i = 0; i < n; i++)
            data[at + i] = chance(2) ? (uint8_t)text[chance(sizeof text - 1)]
                                     : (uint8_t)chance(256);
        return size + n;
    case 5: /* something twice */
        n = make_room(data, size, at, at < n * 8 ? at : n * 8);
        memmove(data + at, data + at - n, n);
        return size + n;
    case 6: { /* a part of another */
        size_t from = chance(other->size + 1);
        n = other->size - from < n * 8 ? other->size - from : n * 8;
        n = make_room(data, size, at, n);
        memcpy(data + at, other->data + from, n);
        return size + n;
    }
    default: /* the end of another */
        n = at < other->size ? other->size - at : 0;
        n = at + n > longest ? longest - at : n;
        if (n)
            memcpy(data + at, other->data + at, n);
        return n ? at + n : size;
    }
}


/* A changed input, run and kept if it is worth that. */
static void
try_another(void)
{
    static uint8_t data[LONGEST];
    char where[4000];
    const struct input *from = &corpus[chance(corpus_size)];
    size_t size = from->size < longest ? from->size : longest;
    memcpy(data, from->data, size);
    for (size_t i = 1 + chance(5); i > 0; i--)
        size = change(data, size);
    run(data, size);
    if (!is_news())
        return;
    keep(data, size);
    if (folder) {
        snprintf(where, sizeof where, "%s/", folder);
        save(where, &corpus[corpus_size - 1]);
    }
}


/* The value of an option, or NULL. */
static const char *
option(const char *word, const char *name)
{
    size_t length = strlen(name);
    return strncmp(word, name, length) == 0 ? word + length : NULL;
}


int
main(int argc, char **argv)
{
    unsigned long long runs = ~0ull, done = 0;
    time_t end = 0;
    const char *value;
    state = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    for (int i = 1; i < argc; i++) {
        if ((value = option(argv[i], "-max_total_time=")) && atol(value) > 0)
            end = time(NULL) + atol(value);
        else if ((value = option(argv[i], "-max_len=")))
            longest = (size_t)atol(value) % LONGEST;
        else if ((value = option(argv[i], "-runs=")))
            runs = strtoull(value, NULL, 10);
        else if ((value = option(argv[i], "-seed=")))
            state = strtoull(value, NULL, 10) | 1;
        else if ((value = option(argv[i], "-artifact_prefix=")))
            prefix = value;
        else if (argv[i][0] != '-')
            folder = argv[i];
    }
    LLVMFuzzerInitialize(&argc, &argv);
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
    load();
    for (; done < runs && (done % 256 || !end || time(NULL) < end); done++)
        try_another();
    fprintf(stderr, "stat::number_of_executed_units: %llu\n", done);
    fprintf(stderr, "%zu inputs kept\n", corpus_size);
    return 0;
}
