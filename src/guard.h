/* The types behind `with Namespace(...)`; see guard.c. */
#ifndef NSUTIL_GUARD_H
#define NSUTIL_GUARD_H

#include "module.h"
#include "nsthread.h"

/* What Namespace._prepare_block() returns, kept in the recipe. */
struct prepared {
    PyObject *plan;             /* _ns.Plan, or NULL while not prepared */
    PyObject *slots;            /* tuple of descriptors that the plan uses */
    int types;                  /* CLONE_NEW* to save and restore */
    int strict;
    int allow_main_mnt;
};

#endif
