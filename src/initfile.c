/* The embedded program as an executable descriptor.
 *
 * It lies in a sealed memfd: whoever can open /proc/1/exe inside cannot
 * change what PID 1 runs.  Each use makes its own, in about ten microseconds:
 * one kept for the next would be a descriptor that no caller opened.  Where a
 * memfd may not be executed (vm.memfd_noexec) an unlinked file serves. */
#include "initfile.h"

#include "compat.h"
#include "init_elf.h"
#include "shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u                /* 6.3 */
#endif


/* Write it all.  0 or -errno. */
static int
write_init(int fd)
{
    size_t done = 0;
    while (done < init_elf_size) {
        ssize_t n = write(fd, init_elf + done, init_elf_size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}


/* The sealed memfd, or -errno. */
static int
make_memfd(void)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("nsutil-init", flags | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("nsutil-init", flags);
    if (fd < 0)
        return -errno;
    int result = write_init(fd);
    if (result == 0
        && fcntl(fd, F_ADD_SEALS,
                 F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
               < 0)
        result = -errno;
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}


/* The file open for reading, or -errno: one that is open for writing cannot be
 * executed.  In a MNT namespace of others another may lie at its path. */
static int
reopen(int fd)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (readable < 0)
        return -errno;
    if (is_same_file(fd, readable))
        return readable;
    close(readable);
    return -EXDEV;
}


/* An unlinked file with the program in that directory, or -errno. */
static int
make_file_in(const char *directory)
{
    struct statvfs fs;
    int result = 0;
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0500);
    if (fd < 0)
        return -errno;
    if (fstatvfs(fd, &fs) < 0 || fs.f_flag & ST_NOEXEC)
        result = -EACCES;
    if (result == 0)
        result = write_init(fd);
    if (result == 0 && fchmod(fd, 0555) < 0)
        result = -errno;
    if (result == 0)
        result = reopen(fd);
    close(fd);
    return result;
}


/* Such a file in the first directory that allows it.  -EACCES if none. */
static int
make_file(void)
{
    const char *directories[] = {"/dev/shm", getenv("XDG_RUNTIME_DIR"), "/run",
                                 "/tmp", "/var/tmp"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        int fd = directories[i] ? make_file_in(directories[i]) : -1;
        if (fd >= 0)
            return fd;
    }
    return -EACCES;
}


int
open_init(void)
{
    if (init_elf_size == 0)
        return -ENOEXEC;
    int fd = make_memfd();
    if (fd == -EACCES || fd == -EPERM || fd == -ENOSYS)
        fd = make_file();
    return raise_fd(fd);
}
