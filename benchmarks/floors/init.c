/* The least PID 1: wait for one child and end as it did. */
#include "nolibc.h"


int
run(void)
{
    int status = 0;
    long pid = call(SYS_wait4, -1, (long)&status, 0, 0);
    return pid < 0 || status & 0x7f ? 1 : status >> 8 & 0xff;
}
