/* nsutil-init's reader of a list of children: the program itself without its
 * beginning, which is not C, and with system calls that targets.c answers.
 * Its headers are the kernel's and go with none of libc. */
#include "../../src/rawcall.h"

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/wait.h>

long fuzz_init_call(long number, long a, long b);
void fuzz_kill_listed(const char *text, const char *end);

#define __asm__(text) _Static_assert(1, text)
#define raw_syscall(number, a, b, c, d, e, f)                                 \
    ((void)(c), (void)(d), (void)(e), fuzz_init_call(number, a, b))
#include "../../src/init.c"


void
fuzz_kill_listed(const char *text, const char *end)
{
    kill_listed(text, end);
}
