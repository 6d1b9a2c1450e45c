/* Close what a program is not meant to get; safe in a vfork child. */
#ifndef NSUTIL_CLOSEFDS_H
#define NSUTIL_CLOSEFDS_H

#include <stdbool.h>

/* Close every descriptor from 3 on but those of keep, which ascend.  With
 * old_way as a kernel without close_range(2) (5.9) needs it. */
void close_others(const int *keep, int count, bool old_way);

#endif
