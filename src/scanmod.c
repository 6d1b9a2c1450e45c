#include "module.h"

PyMethodDef scan_methods[] = {
    {NULL, NULL, 0, NULL},
};
