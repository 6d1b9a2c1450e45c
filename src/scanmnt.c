/* Namespace files that are mounted somewhere: in our own mount namespace, in
 * those of other processes, and in those that nobody is in.
 *
 * statmount() and listmount() (6.8; of other namespaces since 6.11) show all
 * of a mount namespace whatever root its processes have, and need no process
 * in it.  The mountinfo file of a process is the fallback. */
#include "scan.h"
#include "compat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTMOUNT_ROOT UINT64_MAX
#define STATMOUNT_BASICS 3u             /* SB_BASIC | MNT_BASIC */
#define STATMOUNT_PATHS 0x18u           /* MNT_ROOT | MNT_POINT */

struct mount_request {          /* mnt_id_req, its second version */
    uint32_t size, spare;
    uint64_t mount, param, mntns;
};

struct mount_info {             /* statmount, with room for two paths */
    uint32_t size, options;
    uint64_t mask;
    uint32_t major, minor;
    uint64_t magic;
    uint32_t flags, fstype;
    uint64_t id, parent;
    uint32_t old_id, old_parent;
    uint64_t attributes, propagation, peer_group, master, from;
    uint32_t root, point;       /* offsets into text */
    uint64_t rest[50];
    char text[8192];
};
_Static_assert(offsetof(struct mount_info, text) == 512, "statmount ABI");

#define RESOLVE_CONFINED                                                      \
    (NSU_RESOLVE_NO_MAGICLINKS | NSU_RESOLVE_NO_SYMLINKS                      \
     | NSU_RESOLVE_IN_ROOT)

/* Whose mounts are being listed. */
struct mount_view {
    uint64_t mntns;             /* inode, 0: unknown */
    int pid, tid; /* a process or thread that sees them, or 0 */
};


/* Where /proc shows something of the one who sees the mounts. */
static void
view_path(char *out, size_t size, const struct mount_view *view,
          const char *name)
{
    if (view->tid)
        snprintf(out, size, "%d/task/%d/%s", view->pid, view->tid, name);
    else
        snprintf(out, size, "%d/%s", view->pid, name);
}


/* Whether a mount (by its reusable id) is seen for the first time. */
static int
is_new(struct scan *scan, uint64_t id)
{
    uint64_t *seen = scan_at(scan, &scan->mounts, id + 1);
    if (seen == NULL || *seen)
        return 0;
    *seen = 1;
    return 1;
}


/* Read a namespace through its mount point, as the process sees it.  That
 * process may be hostile: no link is followed, and nothing is opened but
 * namespace files. */
static void
study_mounted(struct scan *scan, long row, const struct mount_view *view,
              const char *point)
{
    char path[64];
    struct stat st;
    struct nsu_open_how how = {O_PATH | O_CLOEXEC, 0, RESOLVE_CONFINED};
    if (row < 0 || scan->rows[row].related || view->pid == 0)
        return;
    view_path(path, sizeof path, view, "root");
    int root = openat(scan->procfd, path, O_PATH | O_CLOEXEC);
    if (root < 0)
        return;
    int fd = (int)syscall(SYS_openat2, root, point, &how, sizeof how);
    close(root);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_dev == scan->device) {
        snprintf(path, sizeof path, "thread-self/fd/%d", fd);
        scan_study(scan, row, scan->procfd, path);
    }
    close(fd);
}


/* Note a mounted namespace file; root is like "net:[4026531840]". */
static void
add_mount(struct scan *scan, const struct mount_view *view, const char *root,
          const char *point)
{
    struct scan_holder holder = {.kind = HOLD_MOUNT,
                                 .pid = view->pid,
                                 .tid = view->tid,
                                 .fd = -1,
                                 .mntns = view->mntns,
                                 .length = strlen(point)};
    holder.inode = scan_link_text(root, strlen(root), &holder.type);
    if (holder.inode == 0)
        return;
    holder.text = scan_text(scan, point, holder.length);
    study_mounted(scan, scan_intern(scan, holder.type, holder.inode), view,
                  point);
    scan_hold(scan, holder);
}


/* One mount by its id in a mount namespace. */
static void
visit_mount(struct scan *scan, const struct mount_view *view,
            struct mount_request request)
{
    struct mount_info info;
    request.param = STATMOUNT_BASICS;
    if (syscall(SYS_statmount, &request, &info,
                offsetof(struct mount_info, text) + 8, 0)
            < 0
        || !is_new(scan, info.old_id) || info.magic != NSU_NSFS_MAGIC)
        return;
    request.param = STATMOUNT_PATHS;
    if (syscall(SYS_statmount, &request, &info, sizeof info, 0) == 0
        && (info.mask & STATMOUNT_PATHS) == STATMOUNT_PATHS)
        add_mount(scan, view, info.text + info.root, info.text + info.point);
}


/* All mounts of a mount namespace by its id.  0, or an errno. */
static int
list_by_id(struct scan *scan, const struct mount_view *view, uint64_t mntns)
{
    uint64_t ids[256];
    struct mount_request request = {.size = sizeof request,
                                    .mount = LISTMOUNT_ROOT,
                                    .mntns = mntns};
    for (;;) {
        long n = syscall(SYS_listmount, &request, ids, 256, 0);
        if (n < 0)
            return errno;
        for (long i = 0; i < n && !scan->error; i++) {
            struct mount_request one = request;
            one.mount = ids[i];
            visit_mount(scan, view, one);
        }
        if (n < 256)
            return 0;
        request.param = ids[n - 1];
    }
}


/* Undo the octal escapes of a mountinfo field, in place.  The kernel writes
 * a backslash as one, too. */
static void
unescape(char *text)
{
    char *out = text;
    for (; *text; text++) {
        if (text[0] == '\\' && text[1] && text[2] && text[3]) {
            unsigned value = 0;
            for (int i = 0; i < 3; i++)
                value = value << 3 | (unsigned char)(*++text & 7);
            *out++ = (char)value;
        }
        else {
            *out++ = *text;
        }
    }
    *out = 0;
}


/* One line of a mountinfo file.  Returns whether the mount is new. */
static int
visit_line(struct scan *scan, const struct mount_view *view, char *line)
{
    enum { ID, PARENT, DEVICE, ROOT, POINT, FIELDS };
    char *field[FIELDS], *rest = line;
    for (int i = 0; i < FIELDS; i++)
        if ((field[i] = strsep(&rest, " ")) == NULL || rest == NULL)
            return 1;
    if (!is_new(scan, strtoull(field[ID], NULL, 10)))
        return 0;
    if (strstr(rest, " - nsfs ") != NULL) {
        unescape(field[POINT]);
        add_mount(scan, view, field[ROOT], field[POINT]);
    }
    return 1;
}


/* The complete lines of a buffer; returns how much of it they took.  *first:
 * no line was read yet.  When then the very first mount is known, the whole
 * namespace is: -1. */
static long
visit_lines(struct scan *scan, const struct mount_view *view, char *text,
            size_t length, int *first)
{
    char *line = text, *end;
    while ((end = memchr(line, '\n', length - (size_t)(line - text)))) {
        *end = 0;
        if (!visit_line(scan, view, line) && *first)
            return -1;
        *first = 0;
        line = end + 1;
    }
    return line - text;
}


/* All mounts that the mountinfo file of a process or thread shows.  0, or
 * an errno. */
static int
list_by_file(struct scan *scan, const struct mount_view *view,
             const char *path)
{
    char *text = scan->buffer;
    size_t have = 0;
    ssize_t n;
    int first = 1;
    int fd = openat(scan->procfd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    while (!scan->error
           && (n = read(fd, text + have, WALK_BUFFER - have)) > 0) {
        have += (size_t)n;
        long taken = visit_lines(scan, view, text, have, &first);
        if (taken < 0)
            break;
        have -= (size_t)taken;
        memmove(text, text + taken, have);
        if (have == WALK_BUFFER)
            have = 0; /* no line is that long */
    }
    close(fd);
    return 0;
}


/* The mounts of one mount namespace, the better way first. */
static void
list_row(struct scan *scan, struct ns_row row)
{
    char path[64];
    struct mount_view view = {row.inode, row.pid, 0};
    if (row.pid == 0) {
        view.pid = row.holder_pid;
        view.tid = row.holder_tid;
    }
    int error = EOPNOTSUPP;
    if (row.mntns)
        error = list_by_id(scan, &view, row.mntns);
    if (error && view.pid) {
        view_path(path, sizeof path, &view, "mountinfo");
        error = list_by_file(scan, &view, path);
    }
    /* Of a process: it ended.  Of an id: we may not. */
    if (error && !(view.pid && error == EINVAL))
        scan_deny(scan,
                  (struct scan_unseen){.kind = UNSEEN_MOUNTS,
                                       .inode = row.inode,
                                       .error = error == ENOENT && !view.pid
                                                    ? EPERM
                                                    : error});
}


/* Find the mounted namespace files: first in the calling thread's mount
 * namespace, with the paths that hold for it; then in all others; then in
 * those of processes that hide which one they are in. */
void
scan_mounts(struct scan *scan)
{
    char path[64];
    struct mount_view own = {scan->own_mntns, 0, 0};
    if (scan->procfs_is_ours) {
        int tid = (int)syscall(SYS_gettid);
        own.pid = getpid();
        own.tid = tid == own.pid ? 0 : tid;
    }
    list_by_file(scan, &own, "thread-self/mountinfo");
    for (size_t i = 0; i < scan->nrows && !scan->error; i++)
        if (scan->rows[i].type == NS_MNT)
            list_row(scan, scan->rows[i]);
    for (size_t i = 0; i < scan->nunseen && !scan->error; i++) {
        struct mount_view view = {0, scan->unseen[i].pid, 0};
        if (scan->unseen[i].kind != UNSEEN_NS)
            continue;
        view_path(path, sizeof path, &view, "mountinfo");
        list_by_file(scan, &view, path);
    }
}
