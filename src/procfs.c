/* Files of /proc that are certainly the kernel's; see procfs.h. */
#include "procfs.h"

#include "compat.h"
#include "steps.h"
#include "targets.h"

#include <errno.h>
#include <string.h>
#include <sys/vfs.h>

/* A pipe without a writer, laid over a file, must not keep us waiting. */
enum { READ = O_RDONLY | O_NONBLOCK | O_CLOEXEC };


/* Is it that file system that the descriptor is of?  0, or -EXDEV. */
static long
check_type(long fd, long type)
{
    struct statfs fs;
    long result = sc(SYS_fstatfs, fd, (long)&fs, 0, 0, 0, 0);
    return result == 0 && (long)fs.f_type != type ? -EXDEV : result;
}


/* The descriptor if it is of that file system, else -errno with it closed. */
static long
of_type(long fd, long type)
{
    long result = fd < 0 ? fd : check_type(fd, type);
    if (result == 0)
        return fd;
    shut(fd);
    return result;
}


/* The root of procfs, or -errno. */
static long
open_root(void)
{
    return of_type(sc(SYS_openat, AT_FDCWD, (long)"/proc",
                      O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0, 0),
                   NSU_PROC_MAGIC);
}


/* Below that root, not through what is mounted on it.  As openat2(2). */
static long
open_below(long proc, const char *path, long flags)
{
    struct nsu_open_how how = {.flags = (uint64_t)flags,
                               .resolve = NSU_RESOLVE_NO_XDEV
                                          | NSU_RESOLVE_NO_MAGICLINKS};
    return sc(SYS_openat2, proc, (long)(path + sizeof "/proc/" - 1),
              (long)&how, sizeof how, 0, 0);
}


long
open_proc(const char *path, long flags)
{
    long proc = open_root();
    if (proc < 0)
        return proc;
    long fd = open_below(proc, path, flags | O_CLOEXEC);
    shut(proc);
    if (!is_unavailable(fd))
        return fd;
    flags |= O_NONBLOCK | O_CLOEXEC;
    return of_type(sc(SYS_openat, AT_FDCWD, (long)path, flags, 0, 0, 0),
                   NSU_PROC_MAGIC);
}


/* The number in what a link to a namespace reads, "uts:[4026531838]"; 0 for
 * any other link. */
static uint64_t
read_inode(long link)
{
    char text[64];
    uint64_t inode = 0;
    long n = sc(SYS_readlinkat, link, (long)"", (long)text, sizeof text, 0, 0);
    const char *end = text + (n > 0 ? n : 0);
    const char *at = n > 0 ? memchr(text, '[', (size_t)n) : NULL;
    if (at == NULL)
        return 0;
    for (at++; at < end && *at >= '0' && *at <= '9'; at++)
        inode = inode * 10 + (uint64_t)(*at - '0');
    return inode;
}


/* Where the entry leads, if it is where the link says: something may have
 * been laid over it meanwhile.  -errno on failure. */
static long
follow(const char *path, long link)
{
    struct file_status found;
    uint64_t inode = read_inode(link);
    long fd = sc(SYS_openat, AT_FDCWD, (long)path, READ, 0, 0, 0);
    fd = of_type(fd, NSU_NSFS_MAGIC);
    long result = fd < 0 ? fd : status_of(fd, &found);
    if (result == 0 && found.stx_ino == inode)
        return fd;
    shut(fd);
    return result < 0 ? result : -EXDEV;
}


long
open_proc_ns(const char *path)
{
    long link = open_proc(path, O_PATH | O_NOFOLLOW);
    if (link < 0)
        return link;
    long fd = follow(path, link);
    shut(link);
    return fd;
}
