/* The floor of a program in namespaces: one clone that shares memory, the
 * set-up in the child, exec, wait. */
#include "floors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

extern char **environ;

enum { STACK = 32 * 1024 };

struct job {
    char *program, *init;
    uint64_t types;
    int options, target;
    char uid_map[32], gid_map[32];
    sigset_t signals;
    int error; /* the child shares it */
};

/* The kernel's struct clone_args, first version. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack,
        stack_size, tls;
};


#if defined(__x86_64__)
/* clone3(2) into body(job), which does not return. */
static long
clone_into(struct clone3_args *args, void (*body)(struct job *),
           struct job *job)
{
    register long result __asm__("rax") = SYS_clone3;
    register void (*function)(struct job *) __asm__("r8") = body;
    register struct job *given __asm__("r9") = job;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "+r"(result)
                     : "D"(args), "S"(sizeof *args), "r"(function), "r"(given)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(__aarch64__)
/* The same. */
static long
clone_into(struct clone3_args *args, void (*body)(struct job *),
           struct job *job)
{
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof *args;
    register void (*function)(struct job *) __asm__("x10") = body;
    register struct job *given __asm__("x11") = job;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x30, #0\n\t"
                     "mov x0, x11\n\t"
                     "blr x10\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(result)
                     : "r"(number), "r"(size), "r"(function), "r"(given)
                     : "memory", "cc");
    return result;
}
#else
#error "the floors know x86_64 and aarch64"
#endif


/* Start a child on that stack.  Its pid, or -errno. */
static long
start(struct job *job, void (*body)(struct job *), uint64_t flags, char *stack,
      int *pidfd)
{
    struct clone3_args args = {
        .flags = flags | CLONE_VM | CLONE_VFORK | (pidfd ? CLONE_PIDFD : 0),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = STACK,
    };
    return clone_into(&args, body, job);
}


/* In a child: it ends, and the parent learns why. */
static _Noreturn void
fail(struct job *job)
{
    job->error = errno;
    _exit(127);
}


static void
write_file(struct job *job, const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(job);
    close(fd);
}


static void
write_maps(struct job *job)
{
    write_file(job, "/proc/self/setgroups", "deny");
    write_file(job, "/proc/self/uid_map", job->uid_map);
    write_file(job, "/proc/self/gid_map", job->gid_map);
}


/* What the defaults of a recipe stand for. */
static void
set_up(struct job *job)
{
    if (job->types & CLONE_NEWNET && set_loopback_up() < 0)
        fail(job);
    if (job->types & CLONE_NEWNS
        && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fail(job);
}


static void
mount_proc(struct job *job)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("proc", "/proc", "proc", flags, NULL) < 0)
        fail(job);
}


static void
be_program(struct job *job)
{
    char *const argv[] = {job->program, NULL};
    sigprocmask(SIG_SETMASK, &job->signals, NULL);
    execve(job->program, argv, environ);
    fail(job);
}


/* PID 1: start the program, become the one that waits for it. */
static void
be_init(struct job *job)
{
    static _Thread_local char stack[STACK] __attribute__((aligned(16)));
    char *const argv[] = {job->init, NULL}, *const envp[] = {NULL};
    long pid = start(job, be_program, 0, stack, NULL);
    if (pid < 0)
        errno = (int)-pid;
    else
        execve(job->init, argv, envp);
    fail(job);
}


static void
first(struct job *job)
{
    if (job->target >= 0 && setns(job->target, 0) < 0)
        fail(job);
    if (job->options & MAPPED)
        write_maps(job);
    if (job->options & SETUP)
        set_up(job);
    if (job->options & PROC)
        mount_proc(job);
    if (job->options & INIT)
        be_init(job);
    be_program(job);
}


/* One program from start to end.  0 or -errno. */
static int
spawn(struct job *job)
{
    static _Thread_local char stack[STACK] __attribute__((aligned(16)));
    sigset_t all;
    int pidfd = -1, status;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &job->signals);
    job->error = 0;
    long pid = start(job, first, job->types, stack, &pidfd);
    pthread_sigmask(SIG_SETMASK, &job->signals, NULL);
    if (pid < 0)
        return (int)pid;
    close(pidfd);
    if (waitpid((pid_t)pid, &status, 0) < 0)
        return -errno;
    return job->error ? -job->error : status ? -ECHILD : 0;
}


/* A job for that program; the ids are the caller's. */
static struct job
job_of(char *program, char *init, uint64_t types, int options, int target)
{
    struct job job = {program, init, types, options, target, "", "", {{0}}, 0};
    int uid = (int)geteuid(), gid = (int)getegid();
    snprintf(job.uid_map, sizeof job.uid_map, "%d %d 1\n", uid, uid);
    snprintf(job.gid_map, sizeof job.gid_map, "%d %d 1\n", gid, gid);
    return job;
}


int64_t
floor_spawn(char *program, char *init, uint64_t types, int options, int target,
            int64_t rounds)
{
    struct job job = job_of(program, init, types, options, target);
    int64_t began = now();
    for (int64_t i = 0; i < rounds; i++) {
        int error = spawn(&job);
        if (error)
            return error;
    }
    return now() - began;
}


/* A thread that spawns until the time is over. */
struct spawner {
    pthread_t thread;
    struct job job;
    int64_t until, count;
};

static void *
spawn_until(void *argument)
{
    struct spawner *spawner = argument;
    while (now() < spawner->until && spawn(&spawner->job) == 0)
        spawner->count++;
    return NULL;
}


/* How many in that time, or -errno. */
int64_t
floor_throughput(char *program, uint64_t types, int threads,
                 int64_t nanoseconds)
{
    struct spawner spawners[16];
    int64_t count = 0;
    if (threads > 16)
        return -EINVAL;
    for (int i = 0; i < threads; i++) {
        spawners[i].job = job_of(program, NULL, types, 0, -1);
        spawners[i].until = now() + nanoseconds;
        spawners[i].count = 0;
        int error = pthread_create(&spawners[i].thread, NULL, spawn_until,
                                   &spawners[i]);
        if (error)
            return -error;
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(spawners[i].thread, NULL);
        count += spawners[i].count;
    }
    return count;
}
