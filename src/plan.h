/* _ns.Plan: the Python side of a struct plan. */
#ifndef NSUTIL_PLAN_H
#define NSUTIL_PLAN_H

#include "module.h"
#include "steps.h"

/* The plan inside a _ns.Plan (borrowed), or NULL with TypeError set. */
const struct plan *plan_of(PyObject *module, PyObject *object);

/* Preset the slots of a fresh run from a sequence of ints or objects with
 * fileno() (NULL or None: none), the rest to -1.  0, or -1 with an exception
 * set.  run_preset_for: the run of that plan only, which may use no slot. */
int run_preset(struct run *run, PyObject *slots);
int run_preset_for(const struct plan *plan, struct run *run, PyObject *slots);

#endif
