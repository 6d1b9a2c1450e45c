/* Process-wide state of the spawns; see shared.h. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int holders;             /* children that share our memory now */
static int dumpable;            /* the flag before the first of them */

/* Those that hide us, and those that must not be hidden, in the order in which
 * they came: next to take a ticket, next to go on. */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned next, serving;
static int hiding, showing, changing; /* of the holders, what they need */


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
    holders = hiding = showing = changing = 0;
    next = serving = 0;
    changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
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


/* Wait until none of the other kind is there.  Needs the lock. */
static void
await_turn(const int *others)
{
    unsigned ticket = next++;
    while (ticket != serving || *others > 0)
        pthread_cond_wait(&changed, &mutex);
    serving++;
    pthread_cond_broadcast(&changed);
}


/* One holder of that kind more, or less.  Needs the lock. */
static void
count(int needs, int by)
{
    holders += by;
    hiding += needs & HIDE ? by : 0;
    showing += needs & SHOW ? by : 0;
    changing += needs & CHANGE_IDS ? by : 0;
}


void
dumpable_hold(int needs)
{
    process_lock();
    if (needs & HIDE)
        await_turn(&showing);
    else if (needs & SHOW)
        await_turn(&hiding);
    if (holders == 0)
        dumpable = prctl(PR_GET_DUMPABLE);
    count(needs, 1);
    if (hiding)
        set_dumpable(0);
    process_unlock();
}


void
dumpable_release(int needs)
{
    process_lock();
    count(needs, -1);
    if (hiding == 0 && changing == 0)
        set_dumpable(dumpable);
    pthread_cond_broadcast(&changed);
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


bool
is_same_file(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev
           && a.st_ino == b.st_ino;
}
