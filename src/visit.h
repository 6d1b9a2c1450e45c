/* A look into another namespace from a thread that exists for nothing else.
 *
 * The caller never moves, so there is no way back that could fail: it may
 * have the right to enter a namespace and not to return to its own. */
#ifndef NSUTIL_VISIT_H
#define NSUTIL_VISIT_H

struct visit {
    int fd, type;               /* the namespace, and its CLONE_NEW* bit */
    /* A new fd, or -1 and errno. */
    int (*act)(const struct visit *visit);
    const void *data;           /* for act */
    const char *step;           /* out: what failed, NULL: act */
    int stranded;               /* out: errno of a way back that failed */
};

/* Enter and act in a fresh thread, and wait for its end; where none can be
 * started, do it on this one and come back.  The fd that act returned, or
 * -errno with step or stranded set.  No Python in here: call it without the
 * GIL. */
int visit_namespace(struct visit *visit);

#endif
