/* _ns.scan and _ns.scan_details: scan.c's arrays as Python objects, as few as
 * will do.  A namespace is a key: type << KEY_SHIFT | inode. */
#include "module.h"
#include "scan.h"

#include <errno.h>

enum { KEY_SHIFT = 48 };        /* inodes of nsfs have 32 bits */


static uint64_t
key_of(int type, uint64_t inode)
{
    return (uint64_t)type << KEY_SHIFT | inode;
}


/* dict[key] = value; takes the reference to value, which may be NULL.  0, or
 * -1 with an exception set. */
static int
put(PyObject *dict, PyObject *key, PyObject *value)
{
    int result = key && value ? PyDict_SetItem(dict, key, value) : -1;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}


/* list[i] = item, which may be NULL.  0, or -1 with an exception set. */
static int
place(PyObject *list, size_t i, PyObject *item)
{
    return item ? PyList_SetItem(list, (Py_ssize_t)i, item) : -1;
}


/* {key: (nprocs, lowest pid)}, by type and inode. */
static PyObject *
build_counts(const struct scan *scan)
{
    PyObject *counts = PyDict_New();
    for (size_t i = 0; counts && i < scan->nrows; i++) {
        const struct ns_row *row = &scan->rows[i];
        if (put(counts,
                PyLong_FromUnsignedLongLong(key_of(row->type, row->inode)),
                Py_BuildValue("(ii)", row->nprocs, row->pid))
            < 0)
            Py_CLEAR(counts);
    }
    return counts;
}


/* {key: (id, owner's inode, parent's inode, owner_uid)} of those that could
 * be read. */
static PyObject *
build_relations(const struct scan *scan)
{
    PyObject *relations = PyDict_New();
    for (size_t i = 0; relations && i < scan->nrows; i++) {
        const struct ns_row *row = &scan->rows[i];
        if (row->related
            && put(relations,
                   PyLong_FromUnsignedLongLong(key_of(row->type, row->inode)),
                   Py_BuildValue("(KKKL)", row->id, row->owner, row->parent,
                                 row->owner_uid))
                   < 0)
            Py_CLEAR(relations);
    }
    return relations;
}


/* {pid: (ppid, uid, command)}. */
static PyObject *
build_details(const struct scan *scan)
{
    PyObject *details = PyDict_New();
    for (size_t i = 0; details && i < scan->ndetails; i++) {
        const struct scan_detail *detail = &scan->details[i];
        const char *text = scan->text ? scan->text + detail->text : "";
        PyObject *command = PyUnicode_DecodeUTF8(text,
                                                 (Py_ssize_t)detail->length,
                                                 "backslashreplace");
        if (command == NULL
            || put(details, PyLong_FromLong(detail->pid),
                   Py_BuildValue("(iLN)", detail->ppid, detail->uid, command))
                   < 0)
            Py_CLEAR(details);
    }
    return details;
}


/* [(key, kind, pid, tid, fd, path or None, mount namespace's inode)]. */
static PyObject *
build_holders(const struct scan *scan)
{
    PyObject *holders = PyList_New((Py_ssize_t)scan->nholders);
    for (size_t i = 0; holders && i < scan->nholders; i++) {
        const struct scan_holder *holder = &scan->holders[i];
        PyObject *path =
            holder->kind != HOLD_MOUNT
                ? Py_NewRef(Py_None)
                : PyUnicode_DecodeFSDefaultAndSize(scan->text + holder->text,
                                                   (Py_ssize_t)holder->length);
        PyObject *item =
            path ? Py_BuildValue("(KiiiiNK)",
                                 key_of(holder->type, holder->inode),
                                 holder->kind, holder->pid, holder->tid,
                                 holder->fd, path, holder->mntns)
                 : NULL;
        if (place(holders, i, item) < 0)
            Py_CLEAR(holders);
    }
    return holders;
}


/* [(kind, pid, tid, fd, errno, inode)]. */
static PyObject *
build_unseen(const struct scan *scan)
{
    PyObject *unseen = PyList_New((Py_ssize_t)scan->nunseen);
    for (size_t i = 0; unseen && i < scan->nunseen; i++) {
        const struct scan_unseen *item = &scan->unseen[i];
        if (place(unseen, i,
                  Py_BuildValue("(iiiiiK)", item->kind, item->pid, item->tid,
                                item->fd, item->error, item->inode))
            < 0)
            Py_CLEAR(unseen);
    }
    return unseen;
}


/* What all of it is, once the pass is over. */
static PyObject *
build_all(struct scan *scan)
{
    scan_sort(scan);
    return Py_BuildValue("(KKiNy#NNNN)", (unsigned long long)scan->device,
                         scan->own_mntns, scan->procfs_is_ours,
                         build_counts(scan),
                         scan->nprocesses ? (const char *)scan->processes : "",
                         (Py_ssize_t)(scan->nprocesses
                                      * sizeof *scan->processes),
                         build_relations(scan), build_details(scan),
                         build_holders(scan), build_unseen(scan));
}


/* The result of a pass, or its error; frees the scan. */
static PyObject *
finish(struct scan *scan, int error)
{
    PyObject *result = error == 0        ? build_all(scan)
                       : error == ENOMEM ? PyErr_NoMemory()
                                         : ns_oserror(error, "/proc");
    scan_free(scan);
    return result;
}


PyDoc_STRVAR(scan_doc,
"scan($module, types, flags, /)\n--\n\n"
"One pass over /proc.\n\n"
"types: 1 << index, in the order of names.  flags: 1 threads and\n"
"for_children entries, 2 descriptors, 4 sockets, 8 mounts, 16 without what\n"
"came with Linux 6.8 or later.  Returns (device, inode of the caller's mount\n"
"namespace, whether /proc numbers processes as the caller does, counts,\n"
"processes, relations, details, holders, unseen).  Raises OSError when there\n"
"is no /proc.");

static PyObject *
ns_scan(PyObject *module, PyObject *args)
{
    unsigned types;
    int flags, error;
    struct scan scan;
    (void)module;
    if (!PyArg_ParseTuple(args, "Ii:scan", &types, &flags)
        || ns_audit("nsutil.snapshot", "(Ii)", types, flags) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = scan_all(&scan, types, flags);
    Py_END_ALLOW_THREADS
    return finish(&scan, error);
}


/* The rows that a buffer of int64 pairs (key, pid) stands for, to be freed.
 * NULL with an exception set. */
static struct ns_row *
rows_of(const Py_buffer *buffer, size_t *count)
{
    const int64_t *item = buffer->buf;
    *count = (size_t)buffer->len / (2 * sizeof *item);
    struct ns_row *rows = PyMem_Calloc(*count + 1, sizeof *rows);
    if (rows == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < *count; i++, item += 2) {
        rows[i].type = (int)(item[0] >> KEY_SHIFT) & (NS_TYPES - 1);
        rows[i].inode = (uint64_t)item[0] & ((1ull << KEY_SHIFT) - 1);
        rows[i].pid = (int)item[1];
    }
    return rows;
}


PyDoc_STRVAR(details_doc,
"scan_details($module, rows, flags, /)\n--\n\n"
"Owners, parents and lowest processes of namespaces that scan() found.\n\n"
"rows: int64 pairs (key, pid); key 0 asks for the process alone.  Returns\n"
"what scan() returns.");

static PyObject *
ns_scan_details(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    int flags, error;
    size_t count;
    struct scan scan;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*i:scan_details", &buffer, &flags))
        return NULL;
    struct ns_row *rows = rows_of(&buffer, &count);
    PyBuffer_Release(&buffer);
    if (rows == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = scan_these(&scan, rows, count, flags);
    Py_END_ALLOW_THREADS
    PyMem_Free(rows);
    return finish(&scan, error);
}


PyMethodDef scan_methods[] = {
    {"scan", ns_scan, METH_VARARGS, scan_doc},
    {"scan_details", ns_scan_details, METH_VARARGS, details_doc},
    {NULL, NULL, 0, NULL},
};
