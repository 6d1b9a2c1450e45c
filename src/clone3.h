/* clone3(2) with a stack of one's own, which libc does not offer. */
#ifndef NSUTIL_CLONE3_H
#define NSUTIL_CLONE3_H

#include <stddef.h>

/* A vfork child of the flags that runs body(argument) on the stack below top
 * and whose caught signals are at their defaults from the start.  pidfd as
 * for clone(2).  Its pid, or -errno: -ENOSYS where this machine, its kernel
 * (5.5) or a seccomp filter has no such call. */
long clone_clear_signals(int (*body)(void *), void *argument,
                         unsigned long flags, char *stack, size_t size,
                         int *pidfd);

#endif
