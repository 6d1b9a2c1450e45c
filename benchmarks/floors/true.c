/* A program that only ends. */
#include "nolibc.h"


int
run(void)
{
    return 0;
}
