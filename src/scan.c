/* The pass over /proc; scan.h says what comes out of it. */
#include "scan.h"
#include "compat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

const char *const scan_names[NS_TYPES] = {"cgroup", "ipc",  "mnt",  "net",
                                          "pid",    "time", "user", "uts"};


/* Files of /proc. */

/* Write a number and its NUL; returns where the NUL is. */
char *
scan_number(char *out, int number)
{
    char digits[12];
    int n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (n)
        *out++ = digits[--n];
    *out = 0;
    return out;
}


/* Read a small file of /proc whole, as far as the buffer goes.  Returns the
 * length, or -1 with errno. */
ssize_t
scan_read(int dir, const char *name, char *buffer, size_t size)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, buffer, size);
    int error = errno;
    close(fd);
    errno = error;
    return n;
}


/* Start on a directory; `level` chooses the buffer, one per depth.  0, or -1
 * with errno; the caller closes walk->fd. */
int
scan_walk(struct walk *walk, struct scan *scan, int level, int dir,
          const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *walk = (struct walk){.fd = fd,
                          .buffer = scan->buffer + level * WALK_BUFFER};
    return fd < 0 ? -1 : 0;
}


struct entry {                  /* what getdents64 gives */
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};


/* The next number, or -1 at the end (or where the process is gone). */
long
scan_next(struct walk *walk)
{
    for (;;) {
        if (walk->at >= walk->have) {
            walk->have = syscall(SYS_getdents64, walk->fd, walk->buffer,
                                 WALK_BUFFER);
            walk->at = 0;
            if (walk->have <= 0)
                return -1;
        }
        const struct entry *entry = (const void *)(walk->buffer + walk->at);
        walk->at += entry->length;
        if (entry->name[0] >= '0' && entry->name[0] <= '9')
            return atol(entry->name);
    }
}


/* The type that a link's text such as "net:[4026531840]" names, or -1. */
static int
type_of(const char *text, size_t length)
{
    for (int t = 0; t < NS_TYPES; t++) {
        size_t n = strlen(scan_names[t]);
        if (length > n + 2 && memcmp(text, scan_names[t], n) == 0
            && text[n] == ':' && text[n + 1] == '[')
            return t;
    }
    return -1;
}


/* The inode in the text of a link to a namespace, which need not end in NUL;
 * 0: it is a link to something else.  Stores the type unless NULL. */
uint64_t
scan_link_text(const char *text, size_t length, int *type)
{
    uint64_t inode = 0;
    if (type != NULL && (*type = type_of(text, length)) < 0)
        return 0;
    const char *digit = memchr(text, '[', length);
    if (digit == NULL)
        return 0;
    for (digit++; digit < text + length && *digit >= '0' && *digit <= '9';
         digit++)
        inode = inode * 10 + (uint64_t)(*digit - '0');
    return inode;
}


/* The inode that a link of an ns directory shows, or 0 with errno. */
uint64_t
scan_link(int dir, const char *name)
{
    char text[64];
    ssize_t n = readlinkat(dir, name, text, sizeof text);
    return n < 0 ? 0 : scan_link_text(text, (size_t)n, NULL);
}


/* The inodes of the namespaces in one ns directory, 0 where there is none
 * (zombie, old kernel, not asked for).  0, or the errno of a refusal. */
int
scan_links(struct scan *scan, int nsdir, uint64_t inode[NS_TYPES])
{
    memset(inode, 0, NS_TYPES * sizeof *inode);
    for (int t = 0; t < NS_TYPES; t++) {
        if (!(scan->read >> t & 1))
            continue;
        inode[t] = scan_link(nsdir, scan_names[t]);
        if (inode[t] == 0 && errno != ENOENT && errno != ESRCH)
            return errno;
    }
    return 0;
}


/* The pass. */

/* Open /proc/PID/ns, and /proc/PID where more than links is wanted.  0, or
 * -1 with errno. */
static int
open_process(const struct scan *scan, struct process *process)
{
    char path[24];
    char *end = scan_number(path, process->pid);
    int dir = scan->procfd;
    if (scan->flags & SCAN_DEEP) {
        dir = process->dir = openat(dir, path,
                                    O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            return -1;
    }
    strcpy(end, "/ns");
    process->ns = openat(dir, process->dir < 0 ? path : "ns",
                         O_PATH | O_DIRECTORY | O_CLOEXEC);
    return process->ns < 0 ? -1 : 0;
}


/* Close what was opened of it. */
static void
close_process(struct process *process)
{
    if (process->dir >= 0)
        close(process->dir);
    if (process->ns >= 0)
        close(process->ns);
    if (process->pidfd >= 0)
        close(process->pidfd);
}


/* Count the process in its namespaces.  Numbers come in ascending order, so
 * the first is the lowest; returns whether it is that anywhere. */
static int
add_process(struct scan *scan, const struct process *process)
{
    int first = 0;
    for (int t = 0; t < NS_TYPES; t++) {
        if (process->inode[t] == 0)
            continue;
        long row = scan_intern(scan, t, process->inode[t]);
        if (row < 0)
            return 0;
        scan->rows[row].nprocs++;
        if (scan->rows[row].pid == 0) {
            scan->rows[row].pid = process->pid;
            first = 1;
        }
    }
    struct scan_process added = {.pid = (uint64_t)process->pid};
    memcpy(added.inode, process->inode, sizeof added.inode);
    scan_add_process(scan, &added);
    return first;
}


/* Everything beyond the links of one process.  Who hides its links hides its
 * threads' too, and is asked for its descriptors alone. */
static void
look_deeper(struct scan *scan, struct process *process, int first, int refused)
{
    for (int t = 0; t < NS_TYPES && !refused; t++) {
        if (process->inode[t] == 0)
            continue;
        long row = scan_intern(scan, t, process->inode[t]);
        if (row >= 0 && !scan->rows[row].related)
            scan_study_own(scan, row, process);
    }
    if (first)
        scan_describe(scan, process);
    if (scan->flags & SCAN_TASKS && !refused) {
        scan_children(scan, process, process->ns, 0);
        scan_threads(scan, process);
    }
    if (scan->flags & (SCAN_FDS | SCAN_SOCKETS))
        scan_fds(scan, process);
}


/* One process, from its number on. */
static void
visit(struct scan *scan, int pid)
{
    struct process process = {.pid = pid, .dir = -1, .ns = -1, .pidfd = -1};
    int first = 0;
    int refused = open_process(scan, &process) < 0
                      ? errno
                      : scan_links(scan, process.ns, process.inode);
    if (refused)
        scan_deny(scan, (struct scan_unseen){.kind = UNSEEN_NS,
                                             .pid = pid,
                                             .error = refused});
    else
        first = add_process(scan, &process);
    if (scan->flags & SCAN_DEEP && process.ns >= 0)
        look_deeper(scan, &process, first, refused);
    close_process(&process);
}


/* Open /proc and learn what this pass stands on.  0, or an errno. */
static int
begin(struct scan *scan, int flags)
{
    struct statfs fs;
    struct stat st;
    char self[24];
    *scan = (struct scan){.flags = flags, .procfd = -1, .last_owner = -1};
    scan->buffer = malloc(LEVELS * WALK_BUFFER);
    if (scan->buffer == NULL)
        return ENOMEM;
    scan->procfd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (scan->procfd < 0 || fstatfs(scan->procfd, &fs) < 0)
        return errno;
    if (fs.f_type != NSU_PROC_MAGIC)
        return ENODEV;
    ssize_t n = readlinkat(scan->procfd, "self", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = 0;
    scan->self = atoi(self);
    scan->procfs_is_ours = scan->self == getpid();
    if (fstatat(scan->procfd, "self/ns/mnt", &st, 0) == 0)
        scan->device = st.st_dev;
    scan->own_mntns = scan_link(scan->procfd, "thread-self/ns/mnt");
    return 0;
}


/* Read the namespaces of all processes and, by the flags, what else holds
 * one.  types: 1 << NS_X.  0, or an errno. */
int
scan_all(struct scan *scan, unsigned types, int flags)
{
    struct walk walk;
    long pid;
    int error = begin(scan, flags);
    if (error)
        return error;
    /* Owners and parents come into view too: count who is in them. */
    scan->read = types | 1u << NS_USER | 1u << NS_PID;
    if (flags & SCAN_MOUNTS)
        scan->read |= 1u << NS_MNT;
    if (flags & SCAN_SOCKETS)
        scan->read |= 1u << NS_NET;
    if (!scan->procfs_is_ours && flags & (SCAN_FDS | SCAN_SOCKETS))
        scan_deny(scan,
                  (struct scan_unseen){.kind = UNSEEN_PIDFD, .error = EXDEV});
    if (scan_walk(&walk, scan, 0, scan->procfd, ".") < 0)
        return errno;
    while (!scan->error && (pid = scan_next(&walk)) >= 0)
        visit(scan, (int)pid);
    close(walk.fd);
    if (flags & SCAN_MOUNTS && !scan->error)
        scan_mounts(scan);
    if (flags & SCAN_DEEP && !scan->error)
        scan_kernel_list(scan);
    return scan->error;
}


/* For qsort: the rows of one process together. */
static int
by_pid(const void *a, const void *b)
{
    const struct ns_row *x = a, *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}


/* Read what is behind namespaces that an earlier pass found: their owners,
 * parents and lowest processes.  The rows give type, inode (0: describe the
 * process alone) and pid, and are put in order of pid; a process that is no
 * longer in that namespace is a stranger and is skipped.  0, or an errno. */
int
scan_these(struct scan *scan, struct ns_row *rows, size_t count, int flags)
{
    int error = begin(scan, flags | SCAN_DEEP);
    qsort(rows, count, sizeof *rows, by_pid);
    for (size_t i = 0; i < count && !error;) {
        struct process process = {.pid = rows[i].pid,
                                  .dir = -1,
                                  .ns = -1,
                                  .pidfd = -1};
        int known = 0;
        for (; i < count && rows[i].pid == process.pid; i++)
            known |= rows[i].inode == 0
                     || scan_study_own(scan,
                                       scan_intern(scan, rows[i].type,
                                                   rows[i].inode),
                                       &process);
        if (known)
            scan_describe(scan, &process);
        close_process(&process);
        error = scan->error;
    }
    return error;
}


void
scan_free(struct scan *scan)
{
    if (scan->procfd >= 0)
        close(scan->procfd);
    if (scan->last_owner >= 0)
        close(scan->last_owner);
    free(scan->buffer);
    free(scan->rows);
    free(scan->processes);
    free(scan->details);
    free(scan->holders);
    free(scan->unseen);
    free(scan->text);
    free(scan->row_of.slots);
    free(scan->socket_net.slots);
    free(scan->mounts.slots);
}
