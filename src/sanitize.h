/* What the sanitizers must be told of children that share our memory and our
 * thread pointer: to them those are the thread that made them. */
#ifndef NSUTIL_SANITIZE_H
#define NSUTIL_SANITIZE_H

/* AddressSanitizer: a child that became another program never left the
 * functions that it was in, and what they marked as out of bounds on its
 * stack, which is our memory, is still marked. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define UNPOISON(start, size) ASAN_UNPOISON_MEMORY_REGION(start, size)
#else
#define UNPOISON(start, size) ((void)0)
#endif

/* ThreadSanitizer's own clone() takes each child for one of fork(), which has
 * a copy of the memory: there it unlocks what the parent unlocks again, and
 * makes the thread blind to all locks from then on.  glibc's other name for
 * clone() leads past it. */
#ifdef __SANITIZE_THREAD__
int __clone(int (*body)(void *), void *stack, int flags, void *argument, ...);
#define clone __clone
#endif

#endif
