/* The parsers of C, each called with the kernel that kernel.c plays.  Which
 * one, NSUTIL_FUZZ_TARGET in the environment says. */
#define NSUTIL_FUZZ_KERNEL
#include "kernel.h"

#include "../../src/closefds.h"
#include "../../src/scan.h"
#include "../../src/submounts.h"

#include <errno.h>
#include <string.h>

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


static const struct {
    const char *name;
    void (*read)(const uint8_t *data, size_t size);
} targets[] = {
    {"c-descriptors", read_descriptors},
    {"c-mounts", read_mounts},
    {"c-process", read_process},
    {"c-relations", read_relations},
    {"c-scan", read_scan},
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
