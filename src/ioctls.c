#include "module.h"

PyMethodDef ioctl_methods[] = {
    {NULL, NULL, 0, NULL},
};
