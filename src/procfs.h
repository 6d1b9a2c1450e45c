/* Files of /proc that are certainly the kernel's.
 *
 * A thread or child in the MNT namespace of others finds there what root of
 * it has laid: anything on /proc, on a directory of it or on one entry.  No
 * Python.h: all of this may run between clone and exec. */
#ifndef NSUTIL_PROCFS_H
#define NSUTIL_PROCFS_H

/* A file or directory of procfs, path beginning with "/proc/": its
 * descriptor, or -errno; -EXDEV when /proc is something else or when anything
 * lies over the file or the way to it. */
long open_proc(const char *path, long flags);

/* The same for an entry of a directory ns, and for the namespace that it
 * leads to. */
long open_proc_ns(const char *path);

#endif
