/* The C parts without Python on another libc or machine: a plan in this
 * process ("executor"), and spawns with and without PID 1 ("spawn"). */
#include "spawn.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static struct step steps[16];
static int count;


/* Append a step of that op. */
static void
add(const char *op, long a, long b, long c, long d, long e)
{
    struct step *step = &steps[count++];
    memset(step, 0, sizeof *step);
    step->op = find_op(op);
    if (step->op == NULL) {
        printf("no op %s\n", op);
        exit(2);
    }
    step->out = -1;
    step->arg[0] = a;
    step->arg[1] = b;
    step->arg[2] = c;
    step->arg[3] = d;
    step->arg[4] = e;
}


/* A run with empty slots. */
static void
reset(struct run *run)
{
    memset(run, 0, sizeof *run);
    for (int i = 0; i < RUN_SLOTS; i++)
        run->slot[i] = -1;
}


/* Steps of every sort, and one that must fail. */
static int
executor(void)
{
    char name[64] = "";
    struct run run;
    reset(&run);
    add("unshare", CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWNS, 0, 0, 0, 0);
    add("propagation", MS_REC | MS_PRIVATE, 0, 0, 0, 0);
    add("sethostname", (long)"platform", 8, 0, 0, 0);
    add("ifup", (long)"lo", 0, 0, 0, 0);
    add("mount", (long)"none", (long)"/mnt", (long)"tmpfs", 0, 0);
    add("clear_inheritable", 0, 0, 0, 0, 0);
    add("chdir", (long)"/not/there", 0, 0, 0, 0);
    struct plan plan = {.count = count, .steps = steps, .slots = RUN_SLOTS};
    int error = run_steps(&plan, &run);
    gethostname(name, sizeof name);
    printf("step %d errno %d host %s\n", run.step, error, name);
    return 0;
}


#ifndef NO_SPAWN
/* Run sh -c script in namespaces; its wait status, or what failed. */
static void
run_script(unsigned long flags, bool init, const char *script)
{
    static char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    char *const argv[] = {"sh", "-c", (char *)script, NULL};
    char *const candidates[] = {"/no/sh", "/bin/sh", NULL};
    int keep[2], status = -1, reported = -1;
    struct spawn s;
    memset(&s, 0, sizeof s);
    reset(&s.run);
    s.program = (struct program){.argv = argv,
                                 .envp = environment,
                                 .candidates = candidates,
                                 .redirect = {-1, -1, -1},
                                 .keep = keep,
                                 .close_others = true,
                                 .time_fd = -1};
    s.flags = flags;
    s.init = init;
    s.end_signal = init ? 9 : 0;
    s.ready_fd = s.answer_fd = s.answer_peer = -1;
    if (spawn(&s) < 0) {
        printf("part %d step %d errno %d\n", s.run.plan, s.run.step,
               s.run.error);
        return;
    }
    waitpid(s.pid, &status, __WALL);
    if (s.status_fd >= 0
        && read(s.status_fd, &reported, sizeof reported) == sizeof reported)
        status = reported;
    printf("status %x\n", (unsigned)status);
}
#endif


int
main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1 && strcmp(argv[1], "executor") == 0)
        return executor();
#ifndef NO_SPAWN
    run_script(0, false, "exit 7");
    run_script(CLONE_NEWUTS, false, "kill -9 $$");
    run_script(CLONE_NEWPID, false, "echo pid $$; exit 3");
    run_script(CLONE_NEWPID, true, "echo pid $$; exit 137");
    run_script(CLONE_NEWPID | CLONE_NEWUTS, true, "kill -15 $$");
#endif
    return 0;
}
