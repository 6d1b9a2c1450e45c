/* Which namespaces exist, and who holds them: what one pass over /proc finds.
 *
 * The results are flat arrays; scanmod.c turns them into Python objects when
 * all is read.  Nothing here knows of Python, so that the whole pass runs
 * with the GIL released.  The only error that ends a pass is the lack of
 * memory (or of /proc): a process that vanishes is skipped, one that we may
 * not look at is noted in `unseen`.
 */
#ifndef NSUTIL_SCAN_H
#define NSUTIL_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The types in the order in which they are listed: by name. */
enum {
    NS_CGROUP,
    NS_IPC,
    NS_MNT,
    NS_NET,
    NS_PID,
    NS_TIME,
    NS_USER,
    NS_UTS,
    NS_TYPES
};

/* Beyond the namespaces of the processes, look at: */
enum {
    SCAN_TASKS = 1,             /* threads, and what children will be in */
    SCAN_FDS = 2,               /* open namespace files and TUN devices */
    SCAN_SOCKETS = 4,
    SCAN_MOUNTS = 8,            /* namespace files that are mounted */
    SCAN_DEEP = 15,             /* any of them: owners and parents as well */
    SCAN_OLD_KERNEL = 16 /* leave out what came with Linux 6.8 or later */
};

enum holder_kind {
    HOLD_THREAD,
    HOLD_FD,
    HOLD_SOCKET,
    HOLD_MOUNT,
    HOLD_CHILDREN,
    HOLD_TUN
};

/* What we were not allowed to read. */
enum unseen_kind {
    UNSEEN_NS,
    UNSEEN_TASK,
    UNSEEN_FD,
    UNSEEN_SOCKET,
    UNSEEN_TUN,
    UNSEEN_MOUNTS, /* of a mount namespace (inode) or process */
    UNSEEN_PIDFD /* sockets, with somebody else's /proc */
};

/* A namespace.  Zero means "none" in id, owner, parent, pid and mntns. */
struct ns_row {
    uint64_t inode;
    uint64_t id; /* NS_GET_ID */
    uint64_t owner; /* inode of the owning user namespace */
    uint64_t parent; /* inode, for PID and USER */
    uint64_t mntns; /* NS_GET_MNTNS_ID, for listmount */
    int64_t owner_uid; /* of a USER namespace, or -1 */
    int type;
    int nprocs;
    int pid; /* the lowest */
    int holder_pid; /* a thread's process, where pid is 0 */
    int holder_tid;
    int stale; /* it ended, its inode is another's now */
    int related; /* id, owner and parent were read */
};

struct scan_process {
    uint64_t pid; /* as wide as the rest: Python reads nine */
    uint64_t inode[NS_TYPES]; /* 0: not asked for, or it has none */
};

/* What only the lowest process of a namespace is asked for. */
struct scan_detail {
    int pid;
    int ppid;
    int64_t uid;
    size_t text; /* command: where in the text... */
    size_t length; /* ...and how long */
};

struct scan_holder {
    uint64_t inode; /* what is held */
    uint64_t mntns; /* inode of the mount namespace of a mount */
    size_t text; /* mount point */
    size_t length;
    int type;
    int kind;
    int pid, tid, fd; /* pid and tid 0, fd -1: none */
};

struct scan_unseen {
    int kind;
    int pid, tid, fd;
    int error;
    uint64_t inode;
};

/* uint64_t -> uint64_t; the key 0 is not allowed. */
struct scan_map {
    uint64_t *slots; /* key, value, key, value, ... */
    size_t room; /* a power of two */
    size_t used;
};

struct scan {
    int error; /* sticky errno that ends the pass */
    int flags;
    unsigned read; /* types to read, 1 << NS_X */
    int procfd;
    int procfs_is_ours; /* its process numbers mean the same to us */
    int self;                   /* the own pid in this procfs */
    int last_owner; /* a descriptor, see scanrel.c */
    dev_t device; /* of nsfs */
    uint64_t own_mntns; /* inode, of the calling thread */
    char *buffer; /* for directories and files */

    struct ns_row *rows;
    struct scan_process *processes;
    struct scan_detail *details;
    struct scan_holder *holders;
    struct scan_unseen *unseen;
    char *text;
    size_t nrows, nprocesses, ndetails, nholders, nunseen, ntext, nstale;
    size_t row_room, process_room, detail_room, holder_room, unseen_room,
        text_room;
    struct scan_map row_of; /* inode -> index into rows + 1 */
    struct scan_map socket_net; /* socket's inode -> network namespace's */
    struct scan_map mounts; /* mount ids that were listed */
};

/* The process that the pass is at. */
struct process {
    int pid;
    int dir; /* /proc/PID */
    int ns; /* /proc/PID/ns */
    int pidfd; /* -1 until somebody needs it */
    uint64_t inode[NS_TYPES];
};

enum { WALK_BUFFER = 32768, LEVELS = 2 };

/* The entries of a directory of /proc that are numbers. */
struct walk {
    int fd;
    long at, have;
    char *buffer;
};

extern const char *const scan_names[NS_TYPES];

/* scan.c: the entry points.  Each returns 0 or an errno; scan_free() is due
 * after all of them, also after a failure. */
int scan_all(struct scan *scan, unsigned types, int flags);
int scan_these(struct scan *scan, struct ns_row *rows, size_t count,
               int flags);
void scan_free(struct scan *scan);

/* scan.c: files of /proc. */
int scan_links(struct scan *scan, int nsdir, uint64_t inode[NS_TYPES]);
uint64_t scan_link(int dir, const char *name);
uint64_t scan_link_text(const char *text, size_t length, int *type);
int scan_walk(struct walk *walk, struct scan *scan, int level, int dir,
              const char *name);
long scan_next(struct walk *walk);
char *scan_number(char *out, int number);
ssize_t scan_read(int dir, const char *name, char *buffer, size_t size);

/* scantab.c: the tables. */
long scan_intern(struct scan *scan, int type, uint64_t inode);
void scan_hold(struct scan *scan, struct scan_holder holder);
void scan_add_process(struct scan *scan, const struct scan_process *process);
void scan_add_detail(struct scan *scan, struct scan_detail detail);
void scan_deny(struct scan *scan, struct scan_unseen unseen);
size_t scan_text(struct scan *scan, const char *text, size_t length);
uint64_t *scan_at(struct scan *scan, struct scan_map *map, uint64_t key);
void scan_sort(struct scan *scan);

/* scanrel.c: what a namespace file and a process tell about themselves. */
void scan_relate(struct scan *scan, long row, int fd);
void scan_study(struct scan *scan, long row, int dir, const char *name);
int scan_study_own(struct scan *scan, long row, struct process *process);
void scan_describe(struct scan *scan, struct process *process);
int scan_pidfd(struct scan *scan, struct process *process);
int scan_type_of(int fd);
void scan_kernel_list(struct scan *scan);

/* scanfd.c: threads and descriptors. */
void scan_threads(struct scan *scan, struct process *process);
void scan_children(struct scan *scan, const struct process *process, int nsdir,
                   int tid);
void scan_fds(struct scan *scan, struct process *process);

/* scanmnt.c: mounted namespace files. */
void scan_mounts(struct scan *scan);

#endif
