/* What the children of a spawn do until they become programs; see spawn.h.
 *
 * Everything here runs in the caller's memory while the caller's thread
 * stands still and its other threads do not: raw system calls only, no
 * malloc, no locks, no Python.  All signals are blocked until the program's
 * mask is set, as its last act but exec; no handler of ours may run here.
 *
 * The exit signal of every clone is 0, which exec makes SIGCHLD: a child that
 * never became a program makes no SIGCHLD and cannot be reaped by others.
 */
#include "spawn.h"

#include "closefds.h"
#include "compat.h"
#include "credsteps.h"
#include "init_elf.h"
#include "sanitize.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { FAILED = 127, LAST_SIGNAL = 64 };

typedef unsigned long mask_t;
typedef void (*handler_t)(int);

/* The kernel's struct sigaction; a mask of zeros needs no exact place. */
struct action {
    handler_t handler;
    unsigned long zeros[4];
};


void
spawn_failed(struct spawn *s, enum spawn_part part, int step, long error)
{
    if (s->run.error)
        return;
    s->run.plan = (int)part;
    s->run.step = step;
    s->run.error = (int)error;
}


/* A number as text of at most NUMBER_SIZE bytes. */
static void
write_number(char *text, int value)
{
    int length = 1;
    for (int rest = value; rest > 9; rest /= 10)
        length++;
    text[length] = 0;
    for (; length > 0; value /= 10)
        text[--length] = (char)('0' + value % 10);
}


/* Run one of the plans, noted before: it may be killed.  If it succeeded. */
static bool
do_part(struct spawn *s, enum spawn_part part)
{
    if (s->plan[part] == NULL)
        return true;
    if (s->run.error == 0)
        s->run.plan = (int)part;
    if (run_steps(s->plan[part], &s->run) == 0)
        return true;
    s->run.plan = (int)part;
    return false;
}


long
start_child(struct spawn *s, int (*body)(void *), unsigned long flags,
            int *noted)
{
    char *top = s->stack + ++s->level * (SPAWN_STACK + SPAWN_GUARD);
    s->started += s->level > 1;
    unsigned long all = flags | CLONE_VM | CLONE_VFORK;
    int pid = clone(body, top, (int)all, s, noted, NULL, NULL);
    return pid < 0 ? -errno : pid;
}


/* Set a disposition, with no flags and an empty mask. */
static void
set_action(int signal, handler_t handler)
{
    struct action action = {handler, {0}};
    sc(SYS_rt_sigaction, signal, (long)&action, 0, sizeof(mask_t), 0, 0);
}


/* The handler of a signal. */
static handler_t
handler_of(int signal)
{
    struct action action = {SIG_DFL, {0}};
    sc(SYS_rt_sigaction, signal, 0, (long)&action, sizeof(mask_t), 0, 0);
    return action.handler;
}


/* Caught signals get their default, as exec would do: the mask is set before
 * exec, and a handler must not run in memory that is not the child's own.
 * Where a child of this one will be waited for, SIGCHLD must not be ignored,
 * or its status were lost. */
static void
reset_signals(struct spawn *s)
{
    int last = s->signals_clear ? 0 : LAST_SIGNAL;
    for (int signal = 1; signal <= last; signal++) {
        handler_t handler = handler_of(signal);
        if (handler != SIG_DFL && handler != SIG_IGN)
            set_action(signal, SIG_DFL);
    }
    if (s->init || s->watch) {
        s->child_ignored = handler_of(SIGCHLD) == SIG_IGN;
        set_action(SIGCHLD, SIG_DFL);
    }
}


/* Note that this process uses the caller's memory, until exec or exit lets go
 * of the lock, after the memory.  Whether it could be noted. */
static bool
lock_memory(struct spawn *s)
{
    struct flock own = {.l_type = F_WRLCK,
                        .l_whence = SEEK_SET,
                        .l_start = s->level,
                        .l_len = 1};
    if (s->memory_fd < 0)
        return true;
    long result = sc(SYS_fcntl, s->memory_fd, F_SETLK, (long)&own, 0, 0, 0);
    if (result < 0)
        spawn_failed(s, PART_PREPARE, 0, -result);
    else if (s->level > 1)
        __atomic_add_fetch(&s->locked, 1, __ATOMIC_RELEASE);
    return result >= 0;
}


/* Wait until init, which was cloned before this process, has let go of it.
 * Whether it went well there. */
static bool
await_init(const struct spawn *s)
{
    struct flock other = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = s->level - 1,
                          .l_len = 1};
    sc(SYS_fcntl, s->memory_fd, F_SETLKW, (long)&other, 0, 0, 0);
    return s->run.error == 0;
}


/* The program. */

/* Put each redirection in its place.  A source that lies where another one
 * goes is moved out of the way first.  0 or -errno. */
static long
redirect(const struct program *program)
{
    long from[3], result = 0;
    for (int i = 0; i < 3; i++) {
        from[i] = program->redirect[i];
        if (from[i] >= 0 && from[i] < 3 && from[i] != i)
            from[i] = sc(SYS_fcntl, from[i], F_DUPFD_CLOEXEC, 3, 0, 0, 0);
        if (from[i] < -1)
            return from[i];
    }
    for (int i = 0; i < 3 && result >= 0; i++)
        if (from[i] == i)
            result = sc(SYS_fcntl, i, F_SETFD, 0, 0, 0, 0);
        else if (from[i] >= 0)
            result = sc(SYS_dup3, from[i], i, 0, 0, 0, 0);
    return result < 0 ? result : 0;
}


/* Have one more descriptor stay open. */
static void
keep_open(struct program *program, int fd)
{
    int at = program->keep_count++;
    for (; at > 0 && program->keep[at - 1] > fd; at--)
        program->keep[at] = program->keep[at - 1];
    program->keep[at] = fd;
}


/* The descriptors of the stage, under numbers that nothing else uses. */
static bool
keep_stage(struct spawn *s)
{
    struct program *program = &s->program;
    long time_fd = sc(SYS_fcntl, program->time_fd, F_DUPFD, 3, 0, 0, 0);
    long error_fd = sc(SYS_fcntl, s->error_end, F_DUPFD, 3, 0, 0, 0);
    if (time_fd < 0 || error_fd < 0) {
        spawn_failed(s, PART_JOIN_TIME, 0, time_fd < 0 ? -time_fd : -error_fd);
        return false;
    }
    keep_open(program, (int)time_fd);
    keep_open(program, (int)error_fd);
    write_number(s->number[0], (int)time_fd);
    write_number(s->number[1], (int)error_fd);
    return true;
}


/* All descriptors of the program, the last thing before exec: nothing that a
 * step opened or used may be hit.  Whether it succeeded. */
static bool
arrange_files(struct spawn *s)
{
    struct program *program = &s->program;
    if (program->time_fd >= 0 && !keep_stage(s))
        return false;
    long result = redirect(program);
    if (result < 0) {
        spawn_failed(s, PART_FILES, -1, -result);
        return false;
    }
    for (int i = 0; i < program->keep_count; i++) {
        result = sc(SYS_fcntl, program->keep[i], F_SETFD, 0, 0, 0, 0);
        if (result < 0) {
            spawn_failed(s, PART_FILES, program->keep[i], -result);
            return false;
        }
    }
    if (program->time_fd >= 0)
        keep_open(program, s->init_fd);     /* up to exec, as the next one */
    if (s->memory_fd >= 0)
        keep_open(program, s->memory_fd);
    if (program->close_others)
        close_others(3, program->keep, program->keep_count, s->old_calls);
    return true;
}


/* The dispositions and the mask that the program starts with. */
static void
set_program_signals(const struct spawn *s)
{
    if (s->child_ignored)
        set_action(SIGCHLD, SIG_IGN);
    if (s->program.default_pipe_signals) {
        set_action(SIGPIPE, SIG_DFL);
        set_action(SIGXFSZ, SIG_DFL);
    }
    sc(SYS_rt_sigprocmask, SIG_SETMASK, (long)&s->signals, 0,
       sizeof s->signals, 0, 0);
}


/* Become the first candidate that can be run.  As execvp(3), a path that is
 * not there matters least.  Returns on failure only. */
static void
run_program(struct spawn *s)
{
    const struct program *program = &s->program;
    long error = -ENOENT, first = 0;
    for (char *const *path = program->candidates; *path; path++) {
        error = sc(SYS_execve, (long)*path, (long)program->argv,
                   (long)program->envp, 0, 0, 0);
        if (error != -ENOENT && error != -ENOTDIR && first == 0)
            first = error;
    }
    spawn_failed(s, PART_EXEC, 0, first ? -first : -error);
}


/* Become nsutil-init's stage, which becomes the program.  Returns on failure
 * only. */
static void
run_stage(struct spawn *s, int carried)
{
    const struct program *program = &s->program;
    write_number(s->number[2], carried);
    long error = sc(SYS_execveat, s->init_fd, (long)"",
                    (long)program->stage_argv, (long)program->envp,
                    AT_EMPTY_PATH, 0);
    spawn_failed(s, PART_INIT, 0, -error);
}


/* From the namespaces to the program.  Returns on failure only. */
static int
be_program(struct spawn *s)
{
    bool stage = s->program.time_fd >= 0;
    if (s->status_end >= 0)     /* the sender is what matters */
        sc(SYS_write, s->status_end, (long)"", 1, 0, 0, 0);
    if (stage)
        keep_admin();
    if (!do_part(s, PART_CREDENTIALS) || !do_part(s, PART_IDENTITY))
        return FAILED;
    if (s->watch)
        sc(SYS_prctl, PR_SET_PDEATHSIG, s->end_signal, 0, 0, 0, 0);
    int carried = stage ? carry_admin() : 0;
    if (!arrange_files(s) || (s->init && !await_init(s)))
        return FAILED;
    set_program_signals(s);
    if (stage)
        run_stage(s, carried);
    else
        run_program(s);
    return FAILED;
}


/* The program beside init, which goes on when the lock is taken. */
static int
program_body(void *spawn)
{
    struct spawn *s = spawn;
    bool locked = lock_memory(s);
    __atomic_store_n(&s->program_locked, 1, __ATOMIC_RELEASE);
    sc(SYS_futex, (long)&s->program_locked, FUTEX_WAKE, 1, 0, 0, 0);
    return locked ? be_program(s) : FAILED;
}


/* Wait for a child's end; there may be none.  Whether it ended well. */
static bool
reap(long pid)
{
    int status = 0;
    if (pid > 0)
        sc(SYS_wait4, pid, (long)&status, __WALL, 0, 0, 0);
    return status == 0;
}


/* Kill a child and wait for its end; there may be none. */
static void
end(long pid)
{
    if (pid > 0)
        sc(SYS_kill, pid, SIGKILL, 0, 0, 0, 0);
    reap(pid);
}


/* The three descriptors of nsutil-init.  Negative: one is not its own. */
static long
take_init_files(const struct spawn *s)
{
    long result = sc(SYS_dup3, s->status_end, 0, 0, 0, 0, 0);
    if (result >= 0 && s->life_fd >= 0)
        result = sc(SYS_dup3, s->life_fd, 1, 0, 0, 0, 0);
    else
        sc(SYS_close, 1, 0, 0, 0, 0, 0);
    if (result >= 0)
        result = sc(SYS_dup3, s->init_fd, 2, O_CLOEXEC, 0, 0, 0);
    return result;
}


/* Become nsutil-init, waiting for that child (0: for the end of the caller),
 * with three descriptors and nothing else.  Returns on failure only, with the
 * child ended: it would have nobody to wait for it. */
static int
be_waiter(struct spawn *s, long pid)
{
    char child[NUMBER_SIZE], signal[NUMBER_SIZE];
    char *argv[] = {"nsutil-init", "w", child, signal, NULL};
    int keep[1] = {s->memory_fd};
    write_number(child, (int)pid);
    write_number(signal, s->end_signal);
    long error = take_init_files(s);
    if (error >= 0) {
        close_others(3, keep, s->memory_fd >= 0, s->old_calls);
        shed_rights();
        error = sc(SYS_execveat, 2, (long)"", (long)argv, (long)(argv + 4),
                   AT_EMPTY_PATH, 0);
    }
    spawn_failed(s, PART_INIT, 0, -error);
    end(pid);
    return FAILED;
}


/* What stands for the program outside leads a session or group as it does. */
static void
lead(const struct spawn *s)
{
    if (s->new_session)
        sc(SYS_setsid, 0, 0, 0, 0, 0, 0);
    else if (s->new_group)
        sc(SYS_setpgid, 0, 0, 0, 0, 0, 0);
}


/* Start a child and become the waiter of the program that it is by then, or
 * of the one that it has made for this process and ended. */
static int
start_and_wait(struct spawn *s, int (*body)(void *), unsigned long flags,
               enum spawn_part part)
{
    lead(s);
    long pid = start_child(s, body, flags, NULL);
    if (pid < 0)
        spawn_failed(s, part, 0, -pid);
    else if (s->second && !reap(pid)) /* unless it says why, it was killed */
        spawn_failed(s, PART_INNER_CLONE, 0, ECANCELED);
    if (s->second)
        pid = s->inner_pid;
    if (s->run.error) {
        end(pid);
        return FAILED;
    }
    return be_waiter(s, pid);
}


/* Wait until the process beside this one has locked the memory, or ended. */
static void
await_program(struct spawn *s, long pid)
{
    const struct timespec pause = {0, 10 * 1000 * 1000};
    siginfo_t ended = {.si_pid = 0};
    while (!__atomic_load_n(&s->program_locked, __ATOMIC_ACQUIRE)
           && ended.si_pid == 0) {
        sc(SYS_futex, (long)&s->program_locked, FUTEX_WAIT, 0, (long)&pause, 0,
           0);
        sc(SYS_waitid, P_PID, pid, (long)&ended,
           WEXITED | WNOHANG | WNOWAIT | __WALL, 0, 0);
    }
}


/* PID 1: start the program beside this process and become nsutil-init. */
static int
be_init(struct spawn *s)
{
    lead(s);
    char *top = s->stack + ++s->level * (SPAWN_STACK + SPAWN_GUARD);
    s->started++;
    int pid = clone(program_body, top, CLONE_VM, s, NULL, NULL, NULL);
    if (pid < 0) {
        spawn_failed(s, PART_INNER_CLONE, 0, errno);
        return FAILED;
    }
    await_program(s, pid);
    return be_waiter(s, pid);
}


/* Say to the caller which process this is, the joiner's child: the kernel adds
 * the pid that the caller knows it by, and this a pidfd, if there can be one.
 * Until this is a program nobody else can reap it. */
static void
introduce(const struct spawn *s)
{
    long pid = sc(SYS_getpid, 0, 0, 0, 0, 0, 0);
    long pidfd = sc(SYS_pidfd_open, pid, 0, 0, 0, 0, 0);
    char byte = 0;
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (pidfd >= 0) {
        *(int *)CMSG_DATA(&control.header) = (int)pidfd;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    sc(SYS_sendmsg, s->send_end, (long)&message, 0, 0, 0, 0);
    if (pidfd >= 0)
        sc(SYS_close, pidfd, 0, 0, 0, 0, 0);
}


/* PID 1 or the program. */
static int
inner_body(void *spawn)
{
    struct spawn *s = spawn;
    if (s->send_end >= 0)
        introduce(s);
    if (!lock_memory(s) || !do_part(s, PART_SETUP))
        return FAILED;
    if (s->hold) {
        __atomic_store_n(&s->is_set_up, 1, __ATOMIC_RELEASE);
        lead(s);
        return be_waiter(s, 0);
    }
    return s->init ? be_init(s) : be_program(s);
}


/* The first process. */

/* Make this process the owner of a pipe: whoever holds the other end can ask
 * for its pid, and gets the one of its own PID namespace. */
static void
sign(int fd)
{
    long pid = sc(SYS_getpid, 0, 0, 0, 0, 0, 0);
    sc(SYS_fcntl, fd, F_SETOWN, pid, 0, 0, 0);
}


/* Let the other side, nsutil/_mapper.py, write the maps.  Should that process
 * die, nobody else may hold its end of the pipe. */
static bool
await_maps(struct spawn *s)
{
    char answer = 0;
    sc(SYS_close, s->answer_peer, 0, 0, 0, 0, 0);
    sign(s->ready_fd);
    long flag = be_dumpable(&s->run);
    long n = sc(SYS_write, s->ready_fd, (long)"r", 1, 0, 0, 0);
    if (n == 1)
        n = sc(SYS_read, s->answer_fd, (long)&answer, 1, 0, 0, 0);
    be_as_before(flag);
    if (n == 1 && answer == 'm')
        return true;
    spawn_failed(s, PART_AWAIT_MAPS, 0, n < 0 ? -n : ECANCELED);
    return false;
}


/* Make what the clone could not.  Whether it succeeded. */
static bool
unshare_late(struct spawn *s)
{
    long result = s->late_flags
                      ? sc(SYS_unshare, (long)s->late_flags, 0, 0, 0, 0, 0)
                      : 0;
    if (result < 0)
        spawn_failed(s, PART_CLONE, 0, -result);
    return result >= 0;
}


/* Start the process that is inside, as a child of whoever made this one.  The
 * kernel notes its pid, for this process may be killed meanwhile. */
static int
start_inner(struct spawn *s)
{
    long pid = start_child(s, inner_body, CLONE_PARENT | CLONE_PARENT_SETTID,
                           &s->inner_pid);
    if (pid < 0)
        spawn_failed(s, PART_INNER_CLONE, 0, -pid);
    return s->run.error ? FAILED : 0;
}


/* Into the namespaces, and on to what is inside. */
int
first_body(void *spawn)
{
    struct spawn *s = spawn;
    if (!s->watch)
        reset_signals(s);
    if (!lock_memory(s) || !unshare_late(s) || !do_part(s, PART_ENTER)
        || !do_part(s, PART_MAPS))
        return FAILED;
    if (s->ready_fd >= 0 && !await_maps(s))
        return FAILED;
    return s->second ? start_inner(s) : inner_body(s);
}


/* Outside of all namespaces, the parent of what is inside. */
int
waiter_body(void *spawn)
{
    struct spawn *s = spawn;
    reset_signals(s);
    /* Now: the program may leave orphans before this is nsutil-init. */
    sc(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0);
    return start_and_wait(s, first_body, s->flags, PART_CLONE);
}
