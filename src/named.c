/* What names need beyond plain steps: a plan run on a thread of its own, so
 * that making a namespace moves nobody, the identity of a mount, inotify. */
#include "plan.h"

#include "apart.h"
#include "compat.h"
#include "nsthread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PLANS = 8 };

/* Plans for a thread that ends afterwards. */
struct apart {
    const struct plan *plans[MAX_PLANS];
    int count;
    int cpu;                    /* where the thread must run, -1: anywhere */
    struct run run;
};


/* The body of the thread.  A failed plan leaves its number in run.plan. */
static void
run_plans(void *arg)
{
    struct apart *job = arg;
    if (job->cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)job->cpu, &one);
        sc(SYS_sched_setaffinity, 0, sizeof one, (long)&one, 0, 0, 0);
    }
    for (int i = 0; i < job->count; i++) {
        job->run.plan = i;
        if (run_steps(job->plans[i], &job->run))
            break;
    }
}


/* The plans of a tuple into job.  -1 with an exception set. */
static int
collect_plans(PyObject *module, PyObject *plans, struct apart *job)
{
    Py_ssize_t n = PyTuple_Size(plans);
    if (n > MAX_PLANS) {
        PyErr_Format(PyExc_ValueError, "%zd plans, at most %d", n, MAX_PLANS);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        job->plans[i] = plan_of(module, PyTuple_GetItem(plans, i));
        if (job->plans[i] == NULL)
            return -1;
    }
    job->count = (int)n;
    return 0;
}


/* run_apart(plans, slots, want, cpu): the value of slot want after all plans
 * ran, or (plan, step, errno) of the failure.  A step that failed is not
 * rolled back; namespaces and mounts of the thread end with it. */
static PyObject *
run_apart(PyObject *module, PyObject *args)
{
    PyObject *plans, *slots;
    struct apart job;
    int want, err;
    if (!PyArg_ParseTuple(args, "O!Oii:run_apart", &PyTuple_Type, &plans,
                          &slots, &want, &job.cpu))
        return NULL;
    if (want < 0 || want >= RUN_SLOTS || job.cpu >= CPU_SETSIZE)
        return PyErr_Format(PyExc_ValueError, "no slot %d or CPU %d", want,
                            job.cpu);
    if (collect_plans(module, plans, &job) < 0
        || run_preset(&job.run, slots) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    err = run_on_thread(run_plans, &job);
    Py_END_ALLOW_THREADS
    if (err)
        return ns_oserror(err, NULL);
    if (job.run.error)
        return Py_BuildValue("iii", job.run.plan, job.run.step, job.run.error);
    return PyLong_FromLong(job.run.slot[want]);
}


/* The making of a namespace that gets a name. */
struct creation {
    const char *directory;      /* where names of this type are kept */
    unsigned long long mount;   /* the mount that it must be the root of */
    const char *path;           /* the name's file */
    const char *entry;          /* what shows the new one to its maker */
    const struct plan *plan;    /* unshare and set-up */
    struct run run;
    int part;                   /* where it failed, as Python counts them */
    int error;
    int fd;                     /* the new namespace */
};

enum {
    PART_LOCK,
    PART_FILE,
    PART_THREAD,
    PART_PLAN,
    PART_BIND,
    PART_OPEN,
    PART_BACK,
    NOT_READY
};


/* Note a failure (a negative result) of that part; whether there was one. */
static bool
failed(struct creation *job, int part, long result)
{
    if (result >= 0)
        return false;
    job->part = part;
    job->error = (int)-result;
    return true;
}


/* Unshare, set up, bind on the file, open: moves the thread it runs on. */
static void
create_inside(void *arg)
{
    struct creation *job = arg;
    if (failed(job, PART_PLAN, -run_steps(job->plan, &job->run)))
        return;
    if (failed(job, PART_BIND,
               sc(SYS_mount, (long)job->entry, (long)job->path, (long)"none",
                  MS_BIND, 0, 0)))
        return;
    long fd = sc(SYS_openat, AT_FDCWD, (long)job->entry, O_RDONLY | O_CLOEXEC,
                 0, 0, 0);
    if (!failed(job, PART_OPEN, fd))
        job->fd = (int)fd;
}


/* Whether this process has one thread: only then does unshare(2) take this
 * flag, and does nothing. */
static bool
is_alone(void)
{
    return sc(SYS_unshare, CLONE_THREAD, 0, 0, 0, 0, 0) == 0;
}


/* A descriptor of the namespace that this thread is in, if going back to it
 * is certain to work: going there now takes the same rights.  -1: it is not,
 * or somebody else in this process could see us away. */
static int
way_back(const char *entry, int type)
{
    if (type == CLONE_NEWTIME || type == CLONE_NEWNS || !is_alone())
        return -1;
    int fd = open_own_ns(find_kind(strrchr(entry, '/') + 1));
    if (fd >= 0 && sc(SYS_setns, fd, type, 0, 0, 0, 0) < 0) {
        sc(SYS_close, fd, 0, 0, 0, 0, 0);
        fd = -1;
    }
    return fd < 0 ? -1 : fd;
}


/* Create on the only thread there is, as ip-netns(8) does, and go back. */
static void
create_here(struct creation *job, int back, int type)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    create_inside(job);
    long result = sc(SYS_setns, back, type, 0, 0, 0, 0);
    sc(SYS_close, back, 0, 0, 0, 0, 0);
    if (failed(job, PART_BACK, result))
        thread_break(type);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}


/* File, namespace, bind; what was begun is undone on failure, which job
 * describes.  A second thread costs as much as a tenth of the whole, so a
 * process that has only one does without. */
static void
create_name(struct creation *job, int type)
{
    long fd = sc(SYS_openat, AT_FDCWD, (long)job->path,
                 O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0, 0, 0);
    if (failed(job, PART_FILE, fd))
        return;
    sc(SYS_close, fd, 0, 0, 0, 0, 0);
    int back = way_back(job->entry, type);
    if (back >= 0)
        create_here(job, back, type);
    else
        failed(job, PART_THREAD, -run_on_thread(create_inside, job));
    if (job->error) {
        sc(SYS_umount2, (long)job->path, MNT_DETACH | UMOUNT_NOFOLLOW, 0, 0, 0,
           0);
        sc(SYS_unlinkat, AT_FDCWD, (long)job->path, 0, 0, 0, 0);
    }
}


/* The mount that fd (and with an empty path, fd itself) lies on, and whether
 * it is that mount's root.  0, or -errno. */
static long
identify_mount(int fd, const char *path, int flags, unsigned long long *id,
               bool *is_root)
{
    struct file_status found;
    memset(&found, 0, sizeof found);
    long result = sc(SYS_statx, fd, (long)path, flags, NSU_STATX_MNT_ID,
                     (long)&found, 0);
    *id = found.stx_mnt_id;
    *is_root = (found.stx_attributes & NSU_STATX_ATTR_MOUNT_ROOT) != 0;
    if (!newer_calls()
        || !(found.stx_attributes_mask & NSU_STATX_ATTR_MOUNT_ROOT)) {
        *id = 0; /* before 5.8: not to be known, taken for granted */
        *is_root = true;
    }
    return result;
}


/* create_name under a shared lock on the directory, which nobody unmounts
 * meanwhile; NOT_READY when it is not the mount that it should be. */
static void
create_locked(struct creation *job, int type)
{
    unsigned long long id;
    bool is_root;
    long fd = sc(SYS_openat, AT_FDCWD, (long)job->directory,
                 O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
    if (failed(job, fd == -ENOENT ? NOT_READY : PART_LOCK, fd))
        return;
    if (!failed(job, PART_LOCK, sc(SYS_flock, fd, LOCK_SH, 0, 0, 0, 0))) {
        identify_mount((int)fd, "", AT_EMPTY_PATH, &id, &is_root);
        if (is_root && id == job->mount)
            create_name(job, type);
        else
            failed(job, NOT_READY, -ENOENT);
        /* A child forked meanwhile has the descriptor too: closing alone
         * would leave the directory locked. */
        sc(SYS_flock, fd, LOCK_UN, 0, 0, 0, 0);
    }
    sc(SYS_close, fd, 0, 0, 0, 0, 0);
}


/* name_create(directory, mount, path, type, entry, plan, slots): a
 * descriptor, (part, step, errno) of the failure, or None when directory is
 * not the root of that mount. */
static PyObject *
name_create(PyObject *module, PyObject *args)
{
    PyObject *path, *plan, *slots;
    struct creation job = {.fd = -1};
    int type;
    if (!PyArg_ParseTuple(args, "sKO&isOO:name_create", &job.directory,
                          &job.mount, PyUnicode_FSConverter, &path, &type,
                          &job.entry, &plan, &slots))
        return NULL;
    job.path = PyBytes_AsString(path);
    job.plan = plan_of(module, plan);
    if (job.plan == NULL || run_preset_for(job.plan, &job.run, slots) < 0
        || thread_usable() < 0
        || ns_audit("nsutil.named", "(sO)", "create", path) < 0) {
        Py_DECREF(path);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    create_locked(&job, type);
    Py_END_ALLOW_THREADS
    Py_DECREF(path);
    if (job.error == 0)
        return PyLong_FromLong(job.fd);
    if (job.fd >= 0)
        close(job.fd);
    if (job.part == NOT_READY || (job.part <= PART_FILE && job.error == EINTR))
        return PyErr_CheckSignals() < 0 ? NULL : Py_NewRef(Py_None);
    return Py_BuildValue("iii", job.part, job.run.step, job.error);
}


/* mount_id(path): (id, is_root): the mount that path lies on, and whether
 * path is its root.  The last component is not followed. */
static PyObject *
mount_id(PyObject *module, PyObject *args)
{
    PyObject *path;
    unsigned long long id;
    bool is_root;
    (void)module;
    if (!PyArg_ParseTuple(args, "O&:mount_id", PyUnicode_FSConverter, &path))
        return NULL;
    long result = identify_mount(AT_FDCWD, PyBytes_AsString(path),
                                 AT_SYMLINK_NOFOLLOW, &id, &is_root);
    if (result < 0)
        ns_oserror((int)-result, PyBytes_AsString(path));
    Py_DECREF(path);
    if (result < 0)
        return NULL;
    return Py_BuildValue("KN", id, PyBool_FromLong(is_root));
}


/* swap_mount(path): put a copy of the mount that path is the root of in its
 * place, without what is mounted below it.  The errno of the failure, when
 * nothing is changed; else 0.  Should the copy not go there, the files stay
 * without a mount of their own. */
static PyObject *
swap_mount(PyObject *module, PyObject *args)
{
    const char *path;
    long result;
    (void)module;
    if (!PyArg_ParseTuple(args, "s:swap_mount", &path)
        || ns_audit("nsutil.named", "(ss)", "empty", path) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    long fd = sc(SYS_open_tree, AT_FDCWD, (long)path,
                 NSU_OPEN_TREE_CLONE | O_CLOEXEC, 0, 0, 0);
    result = fd;
    if (fd >= 0) {
        result = sc(SYS_umount2, (long)path, MNT_DETACH | UMOUNT_NOFOLLOW, 0,
                    0, 0, 0);
        if (result >= 0)
            sc(SYS_move_mount, fd, (long)"", AT_FDCWD, (long)path,
               NSU_MOVE_MOUNT_F_EMPTY_PATH, 0);
        sc(SYS_close, fd, 0, 0, 0, 0, 0);
    }
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(result < 0 ? -result : 0);
}


/* inotify(path, mask): a descriptor that reports events of that directory. */
static PyObject *
watch_directory(PyObject *module, PyObject *args)
{
    PyObject *path;
    unsigned mask;
    (void)module;
    if (!PyArg_ParseTuple(args, "O&I:inotify", PyUnicode_FSConverter, &path,
                          &mask))
        return NULL;
    int fd = inotify_init1(IN_CLOEXEC);
    if (fd >= 0 && inotify_add_watch(fd, PyBytes_AsString(path), mask) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        fd = -1;
    }
    if (fd < 0)
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AsString(path));
    Py_DECREF(path);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}


PyMethodDef name_methods[] = {
    {"name_create", name_create, METH_VARARGS,
     "name_create($module, directory, mount, path, type, entry, plan, slots,\n"
     "            /)\n--\n\n"
     "Make a namespace and bind it on a new file: a descriptor of it, or\n"
     "(part, step, errno) of the failure, or None when directory is not the\n"
     "root of that mount.  The caller is not moved."},
    {"run_apart", run_apart, METH_VARARGS,
     "run_apart($module, plans, slots, want, cpu, /)\n--\n\n"
     "Run plans on a thread of their own: the value of a slot, or\n"
     "(plan, step, errno) of the failure."},
    {"mount_id", mount_id, METH_VARARGS,
     "mount_id($module, path, /)\n--\n\n"
     "(id of the mount that path lies on, whether path is its root)."},
    {"swap_mount", swap_mount, METH_VARARGS,
     "swap_mount($module, path, /)\n--\n\n"
     "Replace the mount at path by a copy without the mounts below it: 0, or\n"
     "the errno when nothing was done."},
    {"inotify", watch_directory, METH_VARARGS,
     "inotify($module, path, mask, /)\n--\n\n"
     "A descriptor that reports the events of a directory (inotify(7))."},
    {NULL, NULL, 0, NULL},
};
