/* What a thread was in before a block moved it, and the way back.
 *
 * Each thread has its own stack of blocks, innermost first.  No Python.h:
 * all of this may run without the GIL, and in a forked child. */
#ifndef NSUTIL_NSTHREAD_H
#define NSUTIL_NSTHREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    KINDS = 10,                 /* the entries of /proc/thread-self/ns */
    KINDS_SAVED = 8             /* those a thread could be moved back to */
};

struct kind {
    const char *name;           /* as in /proc/PID/ns */
    int flag;                   /* CLONE_NEW*; the two *_for_children entries
                                   stand for the type, since a thread's own
                                   pid and time namespaces never change */
    unsigned pidfd_get;         /* PIDFD_GET_*_NAMESPACE */
};

extern const struct kind kinds[KINDS];

struct block {
    struct block *outer;        /* the next older block of this thread */
    int fd[KINDS_SAVED];        /* where to go back to, -1: not saved */
    int root, cwd;              /* with MNT: setns resets both */
    bool strict;                /* watch all types, not only those named */
    bool compare;               /* go back only where something changed */
    uint64_t own_pid, own_time; /* strict: the two entries that nothing can
                                   move back, by inode */
    pid_t thread;               /* who may leave it ... */
    unsigned generation;        /* ... and in which process */
    atomic_bool orphan;         /* its guard died on another thread */
    _Atomic(void *) guard;      /* its Guard, NULL if that died elsewhere */
    bool keeps_guard;           /* nobody else holds a reference to it */
    const void *recipe;         /* whose block it is, to compare alone */
};

/* How often this process is a fork of the one that loaded us.  A pid can
 * come again, this cannot. */
unsigned fork_generation(void);
void watch_forks(void);

/* False when NSUTIL_NO_NEW_CALLS is set: the fallbacks are then taken. */
bool newer_calls(void);

/* The id of the calling thread. */
pid_t thread_id(void);

/* Whether a thread of this process is gone. */
bool thread_ended(pid_t thread);

/* How many threads this process has, as the kernel counts them. */
int thread_count(void);

/* The same, once those that were joined a moment ago
 * are gone: waits up to 10 ms for there to be one. */
int lasting_threads(void);

/* The entry of that name, or NULL. */
const struct kind *find_kind(const char *name);

/* A descriptor of one namespace of the calling thread, -errno on failure. */
int open_own_ns(const struct kind *kind);

/* Start a block: save the given types (CLONE_NEW* bits), with strict all.
 * 0, or -errno with nothing left open; -EPERM where the thread could move
 * away but not back. */
int block_begin(struct block *block, int types, bool strict);

/* Save more types of a block that is the calling thread's.  0 or -errno. */
int block_save(struct block *block, int types);

/* Move the calling thread back to all that was saved and close it.  Returns
 * 0, or the errno of the first failure and in *wrong the types that are
 * still wrong; nothing is skipped because of an earlier failure. */
int block_restore(struct block *block, int *wrong);

/* Close what a block holds without moving anybody. */
void block_close(struct block *block);

/* The calling thread's stack. */
struct block *block_top(void);
void block_push(struct block *block);
/* Take a block out of the stack, wherever it is; false: it is not there.
 * What it saved goes to the next younger block that saved the same type. */
bool block_remove(struct block *block);

/* Types that this thread could not be brought back to, ever. */
int thread_broken(void);
void thread_break(int types);

/* Before a thin call moves this thread: make the innermost block save those
 * types too.  fd and nstype as for setns, fd -1 for unshare.  0 or -errno. */
int guard_note(int fd, int nstype);

#endif
