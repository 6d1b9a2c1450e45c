/* What a namespace file and a process tell about themselves: owner, parent
 * and id; command, parent process and user. */
#include "scan.h"
#include "compat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* pidfd ioctl PIDFD_GET_INFO (6.13) with the first version of its struct. */
#define PIDFD_INFO_REQUEST 0xc040ff0bu
#define PIDFD_INFO_PID 1u
#define PIDFD_INFO_CREDS 2u

struct pidfd_info_v0 {
    uint64_t mask;
    uint64_t cgroup;
    uint32_t pid, tgid, ppid;
    uint32_t uids[9];           /* ruid rgid euid egid suid sgid ... */
};
_Static_assert(sizeof(struct pidfd_info_v0) == 64, "PIDFD_INFO_SIZE_VER0");

/* Namespaces by id: listns(2) (6.19), and opening one by a file handle. */
struct ns_list_request {
    uint32_t size, spare;
    uint64_t after;             /* ids greater than this one */
    uint32_t type, spare2;
    uint64_t user_ns;
};

struct ns_handle {              /* struct file_handle and its 16 bytes */
    uint32_t bytes;
    int32_t type;
    uint64_t id;
    uint32_t ns_type, inode;
};


/* The type of the namespace behind a descriptor, or -1: something else. */
int
scan_type_of(int fd)
{
    static const int flags[NS_TYPES] = {CLONE_NEWCGROUP, CLONE_NEWIPC,
                                        CLONE_NEWNS,     CLONE_NEWNET,
                                        CLONE_NEWPID,    CLONE_NEWTIME,
                                        CLONE_NEWUSER,   CLONE_NEWUTS};
    int flag = ioctl(fd, NSU_GET_NSTYPE);
    for (int t = 0; t < NS_TYPES; t++)
        if (flag == flags[t])
            return t;
    return -1;
}


/* The namespace that an ioctl leads to: its inode, 0 where there is none to
 * be seen.  It is read itself when it is new: this finds those that nothing
 * but a child keeps alive.
 *
 * The last owner is kept open: the kernel makes an inode for a namespace when
 * it is opened and drops it after the last close, and most owners are the
 * same one. */
static uint64_t
follow(struct scan *scan, int fd, unsigned request, int type)
{
    struct stat st;
    uint64_t inode = 0;
    int other = ioctl(fd, request);
    if (other < 0)
        return 0;
    if (fstat(other, &st) == 0) {
        inode = st.st_ino;
        scan_relate(scan, scan_intern(scan, type, inode), other);
    }
    if (scan->last_owner >= 0)
        close(scan->last_owner);
    scan->last_owner = other;
    return inode;
}


/* Read the id, owner and parent of a row from a descriptor of it, unless
 * they are known.  Goes as deep as namespaces nest: 33 levels. */
void
scan_relate(struct scan *scan, long row, int fd)
{
    uint64_t id = 0;
    uid_t uid;
    if (row < 0 || scan->rows[row].related)
        return;
    struct ns_row *ns = &scan->rows[row];
    int type = ns->type;
    ns->related = 1;
    if (!(scan->flags & SCAN_OLD_KERNEL)) {
        if (type == NS_MNT && ioctl(fd, NSU_GET_MNTNS_ID, &id) == 0)
            ns->mntns = ns->id = id;
        if (ioctl(fd, NSU_GET_ID, &id) == 0)
            ns->id = id;
    }
    if (type == NS_USER && ioctl(fd, NSU_GET_OWNER_UID, &uid) == 0)
        ns->owner_uid = uid;
    /* From here on the rows may move. */
    uint64_t owner = follow(scan, fd, NSU_GET_USERNS, NS_USER);
    uint64_t parent = type == NS_USER ? owner
                      : type != NS_PID
                          ? 0
                          : follow(scan, fd, NSU_GET_PARENT, NS_PID);
    scan->rows[row].owner = owner;
    scan->rows[row].parent = parent;
}


/* scan_relate() for an open file that may be another namespace by now, and
 * close it.  fd < 0: it could not be opened.  Returns whether it is that
 * namespace. */
static int
study(struct scan *scan, long row, int fd)
{
    struct stat st;
    if (fd < 0)
        return 0;
    int same = fstat(fd, &st) == 0 && st.st_dev == scan->device
               && st.st_ino == scan->rows[row].inode;
    if (same)
        scan_relate(scan, row, fd);
    close(fd);
    return same;
}


/* scan_relate() by a name in a directory. */
void
scan_study(struct scan *scan, long row, int dir, const char *name)
{
    if (row >= 0 && !scan->rows[row].related)
        study(scan, row, openat(dir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
}


/* The pidfd of the process, opened when first needed, or -1 with errno. */
int
scan_pidfd(struct scan *scan, struct process *process)
{
    errno = EXDEV;
    if (process->pidfd < 0 && scan->procfs_is_ours)
        process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    return process->pidfd;
}


/* scan_relate() for a namespace that a process is in: by its pidfd (6.11),
 * which is quicker than a path, or by its link.  Returns whether the process
 * is in it. */
int
scan_study_own(struct scan *scan, long row, struct process *process)
{
    static const unsigned requests[NS_TYPES] =
        {NSU_PIDFD_GET_CGROUP, NSU_PIDFD_GET_IPC, NSU_PIDFD_GET_MNT,
         NSU_PIDFD_GET_NET,    NSU_PIDFD_GET_PID, NSU_PIDFD_GET_TIME,
         NSU_PIDFD_GET_USER,   NSU_PIDFD_GET_UTS};
    char path[32];
    int fd = -1;
    if (row < 0)
        return 0;
    int type = scan->rows[row].type;
    if (!(scan->flags & SCAN_OLD_KERNEL) && scan_pidfd(scan, process) >= 0)
        fd = ioctl(process->pidfd, requests[type], 0);
    if (fd < 0) {
        char *end = scan_number(path, process->pid);
        strcpy(stpcpy(end, "/ns/"), scan_names[type]);
        fd = openat(scan->procfd, path, O_RDONLY | O_CLOEXEC);
    }
    return study(scan, row, fd);
}


/* Parent and user of a process by pidfd.  0, or -1: no such call here. */
static int
ask_pidfd(struct scan *scan, struct process *process,
          struct scan_detail *detail)
{
    struct pidfd_info_v0 info = {.mask = PIDFD_INFO_PID | PIDFD_INFO_CREDS};
    if (scan->flags & SCAN_OLD_KERNEL || scan_pidfd(scan, process) < 0
        || ioctl(process->pidfd, PIDFD_INFO_REQUEST, &info) < 0
        || ~info.mask & (PIDFD_INFO_PID | PIDFD_INFO_CREDS))
        return -1;
    detail->ppid = (int)info.ppid;
    detail->uid = info.uids[2];
    return 0;
}


/* The same by files: the directory belongs to the effective user.  0, or -1:
 * the process is gone. */
static int
ask_files(struct scan *scan, char *path, struct scan_detail *detail)
{
    char text[1024];
    struct stat st;
    if (fstatat(scan->procfd, path, &st, 0) < 0)
        return -1;
    strcat(path, "/stat");
    ssize_t n = scan_read(scan->procfd, path, text, sizeof text);
    if (n <= 0)
        return -1;
    text[n - 1] = 0;
    const char *end = strrchr(text, ')');      /* the name may hold any */
    detail->ppid = end && strlen(end) > 4 ? atoi(end + 4) : 0;
    detail->uid = st.st_uid;
    return 0;
}


/* Add the command line with its NULs as spaces, or the name where there is
 * none (kernel thread, zombie).  path ends in "/". */
static void
read_command(struct scan *scan, char *path, struct scan_detail *detail)
{
    char text[8192];
    char *end = path + strlen(path);
    strcpy(end, "cmdline");
    ssize_t n = scan_read(scan->procfd, path, text, sizeof text);
    if (n <= 0) {
        strcpy(end, "comm");
        n = scan_read(scan->procfd, path, text, sizeof text);
        if (n <= 0)
            return;
        text[n - 1] = 0;        /* the newline */
    }
    n -= text[n - 1] == 0;
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == 0)
            text[i] = ' ';
    detail->length = (size_t)n;
    detail->text = scan_text(scan, text, detail->length);
}


/* Note the command, parent and user of a process. */
void
scan_describe(struct scan *scan, struct process *process)
{
    char path[32];
    struct scan_detail detail = {.pid = process->pid};
    char *end = scan_number(path, process->pid);
    if (ask_pidfd(scan, process, &detail) < 0
        && ask_files(scan, path, &detail) < 0)
        return;
    strcpy(end, "/");
    read_command(scan, path, &detail);
    scan_add_detail(scan, detail);
}


/* Add the namespace with that id, which no process, descriptor or mount led
 * to. */
static void
add_by_id(struct scan *scan, uint64_t id)
{
    struct stat st;
    struct ns_handle handle = {16, NSU_NSFS_HANDLE, id, 0, 0};
    long fd = syscall(SYS_open_by_handle_at, NSU_FD_NSFS_ROOT, &handle,
                      O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    int type = scan_type_of((int)fd);
    if (type >= 0 && fstat((int)fd, &st) == 0)
        scan_relate(scan, scan_intern(scan, type, st.st_ino), (int)fd);
    close((int)fd);
}


/* Ask the kernel for all namespaces (6.19), for those that only something
 * inside it holds.  Older kernels have no such list. */
void
scan_kernel_list(struct scan *scan)
{
    uint64_t ids[512];
    struct ns_list_request request = {.size = sizeof request};
    struct scan_map known = {0};
    long n;
    if (scan->flags & SCAN_OLD_KERNEL)
        return;
    for (size_t i = 0; i < scan->nrows && !scan->error; i++)
        if (scan->rows[i].id) {
            uint64_t *value = scan_at(scan, &known, scan->rows[i].id);
            if (value != NULL)
                *value = 1;
        }
    while (!scan->error
           && (n = syscall(SYS_listns, &request, ids, 512, 0)) > 0) {
        for (long i = 0; i < n && !scan->error; i++) {
            uint64_t *value = scan_at(scan, &known, ids[i]);
            if (value != NULL && *value == 0)
                add_by_id(scan, ids[i]);
        }
        request.after = ids[n - 1];
    }
    free(known.slots);
}
