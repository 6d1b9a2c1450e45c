/* Waiting up to a deadline, while Python's signal handlers run. */
#ifndef NSUTIL_AWAIT_H
#define NSUTIL_AWAIT_H

#include "module.h"

#include <poll.h>

/* On CLOCK_MONOTONIC, in nanoseconds; negative: wait for ever. */
typedef long long deadline_t;
enum { NO_DEADLINE = -1 };

/* For O& of PyArg_ParseTuple: the deadline_t of a timeout in seconds or None;
 * one that is over where it is negative.  1, or 0 with an exception set. */
int take_timeout(PyObject *timeout, void *deadline);

/* poll(2) without the GIL, until something happens: how many, 0 at the
 * deadline, or -1 with an exception set, a signal handler's or OSError. */
int await_events(struct pollfd *entries, nfds_t count, deadline_t deadline);

/* The same for the end of a process, until it can be reaped if it is a child
 * of ours: 1, 0 at the deadline, or -1. */
int await_end(int pidfd, deadline_t deadline);

#endif
