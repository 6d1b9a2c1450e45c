/* Closing descriptors between clone and exec; see closefds.h. */
#include "closefds.h"

#include "compat.h"
#include "procfs.h"
#include "steps.h"

#include <limits.h>
#include <stddef.h>
#include <sys/resource.h>

/* What getdents64(2) fills in. */
struct entry {
    unsigned long inode;
    long offset;
    unsigned short length;
    unsigned char type;
    char name[];
};


/* The ranges between the descriptors to keep.  0 or -errno. */
static long
close_ranges(int first, const int *keep, int count)
{
    int low = first;
    long result = 0;
    for (int i = 0; i < count && result >= 0; i++) {
        if (keep[i] < first)
            continue;
        if (keep[i] > low)
            result = sc(SYS_close_range, low, keep[i] - 1, 0, 0, 0, 0);
        low = keep[i] + 1;
    }
    if (result >= 0)
        result = sc(SYS_close_range, low, ~0u, 0, 0, 0, 0);
    return result;
}


/* Whether a descriptor is not to be closed. */
static bool
is_kept(int first, const int *keep, int count, long fd)
{
    for (int i = 0; i < count; i++)
        if (keep[i] == fd)
            return true;
    return fd < first;
}


/* The number that a name consists of, or -1: no descriptor. */
static long
number_of(const char *name)
{
    long value = 0;
    for (; *name; name++) {
        if (*name < '0' || *name > '9' || value > (INT_MAX - 9) / 10)
            return -1;
        value = value * 10 + (*name - '0');
    }
    return value;
}


/* Those that a directory of procfs lists. */
static void
close_listed(long directory, int first, const int *keep, int count)
{
    char buffer[2048] __attribute__((aligned(8)));
    long n;
    while ((n = sc(SYS_getdents64, directory, (long)buffer, sizeof buffer, 0,
                   0, 0))
           > 0)
        for (long at = 0; at < n;) {
            const struct entry *entry = (const void *)(buffer + at);
            long fd = number_of(entry->name);
            if (fd >= 0 && fd != directory && !is_kept(first, keep, count, fd))
                sc(SYS_close, fd, 0, 0, 0, 0, 0);
            at += entry->length;
        }
    sc(SYS_close, directory, 0, 0, 0, 0, 0);
}


/* Every number there can be. */
static void
close_all(int first, const int *keep, int count)
{
    struct rlimit limit = {0, 0};
    sc(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit, 0, 0);
    for (long fd = first; fd < (long)limit.rlim_max; fd++)
        if (!is_kept(first, keep, count, fd))
            sc(SYS_close, fd, 0, 0, 0, 0, 0);
}


void
close_others(int first, const int *keep, int count, bool old_way)
{
    if (!old_way && close_ranges(first, keep, count) >= 0)
        return;
    long directory = open_proc("/proc/thread-self/fd", O_DIRECTORY);
    if (directory >= 0)
        close_listed(directory, first, keep, count);
    else
        close_all(first, keep, count);
}
