/* fork() for children that run Python, shared by clone() and call().
 *
 * Only libc's fork() is used: a child made by a raw clone inherits libc's
 * locks as other threads held them, and hangs on malloc or stdio. */
#ifndef NSUTIL_FORK_H
#define NSUTIL_FORK_H

#include "module.h"

#include <signal.h>

/* May this interpreter fork now?  Refuses subinterpreters (RuntimeError) and,
 * from Python 3.12 on, warns as os.fork() does when the process has several
 * threads; "what" names the function for both.  0, or -1 with an exception
 * set (the warning may be one).  Call it before anything needs undoing. */
int fork_allowed(PyObject *module, const char *what);

/* Before fork(): the fork handlers, then all signals blocked on this thread,
 * so that no Python signal handler runs until the caller is ready. */
void fork_begin(sigset_t *before);

/* In the parent, also when fork() failed: the handlers, then the mask of
 * before.  Keeps errno.  (The child calls PyOS_AfterFork_Child() itself, and
 * restores the mask where an exception out of a signal handler does no
 * harm.) */
void fork_parent(const sigset_t *before);

#endif
