/* What calls.c leaves to files of its own. */
#ifndef NSUTIL_CALLS_H
#define NSUTIL_CALLS_H

#include "module.h"

/* Fork a child that goes on in Python in new namespaces (clone.c): its pid,
 * 0 in the child, or NULL with an exception set and no child left. */
PyObject *clone_child(PyObject *module, int flags);

#endif
