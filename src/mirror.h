/* A process that waits for one child and ends as it does. */
#ifndef NSUTIL_MIRROR_H
#define NSUTIL_MIRROR_H

#include <sys/types.h>

/* Become the stand-in of a child for those who only see this process: close
 * all descriptors, hand signals on, exit with the child's code or die of its
 * signal.  For a forked process of one thread with all signals blocked and
 * SIGCHLD not ignored.  No Python. */
_Noreturn void mirror(pid_t child);

#endif
