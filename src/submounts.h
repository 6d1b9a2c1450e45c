/* What a kernel without mount_setattr(2) tells of mounts, through /proc/self.
 * Raw system calls, no Python.h. */
#ifndef NSUTIL_SUBMOUNTS_H
#define NSUTIL_SUBMOUNTS_H

#include <stdbool.h>

/* A prefix such as "/proc/thread-self/fd/" with the number of a descriptor
 * behind it.  Returns path. */
const char *proc_path(const char *prefix, long fd, char path[48]);

/* Whether mounts lie below the one that a descriptor is on; true also where
 * /proc does not tell. */
bool may_have_submounts(long mount);

#endif
