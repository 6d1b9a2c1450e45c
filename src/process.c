#include "module.h"

PyMethodDef process_methods[] = {
    {NULL, NULL, 0, NULL},
};
