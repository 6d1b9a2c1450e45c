/* What every spawn of this process shares. */
#ifndef NSUTIL_SHARED_H
#define NSUTIL_SHARED_H

#include <stdbool.h>

/* A lock for the few instructions that touch process-wide state.  A child
 * made by fork() finds it free. */
void process_lock(void);
void process_unlock(void);

/* Around the life of a child that shares our memory.  CHANGE_IDS: what it does
 * to its credentials clears the dumpable flag of the whole process; the last
 * release puts it back.  HIDE: the process is not dumpable meanwhile, so that
 * root of a namespace that the child joins cannot read our memory.  SHOW: the
 * process is not hidden meanwhile, since the child needs /proc files of its
 * own.  The latter two wait for each other, in turn. */
enum dumpable_need { HIDE = 1, SHOW = 2, CHANGE_IDS = 4 };
void dumpable_hold(int needs);
void dumpable_release(int needs);

/* The same file under a descriptor above 2, where no redirection of a child
 * can hit it; negative values (-errno) pass through, and -errno comes back
 * with fd closed when that fails. */
int raise_fd(int fd);

/* Whether two descriptors are of the same file. */
bool is_same_file(int one, int other);

#endif
