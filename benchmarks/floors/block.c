/* The floor of a `with` block. */
#include "floors.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TYPES = 5 };

static const struct {
    const char *path;
    int flag;
} type[TYPES] = {
    {"/proc/thread-self/ns/cgroup", CLONE_NEWCGROUP},
    {"/proc/thread-self/ns/ipc", CLONE_NEWIPC},
    {"/proc/thread-self/ns/net", CLONE_NEWNET},
    {"/proc/thread-self/ns/uts", CLONE_NEWUTS},
    {"/proc/thread-self/ns/mnt", CLONE_NEWNS},
};


int
set_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int result = ioctl(fd, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    if (result == 0)
        result = ioctl(fd, SIOCSIFFLAGS, &request);
    int error = result < 0 ? -errno : 0;
    close(fd);
    return error;
}


/* Root and working directory: setns to a mount namespace resets both. */
enum { ROOT, CWD, PLACES };


/* Open what is to be restored.  0 or -errno. */
static int
save(int types, int *saved, int *places)
{
    const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    for (int i = 0; i < TYPES; i++) {
        if (!(types & type[i].flag))
            continue;
        saved[i] = open(type[i].path, O_RDONLY | O_CLOEXEC);
        if (saved[i] < 0)
            return -errno;
    }
    if (!(types & CLONE_NEWNS))
        return 0;
    places[ROOT] = open("/", flags);
    places[CWD] = open(".", flags);
    return places[ROOT] < 0 || places[CWD] < 0 ? -errno : 0;
}


/* Go back to both and close them.  0 or -errno. */
static int
restore_places(const int *places)
{
    if (fchdir(places[ROOT]) < 0 || chroot(".") < 0 || fchdir(places[CWD]) < 0)
        return -errno;
    close(places[ROOT]);
    close(places[CWD]);
    return 0;
}


/* 0 or -errno. */
static int
enter(int types, int target, int setup)
{
    if ((target >= 0 ? setns(target, types) : unshare(types)) < 0)
        return -errno;
    if (setup && types & CLONE_NEWNS
        && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    return setup && types & CLONE_NEWNET ? set_loopback_up() : 0;
}


/* 0 or -errno. */
static int
leave(int types, const int *saved, const int *places)
{
    for (int i = 0; i < TYPES; i++)
        if (types & type[i].flag
            && (setns(saved[i], type[i].flag) < 0 || close(saved[i]) < 0))
            return -errno;
    return types & CLONE_NEWNS ? restore_places(places) : 0;
}


int64_t
floor_block(int types, int target, int setup, int64_t rounds)
{
    int64_t start = now();
    for (int64_t i = 0; i < rounds; i++) {
        int saved[TYPES], places[PLACES] = {-1, -1};
        int error = save(types, saved, places);
        error = error ? error : enter(types, target, setup);
        error = error ? error : leave(types, saved, places);
        if (error)
            return error;
    }
    return now() - start;
}
