/* Waiting up to a deadline; see await.h. */
#include "await.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

enum { NANOSECONDS = 1000000000 };


/* The clock of the deadlines. */
static deadline_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (deadline_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}


int
take_timeout(PyObject *timeout, void *deadline)
{
    const double century = 4e9; /* and far from what a deadline_t can hold */
    deadline_t *at = deadline;
    *at = NO_DEADLINE;
    if (timeout == Py_None)
        return 1;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return 0;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a timeout cannot be NaN");
        return 0;
    }
    if (seconds < century)
        *at = now() + (deadline_t)(seconds > 0 ? seconds * NANOSECONDS : 0);
    return 1;
}


/* ppoll(2) until a deadline; its result, -1 with errno. */
static int
poll_until(struct pollfd *entries, nfds_t count, deadline_t deadline)
{
    if (deadline < 0)
        return ppoll(entries, count, NULL, NULL);
    deadline_t left = deadline - now();
    left = left > 0 ? left : 0;
    struct timespec timeout = {left / NANOSECONDS, left % NANOSECONDS};
    return ppoll(entries, count, &timeout, NULL);
}


/* A millisecond without the GIL.  False with a signal handler's exception. */
static bool
let_pass(void)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&pause, NULL);
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals() == 0;
}


/* Whether a wait that failed with errno goes on: the caller of one that gives
 * up would be left with a process.  With an exception set where not. */
static bool
wait_again(void)
{
    if (errno == ENOMEM)
        return let_pass();
    if (errno == EINTR)
        return PyErr_CheckSignals() == 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return false;
}


int
await_events(struct pollfd *entries, nfds_t count, deadline_t deadline)
{
    int result;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = poll_until(entries, count, deadline);
        Py_END_ALLOW_THREADS
    } while (result < 0 && wait_again());
    return result;
}


/* Whether the end of that process is known to all who may know: a tracer of
 * our child, strace(1) or a debugger, is told before us. */
static bool
is_over(int pidfd)
{
    siginfo_t info = {0};
    int flags = WEXITED | WNOHANG | WNOWAIT | __WALL;
    return waitid(P_PIDFD, (id_t)pidfd, &info, flags) < 0 || info.si_pid != 0;
}


int
await_end(int pidfd, deadline_t deadline)
{
    for (;;) {
        struct pollfd entry = {pidfd, POLLIN, 0};
        int result = await_events(&entry, 1, deadline);
        if (result <= 0 || is_over(pidfd))
            return result;
        if (deadline >= 0 && now() >= deadline)
            return 0;
        if (!let_pass())
            return -1;
    }
}
