/* Messages between a process and its forked children: a header, then length
 * bytes, over a pipe or a stream socket. */
#ifndef NSUTIL_MESSAGE_H
#define NSUTIL_MESSAGE_H

#include <stdint.h>

enum message_kind {
    MESSAGE_FAILED = 1,         /* struct failure: a step of the set-up */
    MESSAGE_READY = 2,          /* the id maps may be written now */
    MESSAGE_PYTHON = 16         /* from here on: nsutil/_outcome.py */
};

struct message_header {
    uint32_t kind;
    uint32_t unused;
    uint64_t length;
};

struct failure {
    int32_t plan, step, error;
};

#endif
