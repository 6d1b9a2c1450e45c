/* A thread that exists for one job: whatever it enters ends with it, and the
 * caller never moves, so there is no way back that could fail. */
#ifndef NSUTIL_APART_H
#define NSUTIL_APART_H

/* Run body(arg) on a thread of its own, with all signals blocked (handlers
 * are for the threads of the program), and wait until the kernel has
 * forgotten it too.  0, or an errno when no thread could be made.  No Python
 * in here: call it without the GIL. */
int run_on_thread(void (*body)(void *), void *arg);

#endif
