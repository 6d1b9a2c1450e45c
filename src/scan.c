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


/* Tables that grow. */

/* Make place for one more item.  0, or -1 with scan->error set. */
static int
reserve(struct scan *scan, void *table, size_t *room, size_t used, size_t size)
{
    void **items = table;
    if (used < *room)
        return 0;
    size_t more = *room ? *room * 2 : 64;
    void *grown = realloc(*items, more * size);
    if (grown == NULL) {
        scan->error = ENOMEM;
        return -1;
    }
    *items = grown;
    *room = more;
    return 0;
}


/* Namespace and socket inodes count upwards: multiply, take the top. */
static size_t
slot_of(const struct scan_map *map, uint64_t key)
{
    size_t mask = map->room - 1;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (map->slots[2 * at] != 0 && map->slots[2 * at] != key)
        at = (at + 1) & mask;
    return at;
}


/* Double the map.  0, or -1 with scan->error set. */
static int
grow_map(struct scan *scan, struct scan_map *map)
{
    struct scan_map bigger = {.room = map->room ? map->room * 2 : 256};
    bigger.slots = calloc(bigger.room, 2 * sizeof *bigger.slots);
    if (bigger.slots == NULL) {
        scan->error = ENOMEM;
        return -1;
    }
    for (size_t i = 0; i < map->room; i++)
        if (map->slots[2 * i] != 0) {
            size_t at = slot_of(&bigger, map->slots[2 * i]);
            bigger.slots[2 * at] = map->slots[2 * i];
            bigger.slots[2 * at + 1] = map->slots[2 * i + 1];
        }
    bigger.used = map->used;
    free(map->slots);
    *map = bigger;
    return 0;
}


/* The value of a key, 0 when it is new, to be read or written before the
 * next call.  NULL with scan->error set. */
uint64_t *
scan_at(struct scan *scan, struct scan_map *map, uint64_t key)
{
    if (2 * map->used >= map->room && grow_map(scan, map) < 0)
        return NULL;
    size_t at = slot_of(map, key);
    if (map->slots[2 * at] == 0) {
        map->slots[2 * at] = key;
        map->used++;
    }
    return &map->slots[2 * at + 1];
}


/* The index of a namespace's row, which is made when it is new.  -1 with
 * scan->error set. */
long
scan_intern(struct scan *scan, int type, uint64_t inode)
{
    uint64_t *index = scan_at(scan, &scan->row_of,
                              inode * NS_TYPES + (unsigned)type);
    if (index == NULL)
        return -1;
    if (*index == 0) {
        if (reserve(scan, &scan->rows, &scan->row_room, scan->nrows,
                    sizeof *scan->rows)
            < 0)
            return -1;
        scan->rows[scan->nrows++] =
            (struct ns_row){.inode = inode, .type = type, .owner_uid = -1};
        *index = scan->nrows;
    }
    return (long)*index - 1;
}


/* Copy text and say where it went. */
size_t
scan_text(struct scan *scan, const char *text, size_t length)
{
    size_t at = scan->ntext;
    while (scan->text_room < at + length)
        if (reserve(scan, &scan->text, &scan->text_room, scan->text_room, 1)
            < 0)
            return 0;
    memcpy(scan->text + at, text, length);
    scan->ntext += length;
    return at;
}


/* Note who holds something. */
void
scan_hold(struct scan *scan, struct scan_holder holder)
{
    if (reserve(scan, &scan->holders, &scan->holder_room, scan->nholders,
                sizeof *scan->holders)
        == 0)
        scan->holders[scan->nholders++] = holder;
}


/* Note what a process tells about itself. */
void
scan_add_detail(struct scan *scan, struct scan_detail detail)
{
    if (reserve(scan, &scan->details, &scan->detail_room, scan->ndetails,
                sizeof *scan->details)
        == 0)
        scan->details[scan->ndetails++] = detail;
}


/* Note what was refused.  That a process is gone is no refusal. */
void
scan_deny(struct scan *scan, struct scan_unseen unseen)
{
    if (unseen.error == ENOENT || unseen.error == ESRCH)
        return;
    if (reserve(scan, &scan->unseen, &scan->unseen_room, scan->nunseen,
                sizeof *scan->unseen)
        == 0)
        scan->unseen[scan->nunseen++] = unseen;
}


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
    if (reserve(scan, &scan->processes, &scan->process_room, scan->nprocesses,
                sizeof *scan->processes)
        < 0)
        return 0;
    struct scan_process *added = &scan->processes[scan->nprocesses++];
    added->pid = (uint64_t)process->pid;
    memcpy(added->inode, process->inode, sizeof added->inode);
    return first;
}


/* Everything beyond the links of one process.  Who hides its links hides its
 * threads' too, and is asked for its descriptors alone. */
static void
look_deeper(struct scan *scan, struct process *process, int first, int refused)
{
    if (first) {
        for (int t = 0; t < NS_TYPES; t++)
            if (process->inode[t])
                scan_study_own(scan, scan_intern(scan, t, process->inode[t]),
                               process);
        scan_describe(scan, process);
    }
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
    scan->procfs_is_ours = atoi(self) == getpid();
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


/* Read what is behind namespaces that an earlier pass found: their owners,
 * parents and lowest processes.  The rows give type, inode (0: describe the
 * process alone) and pid, those of one pid together; a process that is no
 * longer in that namespace is a stranger and is skipped.  0, or an errno. */
int
scan_these(struct scan *scan, const struct ns_row *rows, size_t count,
           int flags)
{
    int error = begin(scan, flags | SCAN_DEEP);
    for (size_t i = 0; i < count && !error;) {
        struct process process = {.pid = rows[i].pid,
                                  .dir = -1,
                                  .ns = -1,
                                  .pidfd = -1};
        int known = 0;
        for (; i < count && rows[i].pid == process.pid; i++) {
            if (rows[i].inode == 0) {
                known = 1;
                continue;
            }
            long row = scan_intern(scan, rows[i].type, rows[i].inode);
            scan_study_own(scan, row, &process);
            known |= row >= 0 && scan->rows[row].related;
        }
        if (known)
            scan_describe(scan, &process);
        close_process(&process);
        error = scan->error;
    }
    return error;
}


/* For qsort: the order in which namespaces are listed. */
static int
by_type_and_inode(const void *a, const void *b)
{
    const struct ns_row *x = a, *y = b;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}


/* For qsort: by kind, then by where it is. */
static int
by_holder(const void *a, const void *b)
{
    const struct scan_holder *x = a, *y = b;
    int order[] = {x->kind - y->kind, x->pid - y->pid, x->tid - y->tid,
                   x->fd - y->fd};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (order[i])
            return order[i];
    return x->text < y->text ? -1 : x->text > y->text;
}


/* Put rows and holders in order; scan_intern() can't be used after it. */
void
scan_sort(struct scan *scan)
{
    if (scan->nrows)
        qsort(scan->rows, scan->nrows, sizeof *scan->rows, by_type_and_inode);
    if (scan->nholders)
        qsort(scan->holders, scan->nholders, sizeof *scan->holders, by_holder);
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
