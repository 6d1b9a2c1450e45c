/* The kernel that the fuzzer plays: see kernel.h.  It keeps to what any
 * kernel promises (lengths, the layout of records, strings that end) and to
 * nothing else; an input that is used up answers 0 or an error. */
#define NSUTIL_FUZZ_KERNEL
#include "kernel.h"

#include <errno.h>
#include <string.h>

enum { FIRST_FD = 10, FDS = 256, DEVICE = 4, SELF = 77, UMASK = 022 };

static const unsigned char *data;
static size_t left, most;
static bool text_only;
static bool is_open[FDS];
static const unsigned char *begin;
static size_t whole;
static uint64_t last_id;
static long mask;
static char configured[1 << 17];


void
fuzz_begin(const unsigned char *bytes, size_t size, bool text, size_t pieces)
{
    begin = data = bytes;
    whole = left = size;
    text_only = text;
    most = pieces;
    last_id = 0;
    mask = UMASK;
    configured[0] = '\0';
    memset(is_open, 0, sizeof is_open);
}


void
fuzz_end(void)
{
    for (int fd = 0; fd < FDS; fd++)
        if (is_open[fd]) {
            fprintf(stderr, "descriptor %d was not closed\n", fd);
            abort();
        }
    if (mask != UMASK) {
        fprintf(stderr, "the umask was left at 0%lo\n", mask);
        abort();
    }
}


const char *
fuzz_configured(void)
{
    return configured;
}


/* The next byte of the input; text has none to spare for that. */
static unsigned
byte(void)
{
    if (text_only || left == 0)
        return 0;
    left--;
    return *data++;
}


/* The next number: mostly a small one. */
static uint64_t
number(void)
{
    uint64_t value = byte();
    if (value < 200)
        return value;
    for (int i = 0; i < 8; i++)
        value = value << 8 | byte();
    return value;
}


/* As many of the next bytes as there are, at most `size`. */
static size_t
bytes(void *out, size_t size)
{
    size_t n = size < left ? size : left;
    memcpy(out, data, n);
    data += n;
    left -= n;
    return n;
}


/* Whether this call fails, with errno; and that of a used-up input. */
static bool
fails(void)
{
    static const int errors[] = {EPERM,  ENOENT, EACCES, EMFILE,
                                 ENOMEM, EINVAL, ESRCH,  EIO};
    unsigned chosen = byte();
    if (chosen < 224 && (text_only || left))
        return false;
    errno = errors[chosen % (sizeof errors / sizeof *errors)];
    return true;
}


int
fuzz_open(void)
{
    if (fails())
        return -1;
    data = text_only ? begin : data; /* each file is the same text */
    left = text_only ? whole : left;
    for (int fd = FIRST_FD; fd < FDS; fd++)
        if (!is_open[fd]) {
            is_open[fd] = true;
            return fd;
        }
    errno = EMFILE;
    return -1;
}


int
fuzz_close(int fd)
{
    if (fd < 0 || fd >= FDS || !is_open[fd]) {
        fprintf(stderr, "descriptor %d was closed and not open\n", fd);
        abort();
    }
    is_open[fd] = false;
    return 0;
}


ssize_t
fuzz_read(void *buffer, size_t size)
{
    if (fails())
        return -1;
    size_t wanted = text_only ? size : number() % (size + 1);
    return (ssize_t)bytes(buffer, most && most < wanted ? most : wanted);
}


/* The text of a link: one to a namespace, or any. */
ssize_t
fuzz_readlink(char *buffer, size_t size)
{
    static const char *const types[] = {"cgroup", "ipc",    "mnt",     "net",
                                        "pid",    "socket", "/dev/tun"};
    char text[64];
    if (fails())
        return -1;
    unsigned kind = byte();
    if (kind == 127)
        return snprintf(buffer, size, "%d", SELF);
    if (kind >= 128)
        return (ssize_t)bytes(buffer, kind % (size + 1));
    int n = snprintf(text, sizeof text, "%s:[%llu]", types[kind % 7],
                     (unsigned long long)(text_only ? 1 : number()));
    size_t length = (size_t)n < size ? (size_t)n : size;
    memcpy(buffer, text, length);
    return (ssize_t)length;
}


int
fuzz_stat(struct stat *st)
{
    if (fails())
        return -1;
    memset(st, 0, sizeof *st);
    st->st_dev = byte() < 200 ? DEVICE : 5;
    st->st_ino = number();
    st->st_nlink = byte() % 5;
    st->st_uid = byte();
    return 0;
}


int
fuzz_statfs(struct statfs *fs)
{
    memset(fs, 0, sizeof *fs);
    fs->f_type = NSU_PROC_MAGIC;
    return fails() ? -1 : 0;
}


/* Those of namespaces, sockets and devices open another one, or tell a
 * number. */
int
fuzz_ioctl(unsigned long request, void *answer)
{
    static const int types[] = {CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNS,
                                CLONE_NEWNET,    CLONE_NEWPID, CLONE_NEWTIME,
                                CLONE_NEWUSER,   CLONE_NEWUTS, 0};
    size_t size = request >> 16 & 0x3fff;
    if (request == NSU_GET_NSTYPE)
        return types[byte() % (sizeof types / sizeof *types)];
    if (request == NSU_GET_OWNER_UID)
        size = sizeof(uid_t);
    if (size == 0)
        return fuzz_open();
    if (fails() || bytes(answer, size) < size) {
        errno = ENOTTY;
        return -1;
    }
    return 0;
}


/* Records of a directory: numbers, names that are none, any bytes. */
static long
directory(char *out, size_t size)
{
    size_t at = 0;
    for (unsigned count = byte() % 8; count > 0; count--) {
        char name[64] = "";
        unsigned kind = byte();
        if (kind < 200)
            snprintf(name, sizeof name, "%llu", (unsigned long long)number());
        else
            bytes(name, kind - 192);
        size_t length = (19 + strlen(name) + 1 + 7) & ~7u;
        if (at + length > size)
            break;
        unsigned short record = (unsigned short)length;
        memset(out + at, 0, length);
        memcpy(out + at + 16, &record, sizeof record);
        strcpy(out + at + 19, name);
        at += length;
    }
    return (long)at;
}


/* What statmount(2) tells: its strings lie in the buffer and end there. */
static long
mount_status(char *out, size_t size)
{
    static const uint64_t nsfs = NSU_NSFS_MAGIC;
    enum { MASK = 8, MAGIC = 24, OLD_ID = 56, TEXTS = 88, TEXT = 512 };
    if (fails())
        return -1;
    memset(out, 0, size);
    bytes(out + OLD_ID, 4);
    memset(out + MASK, byte() < 200 ? 0xff : 0, 8);
    if (byte() < 200)
        memcpy(out + MAGIC, &nsfs, sizeof nsfs);
    if (size < TEXT + 128)
        return 0;
    ssize_t root = fuzz_readlink(out + TEXT, 63);
    uint32_t point = root < 0 ? 0 : (uint32_t)root + 1;
    bytes(out + TEXT + point, byte() % 60);
    memcpy(out + TEXTS + 4, &point, sizeof point);
    return 0;
}


/* Up to `room` ids, in ascending order as the kernel gives them. */
static long
ids(uint64_t *out, long room)
{
    long count = (long)(byte() < 250 ? byte() % 9 : 256);
    if (fails())
        return -1;
    for (long i = 0; i < count && i < room; i++)
        out[i] = last_id += 1 + byte();
    return count < room ? count : room;
}


long
fuzz_syscall(long call, long b, long c)
{
    switch (call) {
    case SYS_gettid:
        return SELF;
    case SYS_getdents64:
        return text_only ? 0 : directory((char *)b, (size_t)c);
    case SYS_statmount:
        return text_only ? -1 : mount_status((char *)b, (size_t)c);
    case SYS_listmount:
    case SYS_listns:
        errno = ENOSYS;
        return text_only || left == 0 ? -1 : ids((uint64_t *)b, c);
    case SYS_prlimit64:
        return 0;
    default: /* what opens something */
        return fuzz_open();
    }
}


/* The same by statx(2). */
static int
file_status(struct file_status *found)
{
    static const uint16_t modes[] = {S_IFDIR, S_IFREG, S_IFLNK};
    struct stat st;
    if (fuzz_stat(&st) < 0)
        return -1;
    unsigned chosen = byte();
    memset(found, 0, sizeof *found);
    found->stx_mode = chosen < 200 ? modes[chosen % 3] : S_IFCHR;
    found->stx_ino = st.st_ino;
    found->stx_dev_minor = (uint32_t)st.st_dev;
    found->stx_rdev_major = 10;
    found->stx_rdev_minor = 200;
    return 0;
}


/* One setting of a file system: noted, within the limits of fsconfig(2). */
static int
configure(long command, const char *key, const char *value)
{
    size_t at = strlen(configured);
    bool is_flag = command == 0;
    if (command > 1) /* FSCONFIG_CMD_CREATE */
        return fails() ? -1 : 0;
    if (strlen(key) == 0 || strlen(key) > 255 || is_flag != (value == NULL)
        || (value && strlen(value) > 255))
        abort();
    snprintf(configured + at, sizeof configured - at, "%s%s%s,", key,
             value ? "=" : "", value ? value : "");
    return fails() ? -1 : 0;
}


/* A name for something new: one component. */
static int
make_name(const char *name)
{
    if (strchr(name, '/') || strlen(name) > 255)
        abort();
    return fails() ? -1 : 0;
}


/* What has a name, which must end.  One of a component alone that is longer
 * than any file system takes is never said to be missing. */
static int
open_name(const char *name)
{
    if (strlen(name) < (strchr(name, '/') ? 4096 : 256))
        return fuzz_open();
    errno = ENAMETOOLONG;
    return -1;
}


/* What neither opens nor reads anything: 0, or -1 and errno. */
static long
act(long call, long a, long b, long c, long d)
{
    long before = mask;
    switch (call) {
    case SYS_umask:
        mask = a;
        return before;
    case SYS_fsconfig:
        return configure(b, (const char *)c, (const char *)d);
    case SYS_mkdirat:
        return make_name((const char *)b);
    case SYS_symlinkat:
        return make_name((const char *)c);
    case SYS_write:
        return fails() ? -1 : (long)(number() % ((size_t)c + 1));
    default:
        return fails() ? -1 : 0;
    }
}


/* The same without errno. */
long
fuzz_sc(long call, long a, long b, long c, long d, long e)
{
    long result;
    switch (call) {
    case SYS_close:
        return a >= 0 && a < FDS && is_open[a] ? fuzz_close((int)a) : -EBADF;
    case SYS_read:
        result = fuzz_read((void *)b, (size_t)c);
        break;
    case SYS_readlinkat:
        result = fuzz_readlink((char *)c, (size_t)d);
        break;
    case SYS_statx:
        result = file_status((void *)(uintptr_t)e);
        break;
    case SYS_fstatfs:
        result = fuzz_statfs((void *)b);
        break;
    case SYS_openat:
    case SYS_openat2:
        result = open_name((const char *)b);
        break;
    case SYS_umask:
    case SYS_mkdirat:
    case SYS_symlinkat:
    case SYS_mount:
    case SYS_move_mount:
    case SYS_mount_setattr:
    case SYS_write:
    case SYS_fsconfig:
        result = act(call, a, b, c, d);
        break;
    default:
        result = fuzz_syscall(call, b, c);
    }
    return result < 0 ? -errno : result;
}


/* realloc(3), with zeros in what is new; no memory now and then. */
void *
fuzz_memory(void *old, size_t size)
{
    if (byte() == 255)
        return NULL;
    void *grown = realloc(old, size);
    if (old == NULL && grown != NULL)
        memset(grown, 0, size);
    return grown;
}
