/* How mount steps find and make what a path inside the root names. */
#ifndef NSUTIL_TARGETS_H
#define NSUTIL_TARGETS_H

#include "compat.h"
#include "steps.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

/* sc() with any number of arguments of any scalar type. */
#define SC_(n, a, b, c, d, e, f, ...)                                         \
    sc(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define SC(name, ...) SC_(SYS_##name, __VA_ARGS__, 0, 0, 0, 0, 0, 0)

enum kind { DIRECTORY, FILE_OR_DEVICE };

/* Close a descriptor, if it is one. */
void shut(long fd);

/* Does the error say that the call itself may not be there?  Container
 * runtimes answer EPERM, or ENOSYS, to calls that are newer than their
 * filter; where EPERM is about privilege the older call says it again. */
bool is_unavailable(long result);

/* statx of a descriptor, since struct stat and its calls differ between
 * machines.  0, or -errno. */
long status_of(long fd, struct file_status *status);

/* The device number of the file system that a file is on. */
unsigned long device_of(const struct file_status *status);

/* Copy the part of path before its last component into head.  Its length,
 * or -ENAMETOOLONG. */
long parent_of(const char *path, char head[PATH_MAX]);

/* What a path names inside the root, which is a directory's descriptor: an
 * O_PATH descriptor, or -errno. */
long open_in(long root, const char *path);

/* The errno for a path that does not exist in the root: -EXDEV when that is
 * because a symlink leads out of it, which deserves to be told apart. */
long missing(const struct run *run, const char *path);

/* The target of a mount, made where it is missing and may be made: an
 * O_PATH descriptor, or -errno. */
long open_target(const struct run *run, const char *path, enum kind kind);

/* The directory that a new file shall be made in, *name set to its name.
 * Fails where something is there already (-EEXIST), or where the directory
 * belongs to somebody else (-ENOENT): its descriptor, or -errno. */
long open_parent(const struct run *run, const char *path, const char **name);

#endif
