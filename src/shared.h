/* What every spawn of this process shares. */
#ifndef NSUTIL_SHARED_H
#define NSUTIL_SHARED_H

#include <stdbool.h>

/* A lock for the few instructions that touch process-wide state.  A child
 * made by fork() finds it free. */
void process_lock(void);
void process_unlock(void);

/* Around the life of a child that shares our memory: what it does to its
 * credentials clears the dumpable flag of the whole process, and the last
 * release puts it back.  With hide the process is not dumpable meanwhile, so
 * that root of a namespace that the child joins cannot read our memory. */
void dumpable_hold(bool hide);
void dumpable_release(void);

/* The same file under a descriptor above 2, where no redirection of a child
 * can hit it; negative values (-errno) pass through, and -errno comes back
 * with fd closed when that fails. */
int raise_fd(int fd);

#endif
