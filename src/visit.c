/* A look into another namespace from a thread of its own; see visit.h. */
#include "visit.h"

#include "apart.h"
#include "compat.h"
#include "nsthread.h"

#include <errno.h>
#include <unistd.h>

/* What the thread and its maker share. */
struct journey {
    struct visit *visit;
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
static void
travel(void *arg)
{
    struct journey *journey = arg;
    journey->result = go(journey->visit);
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
    struct journey journey = {.visit = visit};
    visit->stranded = 0;
    int error = run_on_thread(travel, &journey);
    if (error == 0)
        return journey.result;
    /* No thread can be made while the next child's PID namespace is another
     * one.  A mount namespace would cut this thread off from the others. */
    if (visit->type != CLONE_NEWNS)
        return go_and_return(visit);
    visit->step = "start a thread";
    return -error;
}
