/* Close what another program, or a mere waiter, is not meant to have; safe in
 * a vfork child. */
#ifndef NSUTIL_CLOSEFDS_H
#define NSUTIL_CLOSEFDS_H

#include <stdbool.h>

/* Close every descriptor from first on but those of keep, which ascend.  With
 * old_way as a kernel without close_range(2) (5.9) needs it. */
void close_others(int first, const int *keep, int count, bool old_way);

#endif
