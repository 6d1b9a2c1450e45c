/* Process-wide state of the spawns; see shared.h. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int holders;             /* children that share our memory now */
static int dumpable;            /* the flag before the first of them */


static void
set_dumpable(int value)
{
    /* 2 is fs.suid_dumpable's and cannot be set by hand. */
    if (prctl(PR_GET_DUMPABLE) != value && value != 2)
        prctl(PR_SET_DUMPABLE, value);
}


/* In a fork()ed child: the children of the parent's other threads are not
 * ours, and their releases will not come. */
static void
start_anew(void)
{
    if (holders > 0)
        set_dumpable(dumpable);
    holders = 0;
    pthread_mutex_unlock(&mutex);
}


/* The lock alone, for fork() too, whose handlers are in place by then. */
static void
lock(void)
{
    pthread_mutex_lock(&mutex);
}


void
process_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}


static void
watch_forks(void)
{
    pthread_atfork(lock, process_unlock, start_anew);
}


void
process_lock(void)
{
    pthread_once(&once, watch_forks);
    lock();
}


void
dumpable_hold(bool hide)
{
    process_lock();
    if (holders++ == 0)
        dumpable = prctl(PR_GET_DUMPABLE);
    if (hide)
        set_dumpable(0);
    process_unlock();
}


void
dumpable_release(void)
{
    process_lock();
    if (--holders == 0)
        set_dumpable(dumpable);
    process_unlock();
}


int
raise_fd(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int result = higher < 0 ? -errno : higher;
    close(fd);
    return result;
}
