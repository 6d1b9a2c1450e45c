/* The types behind `with Namespace(...)`: Guard (guard.c) is one entered
 * block and how it is left, Block (block.c) the recipe's way in. */
#ifndef NSUTIL_GUARD_H
#define NSUTIL_GUARD_H

#include "module.h"
#include "nsthread.h"

typedef struct {
    PyObject_HEAD
    PyObject *recipe;           /* the Block this guard belongs to */
    struct block *block;        /* while inside; on the stack of its thread,
                                   whom alone it may lead anywhere */
    _Atomic uint64_t owner;     /* that thread and process; 0: not inside */
#ifndef Py_LIMITED_API
    vectorcallfunc call;        /* leaves, without a tuple of arguments */
#endif
} GuardObject;

/* Call a function of nsutil._blocks that makes and raises an error, with
 * arguments as Py_BuildValue takes them.  NULL always, an exception set. */
PyObject *raise_from_python(const char *function, const char *format, ...);

/* Leave the blocks of this thread whose guards died on another one.  0, or
 * -1 with RestoreError set. */
int leave_orphans(void);

/* Make the two each other's; the block is the calling thread's. */
void guard_link(GuardObject *guard, struct block *block, bool keep);

/* The guard for an entry of that recipe on this thread.  A new reference, or
 * NULL with an exception set; *is_new when nobody else keeps it. */
GuardObject *guard_for(struct module_state *state, PyObject *recipe,
                       bool *is_new);

#endif
