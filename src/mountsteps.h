/* Composite steps for mounts; see steps.h for the rules.  MOUNT_OPS is the
 * part of the op table that belongs to them. */
#ifndef NSUTIL_MOUNTSTEPS_H
#define NSUTIL_MOUNTSTEPS_H

#include "steps.h"

#define MOUNT_OPS

#endif
