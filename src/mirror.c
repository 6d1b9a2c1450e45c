/* A process that waits for one child and ends as it does; see mirror.h. */
#include "mirror.h"

#include "closefds.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>


/* Die of that signal, without a core: the child has left its own. */
static _Noreturn void
die_of(int number)
{
    const struct rlimit none = {0, 0};
    sigset_t only;
    setrlimit(RLIMIT_CORE, &none);
    signal(number, SIG_DFL);
    kill(getpid(), number);
    sigemptyset(&only);
    sigaddset(&only, number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    _exit(128 + number);        /* PID 1 of a namespace can't be killed */
}


/* End as the child did, if it has. */
static void
end_as(pid_t child)
{
    int status;
    pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == 0)
        return;
    if (ended < 0)
        _exit(127);
    if (WIFSIGNALED(status))
        die_of(WTERMSIG(status));
    _exit(WEXITSTATUS(status));
}


_Noreturn void
mirror(pid_t child)
{
    sigset_t all;
    siginfo_t info;
    prctl(PR_SET_NAME, "nsutil-waiter");
    close_others(0, NULL, 0, false);
    sigfillset(&all);
    for (;;) {
        int number = sigwaitinfo(&all, &info);
        if (number == SIGCHLD)
            end_as(child);
        else if (number > 0 && info.si_code <= 0)
            kill(child, number); /* a terminal has asked both */
    }
}
