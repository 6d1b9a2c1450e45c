/* Programs without libc: their start costs nothing but the exec. */
#ifndef NOLIBC_H
#define NOLIBC_H

#include <sys/syscall.h>

/* The program; what it returns is its exit status. */
int run(void);


#if defined(__x86_64__)
static inline long
call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall start_c\n");
#elif defined(__aarch64__)
static inline long
call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
                     : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tbl start_c\n");
#else
#error "the floors know x86_64 and aarch64"
#endif


void start_c(void);

void
start_c(void)
{
    call(SYS_exit_group, run(), 0, 0, 0);
    __builtin_unreachable();
}

#endif
