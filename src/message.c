/* _ns.send and _ns.receive: whole messages, without the GIL. */
#include "await.h"
#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BIG_PIPE = 1 << 20, SMALL = 1 << 16 };


/* Write once.  A socket whose reader is gone must not send SIGPIPE, which
 * the program may have left deadly. */
static ssize_t
write_some(int fd, struct iovec *part, int count)
{
    struct msghdr message = {.msg_iov = part, .msg_iovlen = (size_t)count};
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK)
        n = writev(fd, part, count);
    return n;
}


/* Take n written bytes off the parts. */
static void
advance(struct iovec *part, size_t n)
{
    for (int i = 0; i < 2; i++) {
        size_t here = n < part[i].iov_len ? n : part[i].iov_len;
        part[i].iov_base = (char *)part[i].iov_base + here;
        part[i].iov_len -= here;
        n -= here;
    }
}


/* Write all parts.  0, or -1 with an exception set. */
static int
write_all(int fd, struct iovec *part)
{
    while (part[0].iov_len + part[1].iov_len > 0) {
        ssize_t n;
        Py_BEGIN_ALLOW_THREADS
        n = write_some(fd, part, 2);
        Py_END_ALLOW_THREADS
        if (n < 0 && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (n < 0 && PyErr_CheckSignals() < 0)
            return -1;
        if (n > 0)
            advance(part, (size_t)n);
    }
    return 0;
}


/* send(fd, kind, data): returns None.  OSError when the reader is gone. */
static PyObject *
message_send(PyObject *module, PyObject *args)
{
    int fd;
    unsigned kind;
    Py_buffer data;
    (void)module;
    if (!PyArg_ParseTuple(args, "iIy*:send", &fd, &kind, &data))
        return NULL;
    struct message_header header = {kind, 0, (uint64_t)data.len};
    struct iovec part[2] = {{&header, sizeof header},
                            {data.buf, (size_t)data.len}};
    if (data.len > SMALL)       /* no matter if it may not be that large */
        fcntl(fd, F_SETPIPE_SZ, BIG_PIPE);
    int result = write_all(fd, part);
    PyBuffer_Release(&data);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}


/* One message on its way in. */
struct receiver {
    int fd;                     /* where it comes from */
    int watch;                  /* pidfd of the sender, or -1 */
    deadline_t deadline;
};


/* Wait for bytes.  1: there are some, or the end of file; 0: the sender has
 * ended and all it wrote was read (somebody else may hold the pipe open);
 * -1 with an exception set, TimeoutError at the deadline. */
static int
wait_readable(const struct receiver *from)
{
    struct pollfd entry[2] = {{from->fd, POLLIN, 0}, {from->watch, POLLIN, 0}};
    int n = await_events(entry, 2, from->deadline);
    if (n == 0)
        PyErr_SetString(PyExc_TimeoutError, "timed out");
    if (n <= 0)
        return -1;
    /* It may have written between our looks at the two. */
    if (entry[0].revents == 0)
        poll(entry, 1, 0);
    return entry[0].revents != 0;
}


/* Read exactly length bytes: 1, 0 when they do not come any more, or -1 with
 * an exception set. */
static int
read_exactly(const struct receiver *from, char *to, size_t length)
{
    while (length > 0) {
        ssize_t n;
        int ready = wait_readable(from);
        if (ready <= 0)
            return ready;
        Py_BEGIN_ALLOW_THREADS
        n = read(from->fd, to, length);
        Py_END_ALLOW_THREADS
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return 0;
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (n > 0) {
            to += n;
            length -= (size_t)n;
        }
    }
    return 1;
}


/* The bytes of a message, NULL with an exception set or with none set where
 * they do not all come. */
static PyObject *
read_body(const struct receiver *from, uint64_t length)
{
    if (length > PY_SSIZE_T_MAX / 2)    /* room for the object itself */
        return PyErr_NoMemory();
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (body
        && read_exactly(from, PyBytes_AsString(body), (size_t)length) != 1)
        Py_CLEAR(body);
    return body;
}


/* receive(fd, watch, timeout): (kind, bytes), or None when no whole message
 * comes any more. */
static PyObject *
message_receive(PyObject *module, PyObject *args)
{
    struct receiver from = {-1, -1, NO_DEADLINE};
    struct message_header header;
    PyObject *body;
    (void)module;
    if (!PyArg_ParseTuple(args, "i|iO&:receive", &from.fd, &from.watch,
                          take_timeout, &from.deadline))
        return NULL;
    if (from.fd < 0)            /* which poll() would wait for in vain */
        return ns_oserror(EBADF, NULL);
    int got = read_exactly(&from, (char *)&header, sizeof header);
    body = got == 1 ? read_body(&from, header.length) : NULL;
    if (body != NULL)
        return Py_BuildValue("(IN)", header.kind, body);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}


PyMethodDef message_methods[] = {
    {"send", message_send, METH_VARARGS,
     "send($module, fd, kind, data, /)\n--\n\n"
     "Write one message to a pipe or socket."},
    {"receive", message_receive, METH_VARARGS,
     "receive($module, fd, watch=-1, timeout=None, /)\n--\n\n"
     "Read one message: (kind, bytes); None when the writer is gone.\n\n"
     "watch is a pidfd of the writer: others may hold the pipe open."},
    {NULL, NULL, 0, NULL},
};
