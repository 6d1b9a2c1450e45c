/* What the system calls alone cost: the same sequences as nsutil's, in C and
 * in a loop.  Built as a shared library and called through ctypes, in the
 * process that runs the other methods, so that both have the same parent, the
 * same memory and the same CPU.
 *
 * The functions that measure return nanoseconds for all rounds together, or
 * -errno of the first call that failed. */
#ifndef FLOORS_H
#define FLOORS_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* What the recipe's defaults add to the bare namespaces. */
enum {
    MAPPED = 1, /* own id to itself, as the child itself may */
    SETUP = 2, /* private mounts, lo up */
    PROC = 4, /* a new /proc */
    INIT = 8 /* another program is PID 1 and waits */
};

/* Blocks: into the types and back.  target: a descriptor to join, or -1 for
 * new ones; setup as above. */
int64_t floor_block(int types, int target, int setup, int64_t rounds);

/* Programs: start, wait.  target: a namespace to join first, or -1. */
int64_t floor_spawn(char *program, char *init, uint64_t types, int options,
                    int target, int64_t rounds);

/* Spawns per second with that many threads. */
int64_t floor_throughput(char *program, uint64_t types, int threads,
                         int64_t nanoseconds);

/* All processes and their eight namespaces. */
int64_t floor_scan(int64_t rounds);

/* Named network namespaces, DIRECTORY/0 and so on. */
int64_t floor_names_create(const char *directory, int loopback, int64_t count);
int64_t floor_names_delete(const char *directory, int64_t count);

/* For the others: set lo up in the current network namespace.  0 or -errno. */
int set_loopback_up(void);

/* The clock of all figures. */
static inline int64_t
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

#endif
