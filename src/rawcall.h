/* A system call without libc, for the architectures that nsutil-init runs on:
 * shared by the executor (steps.c) and the embedded program (init.c). */
#ifndef NSUTIL_RAWCALL_H
#define NSUTIL_RAWCALL_H

/* An analyzer takes the assembler for something that changes no memory, and
 * knows better of a function that it does not see. */
#if defined(__clang_analyzer__)
#elif defined(__x86_64__)
#define HAVE_RAW_SYSCALL 1
/* The kernel's value, -errno on failure; no errno, no libc. */
static inline long
raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                       "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define HAVE_RAW_SYSCALL 1
/* Likewise. */
static inline long
raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#endif

#endif
