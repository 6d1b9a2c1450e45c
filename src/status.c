/* How a child ended; see status.h. */
#include "status.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>


/* What PIDFD_GET_INFO keeps of a process that is gone (6.15). */
struct exit_info {
    uint64_t mask, cgroup;
    uint32_t ids[11];
    int32_t status;
};

enum { EXIT_KNOWN = 1 << 3 };


/* The raw status of a process that somebody else has reaped, or the kernel
 * itself since SIGCHLD is ignored. */
static int
status_of_reaped(int pidfd)
{
    struct exit_info info = {.mask = EXIT_KNOWN};
    if (ioctl(pidfd, _IOWR(0xff, 11, struct exit_info), &info) < 0
        || !(info.mask & EXIT_KNOWN))
        return STATUS_UNKNOWN;
    return info.status;
}


/* The raw status of our child, which is reaped; flags as of waitid(2). */
static int
reap_status(int pidfd, int flags)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL | flags) < 0)
        return errno == EINTR ? STATUS_NOT_YET : status_of_reaped(pidfd);
    if (info.si_pid == 0)
        return STATUS_NOT_YET;
    if (info.si_code == CLD_EXITED)
        return (info.si_status & 0xff) << 8;
    return info.si_status | (info.si_code == CLD_DUMPED ? 0x80 : 0);
}


/* What came of the child, or of the program that nsutil-init reported. */
static int
program_status(int status, int status_fd)
{
    int reported;
    if (status != STATUS_NOT_YET && status_fd >= 0
        && read(status_fd, &reported, sizeof reported) == sizeof reported)
        return reported;
    return status;
}


int
collect_status(int pidfd, int status_fd)
{
    return program_status(reap_status(pidfd, WNOHANG), status_fd);
}


int
await_status(int pidfd, int status_fd)
{
    return program_status(reap_status(pidfd, 0), status_fd);
}
