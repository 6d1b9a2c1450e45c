/* What a forked child does before Python runs in it: enter the namespaces,
 * set them up, become who it shall be.  Raw system calls, no Python.h.
 *
 * The child of fork() is C0.  Where PID is neither new nor joined it does all
 * of it and runs the function.  Else it can only send others into the
 * namespace, and becomes nsutil's init as a waiter, which ends as they do:
 *
 *     caller - C0 (waiter) - C1 (PID 1, nsutil's init) - C2 (the function)
 *     caller - C0 (waiter) - C1 (the function)             without init
 */
#ifndef NSUTIL_FORKED_H
#define NSUTIL_FORKED_H

#include "steps.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The plans of a child in the order in which they run; OWN_STEPS stands for
 * what is done between them (enum own_step). */
enum { ENTER, SELF_MAPS, SETUP, CREDENTIALS, PLANS, OWN_STEPS = PLANS };

/* The steps between them; nsutil/_fork.py has their labels. */
enum own_step {
    STEP_UNSHARE,
    STEP_FORK,
    STEP_TIME,
    STEP_JOIN_TIME,
    STEP_FOLLOW,
    STEP_INIT,
    STEP_READY
};

/* The pipes between parent and child. */
enum { REPORT, GO, STATUS, LIFE, CHANNELS };

struct forked {
    const struct plan *plan[PLANS];     /* NULL: nothing to do */
    int clone_flags;            /* CLONE_NEW* to unshare first */
    int caller_fd; /* who forks: a pidfd above 2, -1: not needed */
    pid_t parent; /* whom the next process follows: its number in
                                   its own PID namespace */
    int parent_fd; /* and its pidfd */
    int second; /* a process further in is needed */
    int init; /* that one is nsutil's init, the function's
                                   process its child */
    int hides; /* strangers may reach it: not dumpable */
    int mapped; /* wait until the parent wrote the id maps */
    int new_time; /* move into the TIME namespace just made */
    int join_time; /* one to move into, -1: none */
    int parent_signal; /* for C0 when its parent ends, 0: none */
    int watch; /* better: a waiter, which ends the whole tree;
                                   it outlives the thread that forked it */
    int end[CHANNELS]; /* the child's ends of the pipes, -1: none.
        REPORT: messages to the parent (message.h).  GO: a byte comes when the
        parent has written the id maps.  STATUS: init writes the raw status of
        the function's process.  LIFE: PID 1 ends the tree when it closes */
    int parent_end[CHANNELS]; /* to be closed, -1: none */
    int program; /* init as an executable descriptor, -1: there
                                   is none for this machine */
    struct run run;
    volatile int failed; /* C1 reported a failure */
};

/* Run in C0, all signals blocked.  Returns in the function's process alone;
 * the others exec or exit, and whoever fails says so in a message first. */
void forked_run(struct forked *f);

#endif
