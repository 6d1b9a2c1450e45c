/* The parent's side of a spawn; see spawn.h.  No Python here: this runs
 * without the GIL. */
#include "spawn.h"

#include "clone3.h"
#include "compat.h"
#include "init_elf.h"
#include "initfile.h"
#include "sanitize.h"
#include "shared.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LEVEL_SIZE = SPAWN_STACK + SPAWN_GUARD };


/* Stacks that the last spawn left, for the next one; NULL while in use. */
static char *spare_stacks;


/* One stack for each level, unreachable pages below.  0 or -errno. */
static int
take_stacks(struct spawn *s)
{
    s->stack = __atomic_exchange_n(&spare_stacks, NULL, __ATOMIC_ACQUIRE);
    if (s->stack)
        return 0;
    void *memory =
        mmap(NULL, SPAWN_LEVELS * LEVEL_SIZE, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    s->stack = memory;
    for (int i = 0; i < SPAWN_LEVELS; i++)
        if (mprotect(s->stack + i * LEVEL_SIZE + SPAWN_GUARD, SPAWN_STACK,
                     PROT_READ | PROT_WRITE)
            < 0)
            return -errno;
    return 0;
}


/* Keep the stacks for the next spawn, unless another thread's are kept. */
static void
leave_stacks(char *stacks, bool usable)
{
    if (stacks)
        UNPOISON(stacks, SPAWN_LEVELS * LEVEL_SIZE);
    if (usable)
        stacks = __atomic_exchange_n(&spare_stacks, stacks, __ATOMIC_ACQ_REL);
    if (stacks)
        munmap(stacks, SPAWN_LEVELS * LEVEL_SIZE);
}


/* A pipe, both ends above 2.  0 or -errno with neither open. */
static int
open_pipe(int *reader, int *writer)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    *reader = raise_fd(ends[0]);
    *writer = raise_fd(ends[1]);
    return *reader < 0 ? *reader : *writer < 0 ? *writer : 0;
}


/* What children lock while they use our memory: a file of this spawn alone,
 * for which one end of a pipe will do. */
static int
open_memory(struct spawn *s)
{
    int reader = -1;
    int result = open_pipe(&reader, &s->memory_fd);
    if (reader >= 0)
        close(reader);
    return result;
}


/* What the caller's death will be seen by.  A pipe would not do: a fork() of
 * the caller would hold its other end. */
static int
open_life(struct spawn *s)
{
    long fd = syscall(SYS_pidfd_open, getpid(), 0);
    s->life_fd = raise_fd(fd < 0 ? -errno : (int)fd);
    return s->life_fd < 0 ? s->life_fd : 0;
}


/* A pair of sockets that keep messages apart, both above 2.  Each message says
 * who sent it: the sender's pid as seen from here. */
static int
open_sockets(int *receiver, int *sender)
{
    int ends[2], on = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    *receiver = raise_fd(ends[0]);
    *sender = raise_fd(ends[1]);
    if (*receiver < 0 || *sender < 0)
        return *receiver < 0 ? *receiver : *sender;
    if (setsockopt(*receiver, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
        return -errno;
    return 0;
}


/* Where the program's status will come from, and first of all its pid. */
static int
open_status(struct spawn *s)
{
    int result = open_sockets(&s->status_fd, &s->status_end);
    if (result == 0 && fcntl(s->status_fd, F_SETFL, O_NONBLOCK) < 0)
        result = -errno;
    return result;
}


/* Whether the end of the vfork is not enough to go on after: others use our
 * memory, or may trace who does; or somebody enters a TIME namespace, which
 * exec does a moment after it has ended the vfork. */
static bool
needs_memory(const struct spawn *s)
{
    return s->init || s->second || s->watch || s->hide || s->changes_ids
           || s->plan[PART_ENTER];
}


/* The descriptors between parent and children, as many as this shape needs. */
struct ends {
    int error; /* what the stage writes, to be read */
    int receiver; /* of the joiner's child */
};

/* 0 or -errno; spawn() closes what is open. */
static int
open_ends(struct spawn *s, struct ends *ends)
{
    bool waits = s->init || s->watch || s->hold;
    int result = 0;
    if (waits || s->program.time_fd >= 0) {
        s->init_fd = open_init();
        if (s->init_fd < 0) {
            spawn_failed(s, PART_INIT, 0, -s->init_fd);
            return s->init_fd;
        }
    }
    if (waits)
        result = open_status(s);
    if (result == 0 && waits && s->end_signal)
        result = open_life(s);
    if (result == 0 && s->program.time_fd >= 0)
        result = open_pipe(&ends->error, &s->error_end);
    if (result == 0 && needs_memory(s))
        result = open_memory(s);
    if (result == 0 && s->second && !s->watch)
        result = open_sockets(&ends->receiver, &s->send_end);
    return result;
}


static void
shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}


/* Wait for a child that is to be no more.  One that never became a program
 * has no exit signal: __WALL.  Whether it ended well. */
static bool
reap_pidfd(int pidfd)
{
    siginfo_t info = {.si_code = 0};
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0
           && errno == EINTR)
        ;
    return info.si_code == CLD_EXITED && info.si_status == 0;
}


/* The same by pid, for a child that nobody else can reap. */
static void
reap_pid(int pid)
{
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
}


/* What comes with a message of one byte. */
struct sender {
    int pid;
    int fd; /* that it sent along, or -1 */
};


/* Receive what is there, if there is something. */
static bool
receive(int receiver, struct sender *from)
{
    char byte;
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    if (recvmsg(receiver, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
        return false;
    *from = (struct sender){0, -1};
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_type == SCM_RIGHTS)
            from->fd = *(const int *)(const void *)CMSG_DATA(header);
        else if (header->cmsg_type == SCM_CREDENTIALS)
            from->pid =
                ((const struct ucred *)(const void *)CMSG_DATA(header))->pid;
    return true;
}


/* The pid that the program's message came from; 0 where it was killed before.
 * What is there then is init's, the status, and not for us. */
static int
receive_pid(int receiver)
{
    char byte;
    struct sender from;
    if (recv(receiver, &byte, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT) != 1)
        return 0;
    return receive(receiver, &from) ? from.pid : 0;
}


/* Learn who the joiner's child is, which says so before all else.  Where it
 * has not come to that, the pid that the kernel noted will do: that process is
 * ours and not waited for.  But a joiner in another PID namespace was told the
 * pid that is right there, which is a stranger's here. */
static void
meet_inner(struct spawn *s, int receiver)
{
    struct sender from = {s->late_flags ? 0 : s->inner_pid, -1};
    receive(receiver, &from);
    s->pid = from.pid;
    s->pidfd = from.fd;
    if (s->pid > 0 && s->pidfd < 0)
        s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
}


/* Our wait ends also when the first child is killed, whose own child may not
 * have come to its lock by then.  Where that was killed too, it never will. */
static void
await_locks(const struct spawn *s)
{
    enum { PATIENCE = 1000 }; /* ms */
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    for (int i = 0; i < PATIENCE && s->run.error == 0; i++) {
        if (__atomic_load_n(&s->locked, __ATOMIC_ACQUIRE) >= s->started)
            return;
        nanosleep(&pause, NULL);
    }
}


/* The joiner has ended; its child is ours.  Where it was killed, it may not
 * have waited until its child needs our memory no more: that one must end. */
static void
adopt_inner(struct spawn *s, int receiver)
{
    bool well = reap_pidfd(s->pidfd);
    shut(&s->pidfd);
    if (!well)
        await_locks(s);
    meet_inner(s, receiver);
    if (!well || s->pid == 0)
        spawn_failed(s, PART_INNER_CLONE, 0, ECANCELED);
    if (!well && s->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
    else if (!well && s->pid > 0)
        kill(s->pid, SIGKILL);
}


/* Whether the program runs something else than the stage by now, or ended. */
static bool
stage_is_over(const struct spawn *s)
{
    char path[32];
    struct stat stage, now;
    snprintf(path, sizeof path, "/proc/%d/exe", s->program_pid);
    return fstat(s->init_fd, &stage) < 0 || stat(path, &now) < 0
           || stage.st_ino != now.st_ino || stage.st_dev != now.st_dev;
}


/* Wait for the end of the stage: what it writes, or the end of file.  The
 * latter may never come, if another thread has forked while our end was open:
 * then a look at the program itself will do. */
static void
hear_stage(struct spawn *s, int error_fd)
{
    enum { PATIENCE = 20 }; /* ms */
    struct pollfd polled = {error_fd, POLLIN, 0};
    int record[2];
    while (poll(&polled, 1, PATIENCE) <= 0)
        if (stage_is_over(s)) {
            if (poll(&polled, 1, 0) <= 0)
                return;
            break;
        }
    if (read(error_fd, record, sizeof record) == sizeof record)
        spawn_failed(s,
                     record[0] == STAGE_JOIN_TIME ? PART_JOIN_TIME : PART_EXEC,
                     0, record[1]);
}


/* Clone the first process: by clone3(2) where that works. */
static long
start_first(struct spawn *s, int (*body)(void *), unsigned long flags)
{
    static atomic_bool missing;
    s->signals_clear = !s->old_calls && !atomic_load(&missing);
    if (s->signals_clear) {
        s->level = 1;
        long pid = clone_clear_signals(body, s, flags, s->stack + SPAWN_GUARD,
                                       SPAWN_STACK, &s->pidfd);
        if (pid > 0)
            return pid;
        atomic_store(&missing, pid == -ENOSYS);
        /* Other errors may be clone3's own; clone's is what counts. */
        s->signals_clear = false;
        s->level = 0;
    }
    return start_child(s, body, flags, &s->pidfd);
}


/* Whether SIGCHLD is ignored and a kernel before 6.15 would thus lose the
 * status of our child; with a waiter in between it comes another way. */
static bool
status_would_be_lost(const struct spawn *s)
{
    struct sigaction action;
    struct utsname name;
    int major = 0, minor = 0;
    if (sigaction(SIGCHLD, NULL, &action) < 0
        || (action.sa_handler != SIG_IGN && !(action.sa_flags & SA_NOCLDWAIT)))
        return false;
    if (s->old_calls || uname(&name) < 0
        || sscanf(name.release, "%d.%d", &major, &minor) != 2)
        return true;
    return major < 6 || (major == 6 && minor < 15);
}


/* Wait until no child uses our memory: the kernel ends a vfork a moment before
 * the child has let go of it, and who may trace the child can make that moment
 * last.  Locks of this kind are the process's own: a fork() of ours meanwhile,
 * which has the descriptor too, does not hold them. */
static void
await_apart(const struct spawn *s)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (s->memory_fd >= 0)
        while (fcntl(s->memory_fd, F_SETLKW, &all) < 0 && errno == EINTR)
            ;
}


/* What the children need of our dumpable flag. */
static int
dumpable_needs(const struct spawn *s)
{
    int needs = s->plan[PART_MAPS] || s->ready_fd >= 0 ? SHOW : 0;
    if (s->hide)
        needs = HIDE;
    return s->changes_ids ? needs | CHANGE_IDS : needs;
}


/* The clone, with all signals blocked: no handler may run in the child. */
static void
launch(struct spawn *s, int receiver)
{
    unsigned long all = ~0ul;
    long pid;
    sc(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&s->signals,
       sizeof all, 0, 0);
    dumpable_hold(dumpable_needs(s));
    if (s->watch)
        pid = start_first(s, waiter_body, CLONE_PIDFD);
    else
        pid = start_first(s, first_body, s->flags | CLONE_PIDFD);
    if (pid < 0)
        spawn_failed(s, PART_CLONE, 0, -pid);
    else
        s->pid = (int)pid;
    if (s->pid > 0 && s->second && !s->watch)
        adopt_inner(s, receiver);
    await_locks(s);
    await_apart(s);
    dumpable_release(dumpable_needs(s));
    sc(SYS_rt_sigprocmask, SIG_SETMASK, (long)&s->signals, 0, sizeof all, 0,
       0);
}


/* After the launch: what came of it. */
static void
settle(struct spawn *s, struct ends *ends)
{
    s->program_pid = s->status_fd >= 0 ? receive_pid(s->status_fd) : s->pid;
    /* Who is killed before has its namespaces for a moment yet. */
    if (s->hold && !__atomic_load_n(&s->is_set_up, __ATOMIC_ACQUIRE))
        spawn_failed(s, PART_INNER_CLONE, 0, ECANCELED);
    shut(&s->error_end);
    if (ends->error >= 0 && s->run.error == 0)
        hear_stage(s, ends->error);
    if (s->run.error && s->pid > 0 && s->pidfd >= 0)
        reap_pidfd(s->pidfd);
    else if (s->run.error && s->pid > 0)
        reap_pid(s->pid);
    else
        s->pidfd = raise_fd(s->pidfd);
}


/* One try, as spawn(). */
static int
try_spawn(struct spawn *s)
{
    struct ends ends = {-1, -1};
    s->pidfd = s->status_fd = s->status_end = s->life_fd = s->init_fd = -1;
    s->error_end = s->send_end = s->memory_fd = -1;
    s->pid = s->program_pid = s->inner_pid = s->level = 0;
    s->started = s->locked = s->is_set_up = 0;
    s->stack = NULL;
    if (!s->init && !s->hold && !s->watch)
        s->watch = status_would_be_lost(s);
    int error = take_stacks(s);
    bool usable = error == 0;
    if (usable)
        error = open_ends(s, &ends);
    if (error)
        spawn_failed(s, PART_PREPARE, 0, -error);
    else {
        launch(s, ends.receiver);
        settle(s, &ends);
    }
    leave_stacks(s->stack, usable);
    int *closed[] = {&ends.error,  &ends.receiver, &s->status_end,
                     &s->life_fd,  &s->init_fd,    &s->error_end,
                     &s->send_end, &s->memory_fd};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        shut(closed[i]);
    if (s->run.error) {
        shut(&s->pidfd);
        shut(&s->status_fd);
        return -1;
    }
    return 0;
}


int
spawn(struct spawn *s)
{
    int result = try_spawn(s);
    if (result == 0 || s->run.plan != PART_CLONE || s->run.error != EINVAL
        || s->second || !(s->flags & CLONE_NEWPID))
        return result;
    /* As it is where the children of this thread go into a PID namespace that
     * it is not in itself: only a process inside can make one within. */
    s->run.error = 0;
    s->late_flags = s->flags;
    s->flags = 0;
    s->second = true;
    return try_spawn(s);
}
