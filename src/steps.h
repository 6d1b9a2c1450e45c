/* The plan executor: an array of prepared system calls, run anywhere.
 *
 * One executor serves the calling thread, a fresh thread, a child that
 * shares our memory (vfork) and a forked child.  Everything here may run
 * between clone and exec: raw system calls only, no malloc, no stdio, no
 * locks, no errno, no Python.h.  All memory is prepared by the caller.
 */
#ifndef NSUTIL_STEPS_H
#define NSUTIL_STEPS_H

#include "rawcall.h"

#include <stddef.h>

enum {
    STEP_ARGS = 6,              /* a system call takes six at most */
    RUN_SLOTS = 256,            /* values that steps hand to later steps */
    RUN_OWN_MOUNTS = 64,        /* file systems that one run may mount */
    TOLERATE_ANY = -1
};

struct run;

/* A composite: several system calls under one name.  Returns >= 0, or
 * -errno.  Arguments are as in struct step, slots already replaced. */
typedef long (*step_function)(struct run *run, const long *arg);

struct op {
    const char *name;           /* as the Python compiler spells it */
    long number;                /* system call number, or -1 */
    step_function function;     /* used where number is -1 */
    int nargs;                  /* how many arguments the step must have */
    int opens;                  /* its result is a new descriptor */
};

struct step {
    const struct op *op;
    long arg[STEP_ARGS];
    unsigned from_slot;         /* bit i: arg[i] is a slot, use its value */
    int out;                    /* slot that receives the result, or -1 */
    int tolerate;               /* an errno that counts as success, or
                                   TOLERATE_ANY; 0: none.  The slot of a
                                   tolerated failure receives -1 */
};

struct plan {
    int count;
    const struct step *steps;
    int slots;                  /* how many of the first ones are used */
};

/* What the steps of mountsteps.c keep between them. */
struct mount_state {
    long root;                  /* O_PATH descriptor, -1 when closed */
    int replaced;               /* mounts that took the place of the root */
    int copied;                 /* sources are copies: 1, can't be: -1 */
    int own_count;
    unsigned long own[RUN_OWN_MOUNTS];  /* devices of what we mounted */
};

/* One execution of one or more plans. */
struct run {
    long slot[RUN_SLOTS];       /* preset by the caller, -1 when unused */
    int plan;                   /* which plan failed (set by its runner) */
    int step;                   /* index of the step that failed */
    int error;                  /* its errno, 0 while all is well */
    int hidden;                 /* strangers may be near: never dumpable */
    struct mount_state mounts;  /* root -1 and all else 0 at the start */
};

/* Run all steps in order.  Returns 0, or the errno of the step that failed
 * (run->step and run->error tell which and why). */
int run_steps(const struct plan *plan, struct run *run);

/* The op of that name, or NULL. */
const struct op *find_op(const char *name);

/* sc: a raw system call: returns the kernel's value, -errno on failure,
 * touches no errno, since a vfork child shares it with its parent. */
#ifdef HAVE_RAW_SYSCALL
static inline long
sc(long number, long a, long b, long c, long d, long e, long f)
{
    return raw_syscall(number, a, b, c, d, e, f);
}
#else
long sc(long number, long a, long b, long c, long d, long e, long f);
#endif

/* Around what needs /proc files of our own.  procfs gives those of a process
 * that is not dumpable to root, and a setuid() without exec makes it so: it
 * could not even write the maps of its own namespace.  Returns the flag as it
 * was for the second call, -1 where nothing was changed. */
long be_dumpable(const struct run *run);
void be_as_before(long flag);

/* A file of procfs about our own process, for writing; as open_proc(). */
long open_own_proc(const struct run *run, const char *path);

#endif
