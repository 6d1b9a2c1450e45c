/* clone(): os.fork() into new namespaces.
 *
 * Who is who, by what is new:
 *
 *     caller - child                   nothing, or no PID: the child unshares
 *     caller - child (PID 1)           PID: the calling thread unshares it
 *                                      for this one fork and returns
 *     caller - waiter - child (PID 1)  USER and PID: only who is in the new
 *                                      user namespace may make the PID one.
 *                                      PID where the calling thread would
 *                                      have no right to return
 */
#include "calls.h"

#include "compat.h"
#include "fork.h"
#include "guard.h"
#include "mirror.h"
#include "nsthread.h"
#include "shared.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct cloning {
    int flags;                  /* CLONE_NEW* that the child enters */
    int home;                   /* way back for the calling thread after it
                                   has unshared PID; -1: it stays out of it */
    int report[2];              /* the child's errno, or nothing and EOF */
    int stranded;               /* out: errno of a way back that failed */
};


/* The own PID namespace as a way back, or -1 where there is none: it takes
 * CAP_SYS_ADMIN in the user namespace that owns it, and whoever may make a
 * new one has that in his own user namespace only. */
static int
open_home(void)
{
    int home = open_own_ns(find_kind("pid"));
    int user = open_own_ns(find_kind("user"));
    int owner = home < 0 ? -1 : ioctl(home, NSU_GET_USERNS);
    bool returns = owner >= 0 && user >= 0 && is_same_file(owner, user);
    if (owner >= 0)
        close(owner);
    if (user >= 0)
        close(user);
    if (returns)
        return home;
    if (home >= 0)
        close(home);
    return -1;
}


/* Make what has to be there before the fork.  0 or an errno. */
static int
open_all(struct cloning *c)
{
    c->home = c->report[0] = c->report[1] = -1;
    c->stranded = 0;
    if (c->flags && pipe2(c->report, O_CLOEXEC) < 0)
        return errno;
    if ((c->flags & (CLONE_NEWPID | CLONE_NEWUSER)) == CLONE_NEWPID)
        c->home = open_home();
    return 0;
}


/* fork() with the calling thread's next child in a new PID namespace where
 * that is what home is for.  As fork(). */
static pid_t
fork_there(struct cloning *c)
{
    if (c->home >= 0 && unshare(CLONE_NEWPID) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0 || c->home < 0)
        return pid;
    int error = errno;
    if (setns(c->home, CLONE_NEWPID) < 0)
        c->stranded = errno;
    errno = error;
    return pid;
}


/* The time namespace just made is for children; a process of one thread may
 * move into it itself.  0 or an errno. */
static int
enter_new_time(void)
{
    int fd = open_own_ns(find_kind("time_for_children"));
    if (fd < 0)
        return -fd;
    int error = setns(fd, CLONE_NEWTIME) < 0 ? errno : 0;
    close(fd);
    return error;
}


/* PID 1 behind a waiter: it ends when that does.  The pidfd tells whether it
 * has already: getppid() is 0 for a parent outside. */
static void
follow_waiter(int waiter)
{
    struct pollfd alive = {.fd = waiter, .events = POLLIN};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (waiter >= 0 && poll(&alive, 1, 0) > 0)
        _exit(128 + SIGKILL);
    if (waiter >= 0)
        close(waiter);
}


/* Fork the child proper into the PID namespace just made and become its
 * waiter.  Returns in the child, or an errno. */
static int
fork_further(void)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    struct sigaction own;
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    /* While it is ignored the kernel drops the status of the child. */
    sigaction(SIGCHLD, &by_default, &own);
    pid_t pid = fork();
    if (pid > 0)
        mirror(pid);
    if (pid < 0)
        return errno;
    sigaction(SIGCHLD, &own, NULL);
    follow_waiter(self);
    return 0;
}


/* In the child: enter what is new.  Returns in the process that Python goes
 * on in; a failure is reported and ends the child. */
static void
enter_all(struct cloning *c)
{
    int flags = c->home < 0 ? c->flags : c->flags & ~CLONE_NEWPID;
    int error = flags && unshare(flags) < 0 ? errno : 0;
    if (!error && flags & CLONE_NEWTIME)
        error = enter_new_time();
    if (!error && flags & CLONE_NEWPID)
        error = fork_further();
    if (error) {
        while (write(c->report[1], &error, sizeof error) < 0 && errno == EINTR)
            ;
        _exit(127);
    }
}


/* Close what open_all opened, but for the end that the caller reads. */
static void
close_all(struct cloning *c, int keep)
{
    int *const fds[] = {&c->home, &c->report[0], &c->report[1]};
    for (int i = 0; i < 3; i++)
        if (*fds[i] >= 0 && *fds[i] != keep) {
            close(*fds[i]);
            *fds[i] = -1;
        }
}


/* Wait until the child is inside.  0, or its errno with the child reaped.
 * Call it without the GIL. */
static int
await_child(struct cloning *c, pid_t pid)
{
    int error = 0;
    ssize_t n;
    if (c->stranded) {          /* nobody is to stay in there */
        kill(pid, SIGKILL);
        error = c->stranded;
    }
    else {
        do
            n = read(c->report[0], &error, sizeof error);
        while (n < 0 && errno == EINTR);
    }
    if (error)
        while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
    return error;
}


/* In the parent, after the fork or its failure. */
static PyObject *
finish_parent(struct cloning *c, pid_t pid, int error)
{
    close_all(c, c->report[0]);
    if (pid > 0 && c->flags) {
        Py_BEGIN_ALLOW_THREADS
        error = await_child(c, pid);
        Py_END_ALLOW_THREADS
    }
    close_all(c, -1);
    if (c->stranded) {
        thread_break(CLONE_NEWPID);
        return raise_from_python("restore_failed", "(ii)", CLONE_NEWPID,
                                 c->stranded);
    }
    return error ? ns_oserror(error, NULL) : PyLong_FromPid(pid);
}


PyObject *
clone_child(PyObject *module, int flags)
{
    struct cloning c = {.flags = flags};
    sigset_t before;
    if (fork_allowed(module, "clone") < 0)
        return NULL;
    int error = open_all(&c);
    if (error)
        return ns_oserror(error, NULL);
    fork_begin(&before);
    pid_t pid = fork_there(&c);
    if (pid == 0) {
        enter_all(&c);
        close_all(&c, -1);
        PyOS_AfterFork_Child();
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return PyLong_FromLong(0);
    }
    error = pid < 0 ? errno : 0;
    fork_parent(&before);
    return finish_parent(&c, pid, error);
}
