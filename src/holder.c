/* PID 1 of a named PID namespace: nsutil-init as nobody's child, living as
 * long as the name's file.
 *
 * Its parent is a process in between that shares our memory and descriptors
 * and is gone when we go on, so that the caller has no child to wait for and
 * the namespace stays when the caller ends. */
#include "module.h"

#include "closefds.h"
#include "compat.h"
#include "credsteps.h"
#include "initfile.h"
#include "sanitize.h"
#include "steps.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_SIZE = 16 * 1024 };

/* What the three processes share. */
struct holder {
    int init_fd;                /* nsutil-init */
    int life_fd;                /* readable when the name's file is gone, or
                                   -1: then only a signal ends init */
    int pidfd;                  /* of init */
    volatile int begun;         /* the second process has done its part */
    volatile int error;         /* errno of what failed ... */
    const char *volatile step;  /* ... and its label */
    _Alignas(16) char stack[2][STACK_SIZE];
};


/* Note the first failure. */
static void
note(struct holder *h, const char *step, long error)
{
    if (h->error)
        return;
    h->step = step;
    h->error = (int)error;
}


/* The third process, PID 1 in its namespace: become nsutil-init.  The last
 * argument tells that a name is what it is for; see end_named_init. */
static int
become_init(void *arg)
{
    struct holder *h = arg;
    char *argv[] = {"nsutil-init", "w", "0", h->life_fd < 0 ? "0" : "9",
                    "named",       NULL};
    sc(SYS_setsid, 0, 0, 0, 0, 0, 0);
    sc(SYS_close, 0, 0, 0, 0, 0, 0);
    long error = h->life_fd < 0 ? sc(SYS_close, 1, 0, 0, 0, 0, 0)
                                : sc(SYS_dup3, h->life_fd, 1, 0, 0, 0, 0);
    if (h->life_fd < 0 || error >= 0)
        error = sc(SYS_dup3, h->init_fd, 2, O_CLOEXEC, 0, 0, 0);
    if (error >= 0) {
        close_others(3, NULL, 0, false);
        shed_rights();
        error = sc(SYS_execveat, 2, (long)"", (long)argv, (long)(argv + 5),
                   AT_EMPTY_PATH, 0);
    }
    note(h, "run nsutil's init", -error);
    return 1;
}


/* The second process: start the third and end. */
static int
start_init(void *arg)
{
    struct holder *h = arg;
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_NEWPID | SIGCHLD;
    if (clone(become_init, h->stack[1] + STACK_SIZE, flags, h, &h->pidfd) < 0)
        note(h, "clone(PID)", errno);
    h->begun = 1;
    return 0;
}


/* The second process was killed, which ends our wait while the third may use
 * our memory still: that one has to end too. */
static void
end_third(struct holder *h)
{
    struct pollfd ended = {h->pidfd, POLLIN, 0};
    note(h, "start nsutil's init", ESRCH);
    if (h->pidfd < 0)
        return;
    syscall(SYS_pidfd_send_signal, h->pidfd, SIGKILL, NULL, 0);
    while (poll(&ended, 1, -1) <= 0)
        ;
}


/* Run both.  Signals are blocked, since handlers would run in our memory.
 * The second process has no exit signal: nobody's wait() finds it. */
static void
start_both(struct holder *h)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int pid = clone(start_init, h->stack[0] + STACK_SIZE,
                    CLONE_VM | CLONE_VFORK | CLONE_FILES, h);
    if (pid < 0)
        note(h, "clone()", errno);
    else
        waitpid(pid, NULL, __WALL);
    if (pid > 0 && !h->begun)
        end_third(h);
    UNPOISON(h->stack, sizeof h->stack);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}


/* A descriptor that becomes readable when the file is deleted, above 2; -1
 * where there are no more of them, which is no reason to fail. */
static int
watch_file(const char *path)
{
    int fd = inotify_init1(IN_CLOEXEC);
    if (fd < 0)
        return -1;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    if (high >= 0 && inotify_add_watch(high, path, IN_DELETE_SELF) < 0) {
        close(high);
        return -1;
    }
    return high;
}


/* Start it for the name's file, on which nothing is bound yet. */
static void
hold(struct holder *h, const char *path)
{
    h->init_fd = open_init();
    if (h->init_fd < 0) {
        note(h, "run nsutil's init", -h->init_fd);
        return;
    }
    h->life_fd = watch_file(path);
    start_both(h);
    if (h->life_fd >= 0)
        close(h->life_fd);
    close(h->init_fd);
}


/* hold_pid(path): a pidfd of PID 1 of a new namespace, or (step, errno). */
static PyObject *
hold_pid(PyObject *module, PyObject *args)
{
    const char *path;
    struct holder h = {.pidfd = -1};
    (void)module;
    if (!PyArg_ParseTuple(args, "y:hold_pid", &path) || thread_usable() < 0
        || ns_audit("nsutil.spawn", "(i)", CLONE_NEWPID) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    hold(&h, path);
    Py_END_ALLOW_THREADS
    if (h.error == 0)
        return PyLong_FromLong(h.pidfd);
    if (h.pidfd >= 0)
        close(h.pidfd);
    return Py_BuildValue("si", h.step, h.error);
}


PyMethodDef holder_methods[] = {
    {"hold_pid", hold_pid, METH_VARARGS,
     "hold_pid($module, path, /)\n--\n\n"
     "A pidfd of nsutil's init as PID 1 of a new PID namespace, a child of\n"
     "nobody that lives as long as the file; or (step, errno)."},
    {NULL, NULL, 0, NULL},
};
