/* For AddressSanitizer: a child that became another program never left the
 * functions that it was in, and what they marked as out of bounds on its
 * stack, which is our memory, is still marked. */
#ifndef NSUTIL_POISON_H
#define NSUTIL_POISON_H

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define UNPOISON(start, size) ASAN_UNPOISON_MEMORY_REGION(start, size)
#else
#define UNPOISON(start, size) ((void)0)
#endif

#endif
