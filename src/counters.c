/* Only in builds that count lines (NSUTIL_COVERAGE=1): the counters of every
 * process in one file.
 *
 * gcov's own way, each process adding what it counted to files as it exits,
 * misses what this package is about: children that end by a signal, _exit or
 * exec, that are other users, or see another root.  Here the counters are
 * pages of a file that all processes map, so that nothing is left to do when
 * one ends.  The only one that writes gcov's files is told to
 * (NSUTIL_COVERAGE_WRITE), when the tests are over. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef NS_COUNTERS             /* setup.py says where */
#define NS_COUNTERS "counters"
#endif

extern char counters_begin[] __attribute__((visibility("hidden")));
extern char counters_end[] __attribute__((visibility("hidden")));

void __wrap___gcov_exit(void);
void __real___gcov_exit(void);


/* Map the file over the counters, which are zero yet.  Where it can't be
 * opened, in a container for example, this process counts for itself. */
__attribute__((constructor)) static void
share_counters(void)
{
    size_t size = (size_t)(counters_end - counters_begin);
    int fd = open(NS_COUNTERS, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return;
    if (ftruncate(fd, (off_t)size) == 0
        && mmap(counters_begin, size, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_FIXED, fd, 0)
               == MAP_FAILED)
        abort();
    close(fd);
}


/* In the place of gcov's, at the end of each process. */
void
__wrap___gcov_exit(void)
{
    if (getenv("NSUTIL_COVERAGE_WRITE"))
        __real___gcov_exit();
}
