/* Included before everything else of what is fuzzed: its system calls are
 * answered from the input of the fuzzer (kernel.c). */
#ifndef NSUTIL_FUZZ_KERNEL_H
#define NSUTIL_FUZZ_KERNEL_H

#include "../../src/compat.h"
#include "../../src/steps.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

/* Answer from these bytes.  Text: all of it is what the files hold, and what
 * is no text is as on a healthy machine; else each answer is made of the
 * next bytes.  pieces: how many bytes a read gives at most, 0: all. */
void fuzz_begin(const unsigned char *data, size_t size, bool text,
                size_t pieces);

/* What was opened has to be closed, and the umask to be what it was. */
void fuzz_end(void);

/* What fsconfig(2) was told since fuzz_begin(): "key=value,flag,". */
const char *fuzz_configured(void);

int fuzz_open(void);
int fuzz_close(int fd);
ssize_t fuzz_read(void *buffer, size_t size);
ssize_t fuzz_readlink(char *buffer, size_t size);
int fuzz_stat(struct stat *st);
int fuzz_statfs(struct statfs *fs);
int fuzz_ioctl(unsigned long request, void *answer);
long fuzz_syscall(long number, long b, long c);
long fuzz_sc(long number, long a, long b, long c, long d, long e);
void *fuzz_memory(void *old, size_t size);

#ifndef NSUTIL_FUZZ_KERNEL
#define open(...) fuzz_open()
#define openat(...) fuzz_open()
#define close(fd) fuzz_close(fd)
#define read(fd, buffer, size) fuzz_read(buffer, size)
#define readlinkat(dir, name, buffer, size) fuzz_readlink(buffer, size)
#define fstat(fd, st) fuzz_stat(st)
#define fstatat(dir, name, st, flags) fuzz_stat(st)
#define fstatfs(fd, fs) fuzz_statfs(fs)
#define getpid() 77
#define realloc(old, size) fuzz_memory(old, size)
#define calloc(count, size) fuzz_memory(NULL, (count) * (size))

/* With as many arguments as the call takes. */
#define ioctl(fd, ...) FUZZ_IOCTL(__VA_ARGS__, NULL, NULL)
#define FUZZ_IOCTL(request, answer, ...)                                      \
    fuzz_ioctl(request, (void *)(uintptr_t)(answer))
#define syscall(...) FUZZ_SYSCALL(__VA_ARGS__, 0, 0, 0, 0, 0)
#define FUZZ_SYSCALL(number, a, b, c, ...)                                    \
    fuzz_syscall(number, (long)(b), (long)(c))
#define sc(number, a, b, c, d, e, f) fuzz_sc(number, a, b, (long)(c), d, e)
#endif

#endif
