#include "module.h"

PyMethodDef call_methods[] = {
    {NULL, NULL, 0, NULL},
};
