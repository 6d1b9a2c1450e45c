/* Who holds a namespace without being in it: threads, what children will be
 * in, open namespace files, sockets, TUN devices. */
#include "scan.h"
#include "compat.h"
#include "steps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>


/* Note a holder, and read the namespace when it is new from `name` in `dir`.
 * Returns its row, -1 with scan->error set. */
static long
hold_named(struct scan *scan, const struct scan_holder *holder, int dir,
           const char *name)
{
    long row = scan_intern(scan, holder->type, holder->inode);
    scan_study(scan, row, dir, name);
    scan_hold(scan, *holder);
    return row;
}


/* The same with a descriptor of the namespace, which is closed. */
static void
hold_opened(struct scan *scan, struct scan_holder *holder, int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_ino != 0) {
        holder->inode = st.st_ino;
        scan_relate(scan, scan_intern(scan, holder->type, st.st_ino), fd);
        scan_hold(scan, *holder);
    }
    close(fd);
}


/* The namespaces that future children will be in, where they are others. */
void
scan_children(struct scan *scan, const struct process *process, int nsdir,
              int tid)
{
    static const struct {
        const char *name;
        int type;
    } links[] = {{"pid_for_children", NS_PID}, {"time_for_children", NS_TIME}};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        struct scan_holder holder = {.kind = HOLD_CHILDREN,
                                     .type = links[i].type,
                                     .pid = process->pid,
                                     .tid = tid,
                                     .fd = -1};
        if (!(scan->read >> holder.type & 1))
            continue;
        holder.inode = scan_link(nsdir, links[i].name);
        if (holder.inode && holder.inode != process->inode[holder.type])
            hold_named(scan, &holder, nsdir, links[i].name);
    }
}


/* One thread: the types in which it differs from the process. */
static void
visit_thread(struct scan *scan, const struct process *process, int taskdir,
             int tid)
{
    char path[24];
    uint64_t inode[NS_TYPES];
    strcpy(scan_number(path, tid), "/ns");
    int nsdir = openat(taskdir, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (nsdir < 0)
        return;
    int refused = scan_links(scan, nsdir, inode);
    if (refused)
        scan_deny(scan, (struct scan_unseen){.kind = UNSEEN_TASK,
                                             .pid = process->pid,
                                             .tid = tid,
                                             .error = refused});
    for (int t = 0; t < NS_TYPES && !refused; t++) {
        if (inode[t] == 0 || inode[t] == process->inode[t])
            continue;
        struct scan_holder holder = {.kind = HOLD_THREAD,
                                     .type = t,
                                     .inode = inode[t],
                                     .pid = process->pid,
                                     .tid = tid,
                                     .fd = -1};
        long row = hold_named(scan, &holder, nsdir, scan_names[t]);
        if (row >= 0 && scan->rows[row].holder_pid == 0) {
            scan->rows[row].holder_pid = process->pid;
            scan->rows[row].holder_tid = tid;
        }
    }
    if (!refused)
        scan_children(scan, process, nsdir, tid);
    close(nsdir);
}


/* All threads of a process but the one that its own links show. */
void
scan_threads(struct scan *scan, struct process *process)
{
    struct walk walk;
    struct stat st;
    long tid;
    /* The directory's link count is 2 and one per thread: most processes
     * are done with here. */
    if (fstatat(process->dir, "task", &st, 0) < 0 || st.st_nlink == 3)
        return;
    if (scan_walk(&walk, scan, 1, process->dir, "task") < 0) {
        scan_deny(scan, (struct scan_unseen){.kind = UNSEEN_TASK,
                                             .pid = process->pid,
                                             .error = errno});
        return;
    }
    while (!scan->error && (tid = scan_next(&walk)) >= 0)
        if (tid != process->pid)
            visit_thread(scan, process, walk.fd, (int)tid);
    close(walk.fd);
}


/* A copy of a descriptor of that process, or -1 with errno. */
static int
fetch(struct scan *scan, struct process *process, int fd)
{
    if (scan_pidfd(scan, process) < 0)
        return -1;
    int copy = (int)syscall(SYS_pidfd_getfd, process->pidfd, fd, 0);
    if (copy < 0 && errno == EBADF)
        errno = ENOENT;         /* closed by now */
    return copy;
}


/* Ask a device or socket of that process, by its descriptor, for its network
 * namespace.  `inode` is what it must be, lest its number was given to some
 * other file by now (0: any).  Returns a descriptor, or -1 with errno. */
static int
network_of(struct scan *scan, struct process *process, int fd, uint64_t inode,
           unsigned request)
{
    struct stat st;
    int copy = fetch(scan, process, fd);
    if (copy < 0)
        return -1;
    int ns = -1;
    errno = ENOENT;
    if (fstat(copy, &st) == 0 && (inode == 0 || st.st_ino == inode))
        ns = ioctl(copy, request);
    int error = errno;
    close(copy);
    errno = error;
    return ns;
}


/* A socket, where it belongs to another network namespace than its process.
 * One that several processes share is asked once.  Returns 0, or the errno
 * of a refusal. */
static int
visit_socket(struct scan *scan, struct process *process, int fd,
             uint64_t inode)
{
    struct scan_holder holder = {.kind = HOLD_SOCKET,
                                 .type = NS_NET,
                                 .pid = process->pid,
                                 .fd = fd};
    uint64_t *known = scan_at(scan, &scan->socket_net, inode);
    if (known == NULL)
        return 0;
    if (*known == 0) {
        struct stat st;
        int ns = network_of(scan, process, fd, inode, SIOCGSKNS);
        if (ns < 0)
            return errno;
        if (fstat(ns, &st) == 0) {
            *known = st.st_ino;
            scan_relate(scan, scan_intern(scan, NS_NET, st.st_ino), ns);
        }
        close(ns);
    }
    holder.inode = *known;
    if (holder.inode && holder.inode != process->inode[NS_NET])
        scan_hold(scan, holder);
    return 0;
}


/* A TUN device, where it is in another network namespace.  0, or an errno. */
static int
visit_tun(struct scan *scan, struct process *process, int fd)
{
    struct scan_holder holder = {.kind = HOLD_TUN,
                                 .type = NS_NET,
                                 .pid = process->pid,
                                 .fd = fd};
    struct stat st;
    int ns = network_of(scan, process, fd, 0, NSU_TUNGETDEVNETNS);
    if (ns < 0)
        return errno == EBADFD ? 0 : errno;    /* no device attached yet */
    if (fstat(ns, &st) == 0 && st.st_ino == process->inode[NS_NET])
        close(ns);
    else
        hold_opened(scan, &holder, ns);
    return 0;
}


/* What has a path: a namespace file opened where it is mounted, which does
 * not show as "net:[...]", or a TUN device.  statx() without synchronising:
 * a dead network file system must not stop us.  0, or an errno. */
static int
visit_file(struct scan *scan, struct process *process, int fddir, int fd,
           const char *name, int *kind)
{
    struct scan_holder holder = {.kind = HOLD_FD,
                                 .pid = process->pid,
                                 .fd = fd};
    struct file_status st;
    const int how = NSU_AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
    if (sc(SYS_statx, fddir, (long)name, how, NSU_STATX_TYPE, (long)&st, 0)
        < 0)
        return 0;
    if (S_ISCHR(st.stx_mode) && st.stx_rdev_major == 10
        && st.stx_rdev_minor == 200 && scan->procfs_is_ours) {
        *kind = UNSEEN_TUN;
        return visit_tun(scan, process, fd);
    }
    if (makedev(st.stx_dev_major, st.stx_dev_minor) != scan->device)
        return 0;
    int ns = openat(fddir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (ns < 0)
        return errno;
    holder.type = scan_type_of(ns);
    if (holder.type >= 0)
        hold_opened(scan, &holder, ns);
    else
        close(ns);
    return 0;
}


/* One descriptor.  0, or the errno of a refusal; *kind says of what. */
static int
visit_fd(struct scan *scan, struct process *process, int fddir, int fd,
         int *kind)
{
    char name[16], text[64];
    struct scan_holder holder = {.kind = HOLD_FD,
                                 .pid = process->pid,
                                 .fd = fd};
    scan_number(name, fd);
    ssize_t n = readlinkat(fddir, name, text, sizeof text - 1);
    *kind = UNSEEN_FD;
    if (n < 0)
        return errno;
    text[n] = 0;
    if (strncmp(text, "socket:[", 8) == 0) {
        *kind = UNSEEN_SOCKET;
        if (!(scan->flags & SCAN_SOCKETS) || !scan->procfs_is_ours)
            return 0;
        return visit_socket(scan, process, fd, strtoull(text + 8, NULL, 10));
    }
    if (!(scan->flags & SCAN_FDS))
        return 0;
    if (text[0] == '/')
        return visit_file(scan, process, fddir, fd, name, kind);
    holder.inode = scan_link_text(text, (size_t)n, &holder.type);
    if (holder.inode)
        hold_named(scan, &holder, fddir, name);
    return 0;
}


/* The descriptors of a process.  Each sort of refusal is noted once. */
void
scan_fds(struct scan *scan, struct process *process)
{
    struct walk walk;
    long fd;
    unsigned noted = 0;
    if (scan_walk(&walk, scan, 1, process->dir, "fd") < 0) {
        scan_deny(scan, (struct scan_unseen){.kind = UNSEEN_FD,
                                             .pid = process->pid,
                                             .fd = -1,
                                             .error = errno});
        return;
    }
    while (!scan->error && (fd = scan_next(&walk)) >= 0) {
        int kind;
        if (fd == scan->last_owner && process->pid == scan->self)
            continue;           /* open for a moment, and no holder */
        int refused = visit_fd(scan, process, walk.fd, (int)fd, &kind);
        if (refused && !(noted >> kind & 1)) {
            scan_deny(scan, (struct scan_unseen){.kind = kind,
                                                 .pid = process->pid,
                                                 .fd = (int)fd,
                                                 .error = refused});
            if (refused != ENOENT && refused != ESRCH)
                noted |= 1u << kind;
        }
        if (noted >> UNSEEN_FD & 1)
            break;              /* it hides the rest as well */
    }
    close(walk.fd);
}
