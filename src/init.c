/* nsutil-init: a program without libc that nsutil carries inside itself and
 * runs from a sealed memfd.  It has two jobs, named by its first argument.
 *
 * "w" PID SIGNAL: wait for the child PID, as PID 1 of a PID namespace or as
 *     the parent of a process tree outside of one.  It reaps every orphan,
 *     hands every signal on to PID, writes the raw wait status of PID to
 *     descriptor 0 and ends as PID did.  When descriptor 1 reports anything
 *     (a pidfd of the process that wants the tree to end with itself, or a
 *     pipe to it), PID gets SIGNAL; SIGKILL ends the whole tree.  SIGNAL 0:
 *     descriptor 1 is not looked at.  PID 0: there is no such child, and the
 *     job lasts until descriptor 1 ends it.
 *
 * "s" TIME_FD ERROR_FD CARRIED COUNT CANDIDATE... ARGUMENT...: join the TIME
 *     namespace TIME_FD, which only a process with an address space of its
 *     own can, and become the first of COUNT candidates that can be run.  A
 *     failure goes to ERROR_FD as two ints, the stage and the errno; nothing
 *     comes when all is well.  CARRIED: CAP_SYS_ADMIN was made ambient (1)
 *     and inheritable (2) for the sake of this stage, take it back.
 *
 * Whoever becomes this program by execveat() and has a child already must
 * have SIGCHLD at its default by then: an ignored one loses the status.
 */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/wait.h>

#include "init_elf.h"
#include "rawcall.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

enum { STATUS_FD = 0, LIFE_FD = 1 };

typedef unsigned long mask_t;

struct duration {
    long seconds, nanoseconds;
};

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl start\n");
#endif


/* A system call; none here takes six arguments. */
static long
sc(long number, long a, long b, long c, long d, long e)
{
    return raw_syscall(number, a, b, c, d, e, 0);
}


/* End this process. */
__attribute__((noreturn)) static void
leave(int code)
{
    for (;;)
        sc(__NR_exit_group, code, 0, 0, 0, 0);
}


/* The decimal number that a text begins with; 0 if it begins with none, and
 * any number if it is too long for one. */
static int
number(const char *text)
{
    unsigned value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (unsigned)(*text++ - '0');
    return (int)value;
}


/* The wait job. */

/* The default action for a signal, whatever was inherited. */
static void
set_default(int signal)
{
    struct {
        long handler, flags, restorer;
        mask_t mask;
    } action = {0, 0, 0, 0};
    sc(__NR_rt_sigaction, signal, (long)&action, 0, sizeof action.mask, 0);
}


/* End as a child that was killed by that signal ended, so that whoever waits
 * for this process sees what happened.  PID 1 cannot: it says 128 + signal. */
static void
die_by(int signal)
{
    struct rlimit64 none = {0, 0};
    mask_t only = 1ul << (signal - 1);
    sc(__NR_prlimit64, 0, RLIMIT_CORE, (long)&none, 0, 0);
    set_default(signal);
    sc(__NR_kill, sc(__NR_getpid, 0, 0, 0, 0, 0), signal, 0, 0, 0);
    sc(__NR_rt_sigprocmask, SIG_UNBLOCK, (long)&only, 0, sizeof only, 0);
}


/* The main child has ended: say how, then end likewise.  It is reaped only
 * after its status was written: as long as the pipe is empty, its pid is its
 * own, and the other side may open a pidfd of it. */
__attribute__((noreturn)) static void
finish(int pid, int code, int status)
{
    int killed = code != CLD_EXITED;
    int raw = killed ? status | (code == CLD_DUMPED ? 0x80 : 0)
                     : (status & 0xff) << 8;
    sc(__NR_write, STATUS_FD, (long)&raw, sizeof raw, 0, 0);
    sc(__NR_wait4, pid, 0, __WALL, 0, 0);
    if (killed)
        die_by(status);
    leave(killed ? 128 + status : status & 0xff);
}


/* Reap what has ended; does not return when that was the main child. */
static void
reap(int main_pid)
{
    for (;;) {
        siginfo_t info;
        info.si_pid = 0;
        long result = sc(__NR_waitid, P_ALL, 0, (long)&info,
                         WEXITED | WNOHANG | WNOWAIT | __WALL, 0);
        if (result == -ECHILD && main_pid)
            leave(255);
        if (result < 0 || info.si_pid == 0)
            return;
        if (info.si_pid == main_pid)
            finish(main_pid, info.si_code, info.si_status);
        sc(__NR_wait4, info.si_pid, 0, WNOHANG | __WALL, 0, 0);
    }
}


/* SIGKILL to that process if it is a child of this one, which it stays until
 * it is waited for. */
static void
kill_child(int pid)
{
    siginfo_t info;
    if (sc(__NR_waitid, P_PID, pid, (long)&info,
           WEXITED | WNOHANG | WNOWAIT | __WALL, 0)
        == 0)
        sc(__NR_kill, pid, SIGKILL, 0, 0, 0);
}


/* SIGKILL to every child in a list of procfs: decimal, a space after each.
 * A last one without its space was cut short and is left for the next list.
 * In a joined MNT namespace /proc is what root in there has laid on it. */
static void
kill_listed(const char *text, const char *end)
{
    for (const char *at = text; at < end; at++)
        if (*at == ' ') {
            kill_child(number(text));
            text = at + 1;
        }
}


/* End everything below this process.  PID 1 needs only to go; elsewhere each
 * child is killed, and since this is a subreaper its children come here, to
 * be killed next.  Bounded, in case some cannot be killed. */
__attribute__((noreturn)) static void
end_tree(int main_pid)
{
    char list[4096];
    if (sc(__NR_getpid, 0, 0, 0, 0, 0) == 1)
        leave(128 + SIGKILL);
    if (main_pid)
        sc(__NR_kill, main_pid, SIGKILL, 0, 0, 0);
    for (int round = 0; round < 10000; round++) {
        long fd = sc(__NR_openat, AT_FDCWD, (long)"/proc/thread-self/children",
                     O_RDONLY, 0, 0);
        long n = fd < 0 ? 0 : sc(__NR_read, fd, (long)list, sizeof list, 0, 0);
        sc(__NR_close, fd, 0, 0, 0, 0);
        if (n > 0)
            kill_listed(list, list + n);
        if (sc(__NR_wait4, -1, 0, __WALL, 0, 0) == -ECHILD)
            break;
    }
    leave(128 + SIGKILL);
}


/* Hand one signal on to the main child.  What the terminal sends goes to the
 * whole foreground group, of which the child is part or not by its own
 * choice: it has it already. */
static void
forward(int fd, int main_pid)
{
    struct signalfd_siginfo info;
    if (sc(__NR_read, fd, (long)&info, sizeof info, 0, 0) != sizeof info)
        return;
    if (main_pid && info.ssi_signo != SIGCHLD && info.ssi_code != SI_KERNEL)
        sc(__NR_kill, main_pid, info.ssi_signo, 0, 0, 0);
}


/* Where there is no signalfd to be had: wait a little for one signal and hand
 * it on. */
static void
forward_waiting(const mask_t *all, int main_pid)
{
    const struct duration pause = {0, 10 * 1000 * 1000};
    siginfo_t info;
    long number = sc(__NR_rt_sigtimedwait, (long)all, (long)&info,
                     (long)&pause, sizeof *all, 0);
    if (number > 0 && main_pid && number != SIGCHLD
        && info.si_code != SI_KERNEL)
        sc(__NR_kill, main_pid, number, 0, 0, 0);
}


/* Keep nothing of the process that started this but what the job needs. */
static void
settle(const mask_t *all)
{
    sc(__NR_rt_sigprocmask, SIG_SETMASK, (long)all, 0, sizeof *all, 0);
    set_default(SIGCHLD);
    sc(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    sc(__NR_prctl, PR_SET_NAME, (long)"nsutil-init", 0, 0, 0);
    sc(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sc(__NR_chdir, (long)"/", 0, 0, 0, 0);
}


/* Wait, reap and forward until there is a reason to end. */
__attribute__((noreturn)) static void
wait_for(int main_pid, int signal)
{
    const struct duration at_once = {0, 0};
    mask_t all = ~0ul;
    struct pollfd watched[2];
    settle(&all);
    watched[0].fd = (int)sc(__NR_signalfd4, -1, (long)&all, sizeof all,
                            O_NONBLOCK | O_CLOEXEC, 0);
    watched[0].events = POLLIN;
    watched[1].fd = signal ? LIFE_FD : -1;
    watched[1].events = POLLIN;
    for (;;) {
        reap(main_pid);
        watched[0].revents = watched[1].revents = 0;
        if (watched[0].fd < 0)
            forward_waiting(&all, main_pid);
        sc(__NR_ppoll, (long)watched, 2,
           watched[0].fd < 0 ? (long)&at_once : 0, 0, 0);
        if (watched[0].revents)
            forward(watched[0].fd, main_pid);
        if (watched[1].revents) {
            if (signal == SIGKILL || !main_pid)
                end_tree(main_pid);
            sc(__NR_kill, main_pid, signal, 0, 0, 0);
            watched[1].fd = -1;
        }
    }
}


/* The stage job. */

/* Take CAP_SYS_ADMIN back from what the program will get. */
static void
drop_carried(int carried)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (carried & 1)
        sc(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_SYS_ADMIN, 0,
           0);
    if (carried & 2
        && sc(__NR_capget, (long)&head, (long)data, 0, 0, 0) == 0) {
        data[0].inheritable &= ~(1u << CAP_SYS_ADMIN);
        sc(__NR_capset, (long)&head, (long)data, 0, 0, 0);
    }
}


/* Say what went wrong, and end. */
__attribute__((noreturn)) static void
give_up(int error_fd, int stage, long error)
{
    int record[2] = {stage, (int)-error};
    sc(__NR_write, error_fd, (long)record, sizeof record, 0, 0);
    leave(127);
}


/* Join the TIME namespace and become the program. */
__attribute__((noreturn)) static void
stage(char **argv, char **envp)
{
    int time_fd = number(argv[0]), error_fd = number(argv[1]);
    int count = number(argv[3]);
    char **candidate = argv + 4, **program = candidate + count;
    long first = 0, error = -ENOENT;
    sc(__NR_fcntl, error_fd, F_SETFD, FD_CLOEXEC, 0, 0);
    error = sc(__NR_setns, time_fd, CLONE_NEWTIME, 0, 0, 0);
    if (error < 0)
        give_up(error_fd, STAGE_JOIN_TIME, error);
    sc(__NR_close, time_fd, 0, 0, 0, 0);
    drop_carried(number(argv[2]));
    for (int i = 0; i < count; i++) {
        error = sc(__NR_execve, (long)candidate[i], (long)program, (long)envp,
                   0, 0);
        if (error != -ENOENT && error != -ENOTDIR && first == 0)
            first = error;
    }
    give_up(error_fd, STAGE_EXEC, first ? first : error);
}


/* The kernel hands over: argc, argv, NULL, envp, NULL. */
__attribute__((noreturn, used)) void
start(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    if (argc >= 4 && argv[1][0] == 'w')
        wait_for(number(argv[2]), number(argv[3]));
    if (argc >= 8 && argv[1][0] == 's')
        stage(argv + 2, argv + argc + 1);
    leave(0);
}
