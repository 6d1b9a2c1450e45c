/* sleepers N: N processes that sleep, each in UTS and IPC namespaces of its
 * own, until standard input ends.  Prints a line once all are there. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>


/* One of them.  Its pid, or -1. */
static pid_t
start(void)
{
    const long flags = CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD;
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}


int
main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, made = 0;
    pid_t *pids = calloc((size_t)count + 1, sizeof *pids);
    char byte;
    while (pids && made < count && (pids[made] = start()) > 0)
        made++;
    if (made == count)
        puts("ready");
    else
        fprintf(stderr, "sleepers: %d of %d: %s\n", made, count,
                strerror(errno));
    fflush(stdout);
    while (made == count && read(STDIN_FILENO, &byte, 1) > 0)
        ;
    for (int i = 0; i < made; i++)
        kill(pids[i], SIGKILL);
    for (int i = 0; i < made; i++)
        waitpid(pids[i], NULL, 0);
    free(pids);
    return made == count ? 0 : 1;
}
