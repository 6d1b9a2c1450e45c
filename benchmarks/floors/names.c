/* The floor of named network namespaces: a file, an unshare, a bind mount and
 * the way back for each; a detached unmount and an unlink. */
#include "floors.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

static const char own[] = "/proc/thread-self/ns/net";


/* 0 or -errno; on failure the thread may be in the new namespace. */
static int
create(const char *path, int home, int loopback)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    close(fd);
    if (unshare(CLONE_NEWNET) < 0)
        return -errno;
    int error = loopback ? set_loopback_up() : 0;
    if (!error && mount(own, path, NULL, MS_BIND, NULL) < 0)
        error = -errno;
    if (!error && setns(home, CLONE_NEWNET) < 0)
        error = -errno;
    return error;
}


int64_t
floor_names_create(const char *directory, int loopback, int64_t count)
{
    char path[256];
    int64_t start = now();
    int home = open(own, O_RDONLY | O_CLOEXEC);
    int error = home < 0 ? -errno : 0;
    for (int64_t i = 0; i < count && !error; i++) {
        snprintf(path, sizeof path, "%s/%d", directory, (int)i);
        error = create(path, home, loopback);
    }
    close(home);
    return error ? error : now() - start;
}


int64_t
floor_names_delete(const char *directory, int64_t count)
{
    char path[256];
    int64_t start = now();
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", directory, (int)i);
        if (umount2(path, MNT_DETACH) < 0 || unlink(path) < 0)
            return -errno;
    }
    return now() - start;
}
