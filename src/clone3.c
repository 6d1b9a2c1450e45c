/* clone3(2) for the first child of a spawn; see clone3.h.
 *
 * What it buys over libc's clone(): CLONE_CLEAR_SIGHAND does in the kernel
 * what takes the child a system call for each of 64 signals. */
#include "clone3.h"

#include "compat.h"

#include <errno.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL /* 5.5 */
#endif

/* The first version of the kernel's struct clone_args. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack,
        stack_size, tls;
};


#if defined(__x86_64__)
/* The system call.  The child starts on an empty stack, where nothing of this
 * function's frame exists: it must not come back here, so all it needs is in
 * registers, and it ends with what body returns. */
static long
clone3(struct clone3_args *args, int (*body)(void *), void *argument)
{
    register long result __asm__("rax") = SYS_clone3;
    register int (*function)(void *) __asm__("r8") = body;
    register void *given __asm__("r9") = argument;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov %[exit], %%eax\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "+r"(result)
                     : "D"(args), "S"(sizeof *args), "r"(function),
                       "r"(given), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(__aarch64__)
/* The same. */
static long
clone3(struct clone3_args *args, int (*body)(void *), void *argument)
{
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof *args;
    register int (*function)(void *) __asm__("x10") = body;
    register void *given __asm__("x11") = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x30, #0\n\t"
                     "mov x0, x11\n\t"
                     "blr x10\n\t"
                     "mov x8, %[exit]\n\t"
                     "svc #0\n"
                     "1:"
                     : "+r"(result)
                     : "r"(size), "r"(number), "r"(function),
                       "r"(given), [exit] "i"(SYS_exit)
                     : "memory", "cc");
    return result;
}
#else
/* None here. */
static long
clone3(struct clone3_args *args, int (*body)(void *), void *argument)
{
    (void)args;
    (void)body;
    (void)argument;
    return -ENOSYS;
}
#endif


long
clone_clear_signals(int (*body)(void *), void *argument, unsigned long flags,
                    char *stack, size_t size, int *pidfd)
{
    struct clone3_args args = {
        .flags = flags | CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = size,
    };
    return clone3(&args, body, argument);
}
