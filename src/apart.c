/* A thread that exists for one job; see apart.h. */
#include "apart.h"

#include "compat.h"

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK = 256 * 1024,
    GONE_YIELDS = 100,          /* mostly it is gone within some of these */
    GONE_WAIT_US = 50,
    GONE_TRIES = 2000           /* a tenth of a second */
};

struct job {
    void (*body)(void *);
    void *arg;
    pid_t thread;
};


/* The thread: note who it is, do the job, end. */
static void *
thread_main(void *arg)
{
    struct job *job = arg;
    job->thread = (pid_t)syscall(SYS_gettid);
    job->body(job->arg);
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
        if (i < GONE_YIELDS)
            sched_yield();
        else
            nanosleep(&pause, NULL);
    }
}


/* Start the thread with all signals blocked.  0 or an errno. */
static int
start(pthread_t *thread, struct job *job)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int error = pthread_attr_init(&attr);
    if (error)
        return error;
    pthread_attr_setstacksize(&attr, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(thread, &attr, thread_main, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error;
}


int
run_on_thread(void (*body)(void *), void *arg)
{
    pthread_t thread;
    struct job job = {.body = body, .arg = arg};
    int error = start(&thread, &job);
    if (error)
        return error;
    pthread_join(thread, NULL);
    wait_until_gone(job.thread);
    return 0;
}
