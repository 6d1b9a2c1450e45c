/* _ns.Child: one forked child that runs Python, from fork() to its end. */
#include "fork.h"
#include "forked.h"
#include "plan.h"
#include "status.h"

#include "await.h"
#include "compat.h"
#include "initfile.h"
#include "nsthread.h"
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Several threads may use it at once, also without a GIL.  Who waits or writes
 * is a user, and so is the object until end(): the last one closes what the
 * others may still be using. */
typedef struct {
    PyObject_HEAD
    atomic_bool forked;         /* it does so once */
    atomic_int users;           /* 0: before the fork, or all is closed */
    atomic_bool ended;          /* the object is no user any more */
    _Atomic pid_t pid;          /* 0: not forked, or ended and reaped */
    atomic_int pidfd;           /* -1: none */
    atomic_int end[CHANNELS];   /* this process's ends of the pipes */
    unsigned generation;        /* the process that may wait for it */
    sigset_t mask;              /* to restore in the child */
} ChildObject;


/* Child(): nothing forked yet. */
static PyObject *
child_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":Child", names))
        return NULL;
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    ChildObject *self = (ChildObject *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->pidfd = -1;
    for (int i = 0; i < CHANNELS; i++)
        self->end[i] = -1;
    return (PyObject *)self;
}


/* The plans of a fork from a tuple of Plans or Nones.  0, or -1 with an
 * exception set. */
static int
take_plans(PyObject *module, PyObject *plans, struct forked *work)
{
    if (!PyTuple_Check(plans) || PyTuple_Size(plans) != PLANS) {
        PyErr_Format(PyExc_TypeError, "plans must be a tuple of %d", PLANS);
        return -1;
    }
    for (int i = 0; i < PLANS; i++) {
        PyObject *plan = PyTuple_GetItem(plans, i);
        if (plan == Py_None)
            continue;
        work->plan[i] = plan_of(module, plan);
        if (work->plan[i] == NULL)
            return -1;
    }
    return 0;
}


/* The arguments of Child.fork().  0, or -1 with an exception set. */
static int
take_fork_arguments(PyObject *module, PyObject *args, PyObject *keywords,
                    PyObject **serve, struct forked *work)
{
    static char *names[] = {"serve",       "plans",         "slots",
                            "clone_flags", "second",        "init",
                            "hides",       "new_time",      "join_time",
                            "mapped",      "parent_signal", "watch",
                            NULL};
    PyObject *plans, *slots = NULL;
    memset(work, 0, sizeof *work);
    work->program = work->join_time = work->caller_fd = -1;
    for (int i = 0; i < CHANNELS; i++)
        work->end[i] = work->parent_end[i] = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|O$ippppipip:fork",
                                     names, serve, &plans, &slots,
                                     &work->clone_flags, &work->second,
                                     &work->init, &work->hides,
                                     &work->new_time, &work->join_time,
                                     &work->mapped, &work->parent_signal,
                                     &work->watch))
        return -1;
    if (take_plans(module, plans, work) < 0)
        return -1;
    return run_preset(&work->run, slots);
}


/* Close what is open of one process's ends. */
static void
close_ends(int *end)
{
    for (int i = 0; i < CHANNELS; i++) {
        if (end[i] >= 0)
            close(end[i]);
        end[i] = -1;
    }
}


/* Close a descriptor of a Child, once. */
static void
shut(atomic_int *fd)
{
    int open = atomic_exchange(fd, -1);
    if (open >= 0)
        close(open);
}


/* Become a user; false where there is nothing to use. */
static bool
hold(ChildObject *self)
{
    int users = atomic_load(&self->users);
    while (users > 0
           && !atomic_compare_exchange_weak(&self->users, &users, users + 1))
        ;
    return users > 0;
}


/* Be a user no longer. */
static void
let_go(ChildObject *self)
{
    if (atomic_fetch_sub(&self->users, 1) != 1)
        return;
    shut(&self->pidfd);
    for (int i = 0; i < CHANNELS; i++)
        shut(&self->end[i]);
}


/* One pipe; the parent reads REPORT and STATUS and writes the others.  0, or
 * an errno. */
static int
make_pipe(ChildObject *self, struct forked *work, int which)
{
    int ends[2];
    int parent_reads = which == REPORT || which == STATUS;
    /* Never block on a status that init did not live to write. */
    if (pipe2(ends, O_CLOEXEC | (which == STATUS ? O_NONBLOCK : 0)) < 0)
        return errno;
    self->end[which] = ends[!parent_reads];
    work->end[which] = ends[parent_reads];
    return 0;
}


/* The pipes that this child needs.  0, or an errno. */
static int
make_pipes(ChildObject *self, struct forked *work)
{
    const int needed[CHANNELS] = {
        [REPORT] = 1,
        [GO] = work->mapped,
        [STATUS] = work->second,
        [LIFE] = work->init && work->parent_signal == SIGKILL,
    };
    int error = 0;
    for (int i = 0; i < CHANNELS && error == 0; i++)
        if (needed[i])
            error = make_pipe(self, work, i);
    for (int i = 0; i < CHANNELS; i++)
        work->parent_end[i] = self->end[i];
    return error;
}


/* Run serve() and end the process: not even an exception may unwind into the
 * frames of the caller of call(), who believes to be in the parent. */
static _Noreturn void
serve_and_exit(PyObject *serve)
{
    PyObject *done = PyObject_CallObject(serve, NULL);
    if (done == NULL)
        PyErr_Print();
    _exit(done ? 0 : 70);
}


/* In the function's process: what it needs of the Child. */
static _Noreturn void
start_python(ChildObject *self, PyObject *serve, struct forked *work)
{
    for (int i = 0; i < CHANNELS; i++)
        self->end[i] = -1;
    self->end[REPORT] = work->end[REPORT];
    PyOS_AfterFork_Child();
    serve_and_exit(serve);
}


/* What a child sees this process's end by, whatever PID namespace it is in
 * and whoever holds our descriptors.  0, or an errno. */
static int
open_self(struct forked *work)
{
    if (work->parent_signal == 0)
        return 0;
    long fd = syscall(SYS_pidfd_open, getpid(), 0);
    work->caller_fd = raise_fd(fd < 0 ? -errno : (int)fd);
    return work->caller_fd < 0 ? -work->caller_fd : 0;
}


/* Fork, with everything between in one piece: no Python code runs in the
 * parent until the child is noted in self.  0, or an errno. */
static int
fork_noted(ChildObject *self, PyObject *serve, struct forked *work)
{
    work->parent = getpid();
    work->parent_fd = work->caller_fd;
    fork_begin(&self->mask);
    pid_t pid = fork();
    if (pid == 0) {
        forked_run(work);
        start_python(self, serve, work);
    }
    int error = pid < 0 ? errno : 0;
    if (pid > 0) {
        self->pid = pid;
        self->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        /* ESRCH: gone already, and reaped by the kernel or another thread. */
        error = self->pidfd < 0 && errno != ESRCH ? errno : 0;
    }
    fork_parent(&self->mask);
    return error;
}


/* End the child at once.  Where init runs it, init takes the whole tree along
 * and is the last to go. */
static void
kill_child(ChildObject *self, pid_t pid)
{
    enum { PATIENCE = 500 };
    struct pollfd entry = {self->pidfd, POLLIN, 0};
    if (self->end[LIFE] >= 0 && entry.fd >= 0) {
        shut(&self->end[LIFE]);
        if (poll(&entry, 1, PATIENCE) > 0)
            return;
    }
    if (entry.fd >= 0)
        syscall(SYS_pidfd_send_signal, entry.fd, SIGKILL, NULL, 0);
    else
        kill(pid, SIGKILL);
}


/* Kill and reap, where nobody did before. */
static void
reap_child(ChildObject *self)
{
    siginfo_t info;
    pid_t pid = atomic_exchange(&self->pid, 0);
    idtype_t by = self->pidfd >= 0 ? P_PIDFD : P_PID;
    id_t id = (id_t)(self->pidfd >= 0 ? self->pidfd : pid);
    if (pid <= 0)
        return;
    Py_BEGIN_ALLOW_THREADS
    kill_child(self, pid);
    while (waitid(by, id, &info, WEXITED) < 0 && errno == EINTR)
        ;
    Py_END_ALLOW_THREADS
}


/* Kill and reap, close the pipes.  Without an exception and without running
 * handlers: it is for the paths on which one has been raised.  In a process
 * that inherited the object it is somebody else's child. */
static void
end_child(ChildObject *self)
{
    if (!hold(self))
        return;
    if (self->generation == fork_generation()) {
        reap_child(self);
        if (!atomic_exchange(&self->ended, true))
            let_go(self);
    }
    let_go(self);
}


/* The program that PID 1 or a waiter becomes; without PID 1 a waiter is also
 * what ends a tree with its parent.  Where the program does not exist for this
 * machine a waiter can do without, and only the function's process ends with
 * the parent.  0, or an errno. */
static int
take_init(struct forked *work)
{
    if (!work->second && !work->watch)
        return 0;
    work->program = open_init();
    if (work->program >= 0)
        work->second = 1;
    else if (work->program != -ENOEXEC || work->init)
        return -work->program;
    return 0;
}


PyDoc_STRVAR(fork_doc,
"fork($self, /, serve, plans, slots=(), *, clone_flags=0, second=False,\n"
"     init=False, hides=False, new_time=False, join_time=-1,\n"
"     mapped=False, parent_signal=0, watch=False)\n--\n\n"
"Fork; the child runs the plans, then serve(), then ends.");

static PyObject *
child_fork(PyObject *object, PyObject *args, PyObject *keywords)
{
    ChildObject *self = (ChildObject *)object;
    struct forked work;
    PyObject *serve, *module = PyType_GetModule(Py_TYPE(object));
    if (take_fork_arguments(module, args, keywords, &serve, &work) < 0)
        return NULL;
    if (fork_allowed(module, "call") < 0 || thread_usable() < 0
        || ns_audit("nsutil.spawn", "(i)", work.clone_flags) < 0)
        return NULL;
    if (atomic_exchange(&self->forked, true)) {
        PyErr_SetString(PyExc_RuntimeError, "this Child has forked before");
        return NULL;
    }
    self->generation = fork_generation();
    int error = take_init(&work);
    if (error == 0)
        error = open_self(&work);
    if (error == 0)
        error = make_pipes(self, &work);
    if (error == 0)
        error = fork_noted(self, serve, &work);
    close_ends(work.end);
    if (work.program >= 0)
        close(work.program);
    if (work.caller_fd >= 0)
        close(work.caller_fd);
    atomic_store(&self->users, 1);
    if (error) {
        end_child(self);
        return ns_oserror(error, NULL);
    }
    Py_RETURN_NONE;
}


PyDoc_STRVAR(unblock_doc,
"unblock($self, /)\n--\n\n"
"In the child: the signal mask that the parent had before the fork.");

static PyObject *
child_unblock(PyObject *object, PyObject *unused)
{
    (void)unused;
    pthread_sigmask(SIG_SETMASK, &((ChildObject *)object)->mask, NULL);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(block_doc,
"block($self, /)\n--\n\n"
"In the child: block all signals again, to finish undisturbed.");

static PyObject *
child_block(PyObject *object, PyObject *unused)
{
    sigset_t all;
    (void)object;
    (void)unused;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(go_doc,
"go($self, /)\n--\n\n"
"In the parent: the id maps are written, the child may go on.");

static PyObject *
child_go(PyObject *object, PyObject *unused)
{
    (void)unused;
    ChildObject *self = (ChildObject *)object;
    ssize_t n;
    if (!hold(self))
        return ns_oserror(EBADF, NULL);
    do
        n = write(self->end[GO], "", 1);
    while (n < 0 && errno == EINTR);
    int error = errno;
    let_go(self);
    if (n != 1)
        return ns_oserror(error, NULL);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(end_doc,
"end($self, /)\n--\n\n"
"Kill and reap the child if it is still there.  Never raises.");

static PyObject *
child_end(PyObject *object, PyObject *unused)
{
    (void)unused;
    end_child((ChildObject *)object);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(wait_doc,
"wait($self, timeout=None, /)\n--\n\n"
"The wait status of the child; None when it still runs after timeout\n"
"seconds (None: no limit), -1 when somebody else reaped it.");

static PyObject *
child_wait(PyObject *object, PyObject *args)
{
    ChildObject *self = (ChildObject *)object;
    deadline_t deadline = NO_DEADLINE;
    PyObject *status = NULL;
    if (!PyArg_ParseTuple(args, "|O&:wait", take_timeout, &deadline))
        return NULL;
    if (!hold(self))
        return PyLong_FromLong(STATUS_UNKNOWN);
    /* Without a pidfd it had ended before there could be one. */
    int ended = self->pidfd < 0 ? 1 : await_end(self->pidfd, deadline);
    if (ended > 0) {
        self->pid = 0;
        status = PyLong_FromLong(
            collect_status(self->pidfd, self->end[STATUS]));
    }
    else if (ended == 0)
        status = Py_NewRef(Py_None);
    let_go(self);
    return status;
}


static void
child_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    end_child((ChildObject *)object);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}


/* The attributes; none of them fails. */
static PyObject *
child_get_pid(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((ChildObject *)object)->pid);
}


/* As above. */
static PyObject *
child_get_channel(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((ChildObject *)object)->end[REPORT]);
}


/* As above. */
static PyObject *
child_get_pidfd(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((ChildObject *)object)->pidfd);
}


static PyMethodDef child_methods[] = {
    {"fork", (PyCFunction)(void (*)(void))child_fork,
     METH_VARARGS | METH_KEYWORDS, fork_doc},
    {"unblock", child_unblock, METH_NOARGS, unblock_doc},
    {"block", child_block, METH_NOARGS, block_doc},
    {"go", child_go, METH_NOARGS, go_doc},
    {"wait", child_wait, METH_VARARGS, wait_doc},
    {"end", child_end, METH_NOARGS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef child_attributes[] = {
    {"pid", child_get_pid, NULL, "Its pid; 0 when there is none.", NULL},
    {"channel", child_get_channel, NULL,
     "The pipe of its messages: their reader in the parent, their writer in\n"
     "the child.",
     NULL},
    {"pidfd", child_get_pidfd, NULL, "Its pidfd; -1 when there is none.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot child_slots[] = {
    {Py_tp_doc, "Child()\n--\n\n"
                "A forked child that runs Python.  Killed and reaped when it "
                "is\ndeallocated in the process that forked it."},
    {Py_tp_new, child_new},
    {Py_tp_dealloc, child_dealloc},
    {Py_tp_methods, child_methods},
    {Py_tp_getset, child_attributes},
    {0, NULL},
};

static PyType_Spec child_spec = {
    .name = "nsutil._ns.Child",
    .basicsize = sizeof(ChildObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = child_slots,
};


int
child_add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &child_spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddObjectRef(module, "Child", type);
    Py_DECREF(type);
    return result;
}
