/* From fork() to the function's process; see forked.h. */
#include "forked.h"

#include "closefds.h"
#include "compat.h"
#include "credsteps.h"
#include "message.h"
#include "procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_FAILED = 127 };

static const char NEW_TIME[] = "/proc/self/ns/time_for_children";


/* End this process. */
static _Noreturn void
leave(int status)
{
    for (;;)
        sc(SYS_exit_group, status, 0, 0, 0, 0, 0);
}


/* Report what failed and end this process.  C0 learns of a failure of C1
 * through the memory that they share. */
static _Noreturn void
fail(struct forked *f, int plan, int step, long error)
{
    struct {
        struct message_header header;
        struct failure failure;
    } message = {{MESSAGE_FAILED, 0, sizeof(struct failure)},
                 {plan, step, (int32_t)error}};
    sc(SYS_write, f->end[REPORT], (long)&message,
       sizeof(struct message_header) + sizeof(struct failure), 0, 0, 0);
    f->failed = 1;
    leave(EXIT_FAILED);
}


/* Go on only if the system call of that own step succeeded. */
static void
check(struct forked *f, int step, long result)
{
    if (result < 0)
        fail(f, OWN_STEPS, step, -result);
}


/* Go on only if that plan succeeds. */
static void
run_plan(struct forked *f, int which)
{
    if (f->plan[which] && run_steps(f->plan[which], &f->run))
        fail(f, which, f->run.step, f->run.error);
}


/* Whether that process has ended; without a pidfd nobody can tell. */
static bool
has_ended(int pidfd)
{
    const struct timespec at_once = {0, 0};
    struct pollfd polled = {pidfd, POLLIN, 0};
    return sc(SYS_ppoll, (long)&polled, 1, (long)&at_once, 0, 0, 0) > 0;
}


/* Ask for a signal when the parent ends, and end now if that was missed.  The
 * kernel says 0 for a parent in an outer PID namespace, dead or alive. */
static void
follow_parent(const struct forked *f, int number)
{
    if (number == 0)
        return;
    sc(SYS_prctl, PR_SET_PDEATHSIG, number, 0, 0, 0, 0);
    long parent = sc(SYS_getppid, 0, 0, 0, 0, 0, 0);
    if (parent ? parent != f->parent : has_ended(f->parent_fd))
        leave(EXIT_FAILED);
}


/* From now on this process is the parent that is followed. */
static void
be_parent(struct forked *f)
{
    f->parent = (pid_t)sc(SYS_getpid, 0, 0, 0, 0, 0, 0);
    f->parent_fd = (int)sc(SYS_pidfd_open, f->parent, 0, 0, 0, 0, 0);
    check(f, STEP_FOLLOW, f->parent_fd);
}


/* Let the parent write the id maps, which it may where we may not. */
static void
wait_for_maps(struct forked *f)
{
    struct message_header message = {MESSAGE_READY, 0, 0};
    char byte;
    long n, flag = be_dumpable(&f->run);
    /* Who was not told would never answer. */
    check(f, STEP_READY,
          sc(SYS_write, f->end[REPORT], (long)&message, sizeof message, 0, 0,
             0));
    do
        n = sc(SYS_read, f->end[GO], (long)&byte, 1, 0, 0, 0);
    while (n == -EINTR);
    be_as_before(flag);
    if (n != 1)                 /* it could not, and knows why */
        leave(EXIT_FAILED);
}


/* The decimal digits of a number, before end.  Returns the start. */
static char *
digits(long number, char *end)
{
    *--end = '\0';
    do
        *--end = (char)('0' + number % 10);
    while (number /= 10);
    return end;
}


/* Become nsutil's init: as PID 1 or as the waiter outside it reaps, passes
 * signals on to child, and ends as child does.  status (or -1) takes the raw
 * wait status, life (or -1) tells when child shall get that signal. */
static _Noreturn void
become_init(struct forked *f, pid_t child, int status, int life, int signal)
{
    static char *const no_environment[] = {NULL};
    const int program = f->program, report = f->end[REPORT];
    const int keep[] = {program < report ? program : report,
                        program < report ? report : program};
    char pid[16], number[16];
    char *const argv[] = {"nsutil-init", "w", digits(child, pid + sizeof pid),
                          digits(life < 0 ? 0 : signal,
                                 number + sizeof number),
                          NULL};
    for (int fd = 0; fd <= 2; fd++)
        sc(SYS_close, fd, 0, 0, 0, 0, 0);
    if (status >= 0)
        check(f, STEP_INIT, sc(SYS_dup3, status, 0, 0, 0, 0, 0));
    if (life >= 0)
        check(f, STEP_INIT, sc(SYS_dup3, life, 1, 0, 0, 0, 0));
    close_others(3, keep, 2, false);
    shed_rights();
    check(f, STEP_INIT,
          sc(SYS_execveat, f->program, (long)"", (long)argv,
             (long)no_environment, AT_EMPTY_PATH, 0));
    leave(EXIT_FAILED);
}


/* Wait as a waiter does, on a machine that has no nsutil-init: the signals for
 * this process stay blocked, and our memory stays in use. */
static _Noreturn void
wait_in_place(struct forked *f, pid_t child)
{
    int status = 0;
    long result;
    sc(SYS_close, f->end[REPORT], 0, 0, 0, 0, 0);
    do
        result = sc(SYS_wait4, child, (long)&status, 0, 0, 0, 0);
    while (result == -EINTR);
    if (result == child)
        sc(SYS_write, f->end[STATUS], (long)&status, sizeof status, 0, 0, 0);
    leave(EXIT_FAILED);
}


/* PID 1: shares the memory of C0, which waits, until it becomes init.  The
 * function's process gets a copy and returns. */
static void
run_pid_one(struct forked *f)
{
    follow_parent(f, SIGKILL);
    run_plan(f, SETUP);
    pid_t child = fork();
    if (child == 0)
        return;
    if (child < 0)
        fail(f, OWN_STEPS, STEP_FORK, errno);
    become_init(f, child, f->end[STATUS], f->end[LIFE], SIGKILL);
}


/* Keep the child's ends of the pipes alone, out of the way of 0, 1 and 2,
 * which may have been closed when they were made. */
static void
take_ends(struct forked *f)
{
    for (int i = 0; i < CHANNELS; i++) {
        if (f->parent_end[i] >= 0)
            sc(SYS_close, f->parent_end[i], 0, 0, 0, 0, 0);
        if (f->end[i] >= 0 && f->end[i] <= 2)
            f->end[i] = (int)sc(SYS_fcntl, f->end[i], F_DUPFD_CLOEXEC, 3, 0, 0,
                                0);
    }
}


/* Only the pipe for messages is of use to Python. */
static void
close_used_ends(struct forked *f)
{
    if (f->program >= 0)
        sc(SYS_close, f->program, 0, 0, 0, 0, 0);
    for (int i = GO; i < CHANNELS; i++)
        if (f->end[i] >= 0)
            sc(SYS_close, f->end[i], 0, 0, 0, 0, 0);
}


/* The end of this process's ties to those that made it. */
static void
close_pidfds(const struct forked *f)
{
    if (f->parent_fd >= 0 && f->parent_fd != f->caller_fd)
        sc(SYS_close, f->parent_fd, 0, 0, 0, 0, 0);
    if (f->caller_fd >= 0)
        sc(SYS_close, f->caller_fd, 0, 0, 0, 0, 0);
}


/* Send the next process into the PID namespace.  vfork() spares a copy of
 * our memory for a PID 1 that only becomes another program; its child returns
 * on its own copy of our stack. */
static void
go_further(struct forked *f)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    struct sigaction own;
    /* Init also watches the caller.  This is for the time before, and does not
     * do for a waiter without PID 1: that must outlive the caller, to end the
     * tree that it adopts. */
    if (f->program < 0 || (f->init && f->parent_signal == SIGKILL))
        follow_parent(f, f->parent_signal);
    be_parent(f);
    /* Now: the child may leave orphans before we are nsutil-init. */
    if (!f->init)
        sc(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0);
    /* While it is ignored init would lose the status of a child that ends. */
    sigaction(SIGCHLD, &by_default, &own);
    pid_t child = f->init ? vfork() : fork();
    if (child == 0) {
        if (f->init)
            run_pid_one(f);
        else
            run_plan(f, SETUP);
        sigaction(SIGCHLD, &own, NULL);
        return;
    }
    if (child < 0)
        fail(f, OWN_STEPS, STEP_FORK, errno);
    if (f->failed) {
        sc(SYS_wait4, child, 0, 0, 0, 0, 0);
        leave(EXIT_FAILED);
    }
    if (f->program < 0)
        wait_in_place(f, child);
    become_init(f, child, f->init ? -1 : f->end[STATUS], f->caller_fd,
                f->parent_signal);
}


/* The only process: set-up, and a new TIME namespace, which fork and exec
 * would enter, by setns(2).  /proc may be another one after the set-up. */
static void
stay(struct forked *f)
{
    long time = -1;
    if (f->new_time) {
        time = open_proc_ns(NEW_TIME);
        check(f, STEP_TIME, time);
    }
    run_plan(f, SETUP);
    if (f->new_time) {
        check(f, STEP_TIME, sc(SYS_setns, time, CLONE_NEWTIME, 0, 0, 0, 0));
        sc(SYS_close, time, 0, 0, 0, 0, 0);
    }
}


/* As a system call. */
static long
join_time(const struct forked *f)
{
    return sc(SYS_setns, f->join_time, CLONE_NEWTIME, 0, 0, 0, 0);
}


/* Join what the plan says, and TIME, which only a process with one thread
 * and memory of its own may: with the rights held now, or else with those of
 * the namespaces joined. */
static void
enter(struct forked *f)
{
    long moved = f->join_time < 0 ? 0 : join_time(f);
    if (f->clone_flags)
        check(f, STEP_UNSHARE, sc(SYS_unshare, f->clone_flags, 0, 0, 0, 0, 0));
    run_plan(f, ENTER);
    if (moved < 0)
        check(f, STEP_JOIN_TIME, join_time(f));
}


void
forked_run(struct forked *f)
{
    take_ends(f);
    f->run.hidden = f->hides;
    if (f->hides)
        sc(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
    enter(f);
    if (f->end[GO] >= 0)
        wait_for_maps(f);
    run_plan(f, SELF_MAPS);
    if (f->second)
        go_further(f);
    else
        stay(f);
    close_used_ends(f);
    run_plan(f, CREDENTIALS);
    /* Last, since a change of ids clears it.  With PID 1 all others end. */
    if (!f->init)
        follow_parent(f, f->second ? SIGKILL : f->parent_signal);
    close_pidfds(f);
}
