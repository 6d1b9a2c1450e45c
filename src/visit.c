/* A look into another namespace from a thread of its own; see visit.h. */
#include "visit.h"

#include "compat.h"
#include "nsthread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum {
    VISIT_STACK = 256 * 1024,
    GONE_WAIT_US = 50,
    GONE_TRIES = 2000           /* a tenth of a second */
};

/* What the thread and its maker share. */
struct journey {
    struct visit *visit;
    pid_t thread;
    int result;
};


/* Enter and act.  The fd, or -errno. */
static int
go(struct visit *visit)
{
    int result = 0;
    visit->step = "enter the namespace";
    /* setns(MNT) wants a root and cwd that no other thread shares. */
    if (visit->type == CLONE_NEWNS)
        result = unshare(CLONE_FS);
    if (result == 0)
        result = setns(visit->fd, visit->type);
    if (result == 0) {
        visit->step = NULL;
        result = visit->act(visit);
    }
    return result < 0 ? -errno : result;
}


/* The thread: go there, and end.  The answer is left in the journey. */
static void *
journey_thread(void *arg)
{
    struct journey *journey = arg;
    journey->thread = thread_id();
    journey->result = go(journey->visit);
    return NULL;
}


/* pthread_join returns before the kernel has forgotten the thread, and
 * unshare(USER) counts it till then: wait for the kernel too. */
static void
wait_until_gone(pid_t thread)
{
    const struct timespec pause = {.tv_nsec = GONE_WAIT_US * 1000L};
    for (int i = 0; i < GONE_TRIES; i++) {
        if (syscall(SYS_tgkill, getpid(), thread, 0) < 0)
            return;
        nanosleep(&pause, NULL);
    }
}


/* Start the thread with all signals blocked: handlers are for the threads
 * of the program.  0 or an errno. */
static int
start(pthread_t *thread, struct journey *journey)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int error = pthread_attr_init(&attr);
    if (error)
        return error;
    pthread_attr_setstacksize(&attr, VISIT_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(thread, &attr, journey_thread, journey);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error;
}


/* Go there and come back.  Where that fails the thread is marked. */
static int
go_and_return(struct visit *visit)
{
    struct block home;
    int wrong = 0;
    visit->step = "remember the own namespace";
    int result = block_begin(&home, visit->type, false);
    if (result < 0)
        return result;
    result = go(visit);
    visit->stranded = block_restore(&home, &wrong);
    if (visit->stranded == 0)
        return result;
    thread_break(wrong);
    if (result >= 0)
        close(result);
    return -visit->stranded;
}


int
visit_namespace(struct visit *visit)
{
    pthread_t thread;
    struct journey journey = {.visit = visit};
    visit->stranded = 0;
    int error = start(&thread, &journey);
    if (error == 0) {
        pthread_join(thread, NULL);
        wait_until_gone(journey.thread);
        return journey.result;
    }
    /* No thread can be made while the next child's PID namespace is another
     * one.  A mount namespace would cut this thread off from the others. */
    if (visit->type != CLONE_NEWNS)
        return go_and_return(visit);
    visit->step = "start a thread";
    return -error;
}
