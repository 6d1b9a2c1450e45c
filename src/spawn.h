/* Programs in namespaces.
 *
 * A program is started by children that share our memory until they run it,
 * so that the cost does not depend on our size.  Which processes there are:
 *
 *   plain           caller - program
 *   init            caller - init (PID 1) - program, started side by side:
 *                   init lets go of our memory and descriptors before the
 *                   program is in a position to look at PID 1
 *   second          caller - joiner, which ends; the program (or init with the
 *                   program) becomes the caller's child: a process is inside
 *                   a PID namespace only from its children on
 *   hold            as the others, with nsutil-init in the program's place: it
 *                   only keeps the namespaces until it is killed
 *   watch           caller - waiter - any of the above: what ends a tree
 *                   without PID 1 when the caller ends
 *
 * init and waiter become nsutil-init (src/init.c), the waiter once the program
 * runs.
 */
#ifndef NSUTIL_SPAWN_H
#define NSUTIL_SPAWN_H

#include "steps.h"

#include <stdbool.h>

/* What was being done: the plans of a spawn by number, and what is no plan.
 * nsutil/_process.py has the same list. */
enum spawn_part {
    PART_ENTER,                 /* join and unshare, in the first process */
    PART_MAPS,                  /* id maps that the child itself may write */
    PART_SETUP,                 /* in PID 1, or the program without one */
    PART_CREDENTIALS,           /* in the program, as the recipe says */
    PART_IDENTITY,              /* in the program, as subprocess says */
    SPAWN_PLANS,
    PART_CLONE = SPAWN_PLANS,   /* the first clone, with the namespaces */
    PART_AWAIT_MAPS,            /* the other side wrote none */
    PART_INNER_CLONE, /* the clones inside; ECANCELED: the joiner was killed */
    PART_FILES, /* descriptors; the step is the one at fault */
    PART_JOIN_TIME,
    PART_EXEC,
    PART_INIT, /* nsutil-init could not be made or run */
    PART_PREPARE /* pipes and memory in the parent */
};

enum { SPAWN_LEVELS = 4, SPAWN_STACK = 64 * 1024, SPAWN_GUARD = 64 * 1024 };

/* The program; all memory is the caller's and stays as it is. */
struct program {
    char *const *argv;
    char *const *envp;
    char *const *candidates; /* paths, tried in order */
    int redirect[3]; /* what becomes 0, 1, 2; -1: what is there */
    int *keep; /* descriptors it gets, ascending; there is
                                   room for KEPT_MORE */
    int keep_count;
    bool close_others; /* all from 3 on that it does not get */
    bool default_pipe_signals; /* SIGPIPE and SIGXFSZ, which Python ignores */
    int time_fd; /* a TIME namespace to join last, or -1 */
    char **stage_argv; /* with time_fd: room for STAGE_ARGS, the
                                   candidates, argv and a NULL */
};

enum { STAGE_ARGS = 6, NUMBER_SIZE = 12, KEPT_MORE = 4 };

struct spawn {
    /* What to do. */
    const struct plan *plan[SPAWN_PLANS]; /* NULL: nothing */
    struct program program;
    unsigned long flags; /* CLONE_NEW* of the first clone */
    unsigned long late_flags; /* or of the joiner, once it is there; else 0 */
    bool second, init, watch, hold; /* as drawn above */
    bool old_calls; /* do as on an old kernel, for tests */
    bool hide; /* somebody else's namespaces are joined */
    bool changes_ids; /* to those of others, who may trace it then */
    bool new_session, new_group; /* of init and waiter, as the program's
                                           own: who signals the group of the
                                           handle must not hit the caller's */
    int end_signal; /* to the program when the caller ends, or 0 */
    int ready_fd, answer_fd, answer_peer; /* maps from outside: pipes to
                                           write to, to read from, and the
                                           latter's other end; else -1 */

    struct run run; /* slots; part, step and errno of a failure */

    /* What came of it. */
    int pid, pidfd; /* the caller's child */
    int program_pid; /* as the caller sees it, 0: not at all */
    int status_fd; /* raw status of the program, or -1 */

    /* Between parent and children. */
    unsigned long signals; /* the caller's mask, for the program */
    bool signals_clear; /* no handlers in the child */
    bool child_ignored; /* SIGCHLD was */
    char *stack;
    int level; /* clones so far */
    int inner_pid; /* made by the joiner for the caller */
    int status_end, life_fd, init_fd; /* of nsutil-init */
    int error_end; /* of the stage before the program */
    int send_end; /* of the process inside, to say who it is */
    int memory_fd; /* locked by each child that uses our memory, or -1 */
    int started, locked; /* of the children of children, how many there are
                            and how many of them have done so */
    int is_set_up; /* all that hold is to keep */
    int program_locked; /* a futex: the program's has done so, beside init */
    char number[4][NUMBER_SIZE]; /* arguments of nsutil-init */
};

/* Start the program.  0, or -1 with s->run saying what failed and nothing
 * left behind.  Blocks until the program runs; no Python, any thread. */
int spawn(struct spawn *s);

/* The rest is between spawn.c and child.c. */

/* The bodies of the first process. */
int first_body(void *spawn);
int waiter_body(void *spawn);

/* Clone a child that shares memory and runs body until it is another program
 * or ends; the caller stands still meanwhile.  Its pid, or -errno.  "noted" is
 * for CLONE_PIDFD or CLONE_PARENT_SETTID. */
long start_child(struct spawn *s, int (*body)(void *), unsigned long flags,
                 int *noted);

/* Note a failure (a positive errno) unless an earlier one is noted. */
void spawn_failed(struct spawn *s, enum spawn_part part, int step, long error);

#endif
