/* Constants that the kernel headers of older distributions lack (this must
 * build with Debian 12's 6.1 headers), and the tables every file shares.
 * Sources: linux/nsfs.h, linux/pidfd.h, linux/sched.h of Linux 6.18. */
#ifndef NSUTIL_COMPAT_H
#define NSUTIL_COMPAT_H

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* All eight namespace types. */
#define NS_ALL_TYPES                                                          \
    (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET              \
     | CLONE_NEWPID | CLONE_NEWTIME | CLONE_NEWUSER | CLONE_NEWUTS)

/* System calls (the same numbers on every architecture since 424). */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif
#ifndef SYS_fsconfig
#define SYS_fsconfig 431
#endif
#ifndef SYS_fsmount
#define SYS_fsmount 432
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif
#ifndef SYS_listns
#define SYS_listns 470
#endif

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL             /* 6.9 */
#endif

/* nsfs ioctls (ioctl_nsfs(2)). */
#define NSU_GET_USERNS 0xb701u          /* 4.9 */
#define NSU_GET_PARENT 0xb702u          /* 4.9 */
#define NSU_GET_NSTYPE 0xb703u          /* 4.11 */
#define NSU_GET_OWNER_UID 0xb704u       /* 4.11 */
#define NSU_GET_MNTNS_ID 0x8008b705u    /* 6.11 */
#define NSU_GET_MNTNS_ID_OLD 0xb705u    /* the number it had in 6.11 */
#define NSU_GET_PID_FROM_PIDNS 0x8004b706u      /* 6.11 */
#define NSU_GET_TGID_FROM_PIDNS 0x8004b707u
#define NSU_GET_PID_IN_PIDNS 0x8004b708u
#define NSU_GET_TGID_IN_PIDNS 0x8004b709u
#define NSU_MNT_GET_INFO 0x8010b70au    /* 6.12 */
#define NSU_MNT_GET_NEXT 0x8010b70bu
#define NSU_MNT_GET_PREV 0x8010b70cu
#define NSU_GET_ID 0x8008b70du          /* 6.18 */

/* pidfd -> namespace fd (6.11): _IO(0xFF, n). */
#define NSU_PIDFD_GET_CGROUP 0xff01u
#define NSU_PIDFD_GET_IPC 0xff02u
#define NSU_PIDFD_GET_MNT 0xff03u
#define NSU_PIDFD_GET_NET 0xff04u
#define NSU_PIDFD_GET_PID 0xff05u
#define NSU_PIDFD_GET_PID_FOR_CHILDREN 0xff06u
#define NSU_PIDFD_GET_TIME 0xff07u
#define NSU_PIDFD_GET_TIME_FOR_CHILDREN 0xff08u
#define NSU_PIDFD_GET_USER 0xff09u
#define NSU_PIDFD_GET_UTS 0xff0au

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894c
#endif
#define NSU_TUNGETDEVNETNS 0x54e3u

/* The mount id of statx(2): 5.8, zero before. */
#define NSU_STATX_MNT_ID 0x1000u
#define NSU_STATX_ATTR_MOUNT_ROOT 0x2000u

/* What statx(2) fills in.  The C libraries differ in whether they declare it
 * and how much of it. */
struct file_status {
    uint32_t stx_mask, stx_blksize;
    uint64_t stx_attributes;
    uint32_t stx_nlink, stx_uid, stx_gid;
    uint16_t stx_mode, stx_pad;
    uint64_t stx_ino, stx_size, stx_blocks, stx_attributes_mask;
    uint64_t stx_times[8];
    uint32_t stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor;
    uint64_t stx_mnt_id;                /* 5.8 */
    uint64_t stx_spare[13];
};

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1u << 2)   /* 5.11 */
#endif

/* openat2(2), 5.6. */
struct nsu_open_how {
    uint64_t flags, mode, resolve;
};
#define NSU_RESOLVE_NO_XDEV 0x01u
#define NSU_RESOLVE_NO_MAGICLINKS 0x02u
#define NSU_RESOLVE_NO_SYMLINKS 0x04u
#define NSU_RESOLVE_BENEATH 0x08u
#define NSU_RESOLVE_IN_ROOT 0x10u

/* open_tree(2) and move_mount(2), 5.2. */
#define NSU_OPEN_TREE_CLONE 1
#define NSU_MOVE_MOUNT_F_EMPTY_PATH 4

#define NSU_AT_STATX_DONT_SYNC 0x4000
#define NSU_STATX_TYPE 0x001u
#define NSU_STATX_INO 0x100u
#define NSU_STATX_BASIC_STATS 0x7ffu

#define NSU_FD_NSFS_ROOT (-10003)       /* open_by_handle_at, 6.18 */
#define NSU_NSFS_HANDLE 0xf1            /* FILEID_NSFS */

#define NSU_CGROUP_MAGIC 0x27e0eb
#define NSU_CGROUP2_MAGIC 0x63677270
#define NSU_PROC_MAGIC 0x9fa0
#define NSU_NSFS_MAGIC 0x6e736673

#endif
