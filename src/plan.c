#include "module.h"

PyMethodDef plan_methods[] = {
    {NULL, NULL, 0, NULL},
};


int
plan_add_types(PyObject *module, struct module_state *state)
{
    (void)module;
    (void)state;
    return 0;
}
