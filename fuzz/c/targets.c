/* The parsers of C, each called with the kernel that kernel.c plays.  Which
 * one, NSUTIL_FUZZ_TARGET in the environment says. */
#define NSUTIL_FUZZ_KERNEL
#include "kernel.h"

#include "../../src/closefds.h"
#include "../../src/mountsteps.h"
#include "../../src/scan.h"
#include "../../src/submounts.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must not depend on how the text is read. */
struct outcome {
    int error;
    size_t holders, length;
    uint64_t sum;
};


/* Look at all the text that was found. */
static void
look(const struct scan *scan, struct outcome *found)
{
    found->holders = scan->nholders;
    for (size_t i = 0; i < scan->nholders; i++) {
        const struct scan_holder *holder = &scan->holders[i];
        if (holder->kind != HOLD_MOUNT)
            continue;
        found->length += holder->length;
        for (size_t at = 0; at < holder->length; at++)
            found->sum = found->sum * 31
                         + (unsigned char)scan->text[holder->text + at];
    }
    for (size_t i = 0; i < scan->ndetails; i++)
        if (scan->details[i].length
            && scan->details[i].text + scan->details[i].length > scan->ntext)
            abort();
}


/* The end of every pass. */
static struct outcome
finish(struct scan *scan, int error)
{
    struct outcome found = {error, 0, 0, 0};
    if (error == 0) {
        scan_sort(scan);
        look(scan, &found);
    }
    scan_free(scan);
    fuzz_end();
    return found;
}


/* A whole pass over a /proc of any content. */
static void
read_scan(const uint8_t *data, size_t size)
{
    struct scan scan;
    if (size < 2)
        return;
    fuzz_begin(data + 2, size - 2, false, 0);
    finish(&scan, scan_all(&scan, data[0], data[1] & 31));
}


/* Owners and processes of known namespaces, likewise. */
static void
read_relations(const uint8_t *data, size_t size)
{
    struct scan scan;
    struct ns_row rows[4] = {{0}};
    if (size < 1)
        return;
    for (size_t i = 0; i < 4; i++)
        rows[i] = (struct ns_row){.inode = i, .type = (int)i, .pid = 3};
    fuzz_begin(data + 1, size - 1, false, 0);
    finish(&scan, scan_these(&scan, rows, 4, data[0] & 31));
}


/* stat, comm and cmdline of a process. */
static void
read_process(const uint8_t *data, size_t size)
{
    struct scan scan;
    struct ns_row row = {.pid = 5};
    fuzz_begin(data, size, true, 0);
    finish(&scan, scan_these(&scan, &row, 1, SCAN_OLD_KERNEL));
}


/* One pass over that mountinfo, with so many bytes a read. */
static struct outcome
mounts_in_pieces(const uint8_t *data, size_t size, size_t pieces)
{
    struct scan scan;
    fuzz_begin(data, size, true, pieces);
    return finish(&scan, scan_all(&scan, 1u << NS_MNT,
                                  SCAN_MOUNTS | SCAN_OLD_KERNEL));
}


/* mountinfo, read at once and in pieces. */
static void
read_mounts(const uint8_t *data, size_t size)
{
    struct outcome once = mounts_in_pieces(data, size, 0);
    struct outcome often = mounts_in_pieces(data, size, 7);
    if (once.error != often.error || once.holders != often.holders
        || once.length != often.length || once.sum != often.sum)
        abort();
}


/* fdinfo and mountinfo, as the mounts of a recipe read them. */
static void
read_submounts(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size, true, 0);
    bool once = may_have_submounts(9);
    fuzz_end();
    fuzz_begin(data, size, true, 1);
    bool often = may_have_submounts(9);
    fuzz_end();
    if (once != often)
        abort();
}


/* The list of descriptors where there is no close_range(2). */
static void
read_descriptors(const uint8_t *data, size_t size)
{
    static const int keep[] = {4, 7};
    fuzz_begin(data, size, false, 0);
    close_others(3, keep, 2, true);
    fuzz_end();
}


/* A run of mount steps in the middle: file systems of its own are mounted. */
static struct run *
begin_run(void)
{
    static struct run run;
    memset(&run.mounts, 0, sizeof run.mounts);
    run.mounts.root = fuzz_open();
    run.mounts.replaced = 1;
    run.mounts.own[run.mounts.own_count++] = makedev(0, 4);
    return &run;
}


/* What fsconfig(2) should be told of these options, as mount(2) reads them,
 * up to what is too long; whether there is that. */
static bool
expect_options(const char *options, char *out)
{
    out += sprintf(out, "source=tmpfs,");
    for (size_t length; *options; options += length + (options[length] != 0)) {
        length = strcspn(options, ",");
        if (length > 255)
            return true;
        if (length > 0 && *options != '=')
            out += sprintf(out, "%.*s,", (int)length, options);
    }
    return false;
}


/* One file system mounted with these options. */
static long
mount_with(const char *options, long how)
{
    struct run *run = begin_run();
    const long arg[] = {(long)"/a", (long)"tmpfs", 0, (long)options, how};
    long result = run->mounts.root < 0 ? -EMFILE : step_mount_at(run, arg);
    step_mounts_done(run, NULL);
    fuzz_end();
    return result;
}


/* Mount options, up to the first zero: by a kernel that does all that it is
 * asked, and by one that answers from the bytes behind it. */
static void
read_options(const uint8_t *data, size_t size)
{
    char expected[1200], options[513] = "";
    const uint8_t *end = memchr(data, 0, size);
    size_t length = end ? (size_t)(end - data) : size;
    if (length >= sizeof options)
        return;
    memcpy(options, data, length);
    bool too_long = expect_options(options, expected);
    fuzz_begin(data, size, true, 0);
    long result = mount_with(options, 0);
    if (result != (too_long ? -EINVAL : 0)
        || strcmp(fuzz_configured(), expected) != 0) {
        fprintf(stderr, "%ld: %s not %s\n", result, fuzz_configured(),
                expected);
        abort();
    }
    data += length;
    size -= length;
    fuzz_begin(data, size, false, 0);
    mount_with(options, size > 1 ? data[1] & 7 : 0);
}


/* A path up to the first zero, as the target of each kind of step, by a
 * kernel that answers from the bytes behind it; the first byte is the kind. */
static void
read_path(const uint8_t *data, size_t size)
{
    static const struct {
        long (*step)(struct run *run, const long *arg);
        int path;
    } steps[] = {
        {step_mount_at, 0}, {step_bind_at, 1},  {step_remount_at, 0},
        {step_write_at, 0}, {step_mkdir_at, 0}, {step_symlink_at, 1},
    };
    long arg[5] = {(long)"x", (long)"x", 0, (long)"", 0};
    const uint8_t *end = memchr(data, 0, size);
    if (size == 0 || end == NULL)
        return;
    size_t left = size - (size_t)(end - data), kind = data[0] % 6;
    fuzz_begin(end, left, false, 0);
    struct run *run = begin_run();
    long source = kind == 1 ? fuzz_open() : -1;
    arg[0] = kind == 1 ? source : arg[0];
    arg[2] = kind == 3 ? 1 : data[0] >> 3 & 3;
    if (size > 1 && end > data)
        arg[steps[kind].path] = (long)(data + 1);
    if (run->mounts.root >= 0)
        steps[kind].step(run, arg);
    if (source >= 0)
        fuzz_close((int)source);
    step_mounts_done(run, NULL);
    fuzz_end();
}


/* children.c, and what it calls. */
void fuzz_kill_listed(const char *text, const char *end);
long fuzz_init_call(long call, long a, long b);

static long child;              /* who was found to be one just now */
static size_t killed;


/* Every third process is a child; only those may be killed. */
long
fuzz_init_call(long call, long a, long b)
{
    if (call == SYS_waitid && a == P_PID) {
        child = b > 0 && b % 3 == 0 ? b : 0;
        return child > 0 ? 0 : b > 0 ? -ECHILD : -EINVAL;
    }
    if (call != SYS_kill || b != SIGKILL || a <= 0 || a != child) {
        fprintf(stderr, "call %ld(%ld, %ld)\n", call, a, b);
        abort();
    }
    killed++;
    return 0;
}


/* A list of children that anybody may have written.  Those that are listed
 * as the kernel lists them must be killed. */
static void
read_children(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = text + size, *space;
    size_t listed = 0;
    killed = 0;
    child = 0;
    fuzz_kill_listed(text, end);
    for (; (space = memchr(text, ' ', (size_t)(end - text)));
         text = space + 1) {
        size_t digits = strspn(text, "0123456789");
        listed += digits > 0 && digits < 10 && text + digits == space
                  && atol(text) > 0 && atol(text) % 3 == 0;
    }
    if (killed < listed)
        abort();
}


static const struct {
    const char *name;
    void (*read)(const uint8_t *data, size_t size);
} targets[] = {
    {"c-children", read_children},   {"c-descriptors", read_descriptors},
    {"c-mounts", read_mounts},       {"c-options", read_options},
    {"c-paths", read_path},          {"c-process", read_process},
    {"c-relations", read_relations}, {"c-scan", read_scan},
    {"c-submounts", read_submounts},
};

static size_t chosen;


int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("NSUTIL_FUZZ_TARGET");
    (void)argc;
    (void)argv;
    for (size_t i = 0; name && i < sizeof targets / sizeof *targets; i++)
        if (strcmp(name, targets[i].name) == 0) {
            chosen = i;
            return 0;
        }
    fprintf(stderr, "NSUTIL_FUZZ_TARGET names no target\n");
    exit(2);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    targets[chosen].read(data, size);
    return 0;
}
