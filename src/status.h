/* How a child ended. */
#ifndef NSUTIL_STATUS_H
#define NSUTIL_STATUS_H

/* Reap a child: the raw wait status of the program, as nsutil-init reported it
 * where there is one (status_fd, else -1).  STATUS_NOT_YET while the child
 * runs; STATUS_UNKNOWN where it is gone and nobody knows any more. */
enum { STATUS_UNKNOWN = -1, STATUS_NOT_YET = -2 };
int collect_status(int pidfd, int status_fd);

/* The same, but wait for it; STATUS_NOT_YET when a signal came before. */
int await_status(int pidfd, int status_fd);

#endif
