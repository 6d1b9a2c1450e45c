/* Composite steps for mounts; see steps.h for the rules.  MOUNT_OPS is the
 * part of the op table that belongs to them.
 *
 * All targets are looked up below one root: "/" (mount_root), or a directory
 * whose mounts were laid over "/" (root_at) and that pivot makes the root
 * when all mounts are made.  A mount on the root itself takes its place. */
#ifndef NSUTIL_MOUNTSTEPS_H
#define NSUTIL_MOUNTSTEPS_H

#include "steps.h"

/* The last argument of mount_at. */
enum {
    MOUNT_OWN = 1,              /* missing targets may be created on it */
    MOUNT_ONE_STRING = 2,       /* the options can't be split at commas */
    MOUNT_ALONE = 4             /* seen here only, whoever sees the target */
};

/* The last argument of bind_at and source. */
enum {
    BIND_RECURSIVE = 1,
    BIND_READONLY = 2,
    BIND_SOURCE = 4             /* what to bind comes from source */
};

long step_mount_root(struct run *run, const long *arg);
long step_root_at(struct run *run, const long *arg);
long step_mount_at(struct run *run, const long *arg);
long step_source(struct run *run, const long *arg);
long step_bind_at(struct run *run, const long *arg);
long step_remount_at(struct run *run, const long *arg);
long step_write_at(struct run *run, const long *arg);
long step_symlink_at(struct run *run, const long *arg);
long step_mkdir_at(struct run *run, const long *arg);
long step_device(struct run *run, const long *arg);
long step_same_file(struct run *run, const long *arg);
long step_pivot(struct run *run, const long *arg);
long step_cwd_again(struct run *run, const long *arg);
long step_mounts_done(struct run *run, const long *arg);

#define MOUNT_OPS                                                             \
    COMPOSITE(mount_root, 0),   /* targets are below "/" */                   \
    COMPOSITE(root_at, 1),      /* fd of the new root */                      \
    COMPOSITE(mount_at, 5),     /* path, type, MS_*, options, MOUNT_* */      \
    COMPOSITE_OPENER(source, 2),        /* path, BIND_* */                    \
    COMPOSITE(bind_at, 3),      /* fd of the source, path, BIND_* */          \
    COMPOSITE(remount_at, 2),   /* path, read-only */                         \
    COMPOSITE(write_at, 3),     /* path, data, length */                      \
    COMPOSITE(symlink_at, 2),   /* target, path */                            \
    COMPOSITE(mkdir_at, 2),     /* path, mode */                              \
    COMPOSITE_OPENER(device, 2),        /* path, device number */             \
    COMPOSITE(same_file, 3),    /* fd, device, inode */                       \
    COMPOSITE(pivot, 0),        /* the new root becomes "/" */                \
    COMPOSITE(cwd_again, 0),    /* by its path, in what is mounted now */     \
    COMPOSITE(mounts_done, 0),  /* close what the steps above keep */

#endif
