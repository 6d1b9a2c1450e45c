/* Composite steps for credentials and clocks; see steps.h for the rules. */
#ifndef NSUTIL_CREDSTEPS_H
#define NSUTIL_CREDSTEPS_H

#include "steps.h"

long step_adopt_root(struct run *run, const long *arg);
long step_clear_inheritable(struct run *run, const long *arg);
long step_drop_groups(struct run *run, const long *arg);
long step_join_cgroup(struct run *run, const long *arg);
long step_open_offsets(struct run *run, const long *arg);
long step_raise_ambient(struct run *run, const long *arg);

/* Of a process that is going to be nsutil-init: keep no right but that to
 * signal others, also over exec.  Root inside can trace PID 1; it must not
 * find there what the recipe has taken from it.  What nobody may do is left
 * undone: with fewer rights there is less to keep. */
void shed_rights(void);

/* A TIME namespace is joined after an exec: CAP_SYS_ADMIN must get that far,
 * and a change of uid or an exec without uid 0 takes it.  Before the
 * credentials: keep the permitted set over a change of uid.  After them: make
 * it ambient; what nsutil-init is to take back: 1 ambient, 2 inheritable.
 * Where that fails, joining will say EPERM. */
void keep_admin(void);
int carry_admin(void);

#define CREDENTIAL_OPS                                                        \
    COMPOSITE(adopt_root, 0), COMPOSITE(clear_inheritable, 0),                \
    COMPOSITE(drop_groups, 0), COMPOSITE(join_cgroup, 1),                     \
    COMPOSITE_OPENER(open_offsets, 0), COMPOSITE(raise_ambient, 2),

#endif
