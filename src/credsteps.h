/* Composite steps for credentials and clocks; see steps.h for the rules. */
#ifndef NSUTIL_CREDSTEPS_H
#define NSUTIL_CREDSTEPS_H

#include "steps.h"

long step_adopt_root(struct run *run, const long *arg);
long step_clear_inheritable(struct run *run, const long *arg);
long step_drop_groups(struct run *run, const long *arg);
long step_raise_ambient(struct run *run, const long *arg);
long step_time_offsets(struct run *run, const long *arg);

#define CREDENTIAL_OPS                                                        \
    COMPOSITE(adopt_root, 0), COMPOSITE(clear_inheritable, 0),                \
    COMPOSITE(drop_groups, 0), COMPOSITE(raise_ambient, 2),                   \
    COMPOSITE(time_offsets, 2),

#endif
