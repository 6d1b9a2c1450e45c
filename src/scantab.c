/* The tables of a scan: what was found, and where it is. */
#include "scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>


/* Make place for one more item.  0, or -1 with scan->error set. */
static int
reserve(struct scan *scan, void *table, size_t *room, size_t used, size_t size)
{
    void **items = table;
    if (used < *room)
        return 0;
    size_t more = *room ? *room * 2 : 64;
    void *grown = realloc(*items, more * size);
    if (grown == NULL) {
        scan->error = ENOMEM;
        return -1;
    }
    *items = grown;
    *room = more;
    return 0;
}


/* Namespace and socket inodes count upwards: multiply, take the top. */
static size_t
slot_of(const struct scan_map *map, uint64_t key)
{
    size_t mask = map->room - 1;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (map->slots[2 * at] != 0 && map->slots[2 * at] != key)
        at = (at + 1) & mask;
    return at;
}


/* Double the map.  0, or -1 with scan->error set. */
static int
grow_map(struct scan *scan, struct scan_map *map)
{
    struct scan_map bigger = {.room = map->room ? map->room * 2 : 256};
    bigger.slots = calloc(bigger.room, 2 * sizeof *bigger.slots);
    if (bigger.slots == NULL) {
        scan->error = ENOMEM;
        return -1;
    }
    for (size_t i = 0; i < map->room; i++)
        if (map->slots[2 * i] != 0) {
            size_t at = slot_of(&bigger, map->slots[2 * i]);
            bigger.slots[2 * at] = map->slots[2 * i];
            bigger.slots[2 * at + 1] = map->slots[2 * i + 1];
        }
    bigger.used = map->used;
    free(map->slots);
    *map = bigger;
    return 0;
}


/* The value of a key, 0 when it is new, to be read or written before the
 * next call.  NULL with scan->error set. */
uint64_t *
scan_at(struct scan *scan, struct scan_map *map, uint64_t key)
{
    if (2 * map->used >= map->room && grow_map(scan, map) < 0)
        return NULL;
    size_t at = slot_of(map, key);
    if (map->slots[2 * at] == 0) {
        map->slots[2 * at] = key;
        map->used++;
    }
    return &map->slots[2 * at + 1];
}


/* The index of a namespace's row, which is made when it is new.  An inode that
 * was of another type until now was given away meanwhile: the row of the
 * namespace that ended is stale.  -1 with scan->error set; and for 0, which
 * is no inode and would be no key of the table. */
long
scan_intern(struct scan *scan, int type, uint64_t inode)
{
    if (inode == 0)
        return -1;
    uint64_t *index = scan_at(scan, &scan->row_of, inode);
    if (index == NULL)
        return -1;
    if (*index != 0) {
        struct ns_row *known = &scan->rows[*index - 1];
        if (known->type == type)
            return (long)*index - 1;
        known->stale = 1;
        scan->nstale++;
    }
    if (reserve(scan, &scan->rows, &scan->row_room, scan->nrows,
                sizeof *scan->rows)
        < 0)
        return -1;
    scan->rows[scan->nrows++] =
        (struct ns_row){.inode = inode, .type = type, .owner_uid = -1};
    *index = scan->nrows;
    return (long)*index - 1;
}


/* Copy text and say where it went. */
size_t
scan_text(struct scan *scan, const char *text, size_t length)
{
    size_t at = scan->ntext;
    while (scan->text_room < at + length)
        if (reserve(scan, &scan->text, &scan->text_room, scan->text_room, 1)
            < 0)
            return 0;
    if (length)
        memcpy(scan->text + at, text, length);
    scan->ntext += length;
    return at;
}


/* Note who holds something. */
void
scan_hold(struct scan *scan, struct scan_holder holder)
{
    if (reserve(scan, &scan->holders, &scan->holder_room, scan->nholders,
                sizeof *scan->holders)
        == 0)
        scan->holders[scan->nholders++] = holder;
}


/* Note what a process tells about itself. */
void
scan_add_detail(struct scan *scan, struct scan_detail detail)
{
    if (reserve(scan, &scan->details, &scan->detail_room, scan->ndetails,
                sizeof *scan->details)
        == 0)
        scan->details[scan->ndetails++] = detail;
}


/* Note what a process is in. */
void
scan_add_process(struct scan *scan, const struct scan_process *process)
{
    if (reserve(scan, &scan->processes, &scan->process_room, scan->nprocesses,
                sizeof *scan->processes)
        == 0)
        scan->processes[scan->nprocesses++] = *process;
}


/* Note what was refused.  That a process is gone is no refusal. */
void
scan_deny(struct scan *scan, struct scan_unseen unseen)
{
    if (unseen.error == ENOENT || unseen.error == ESRCH)
        return;
    if (reserve(scan, &scan->unseen, &scan->unseen_room, scan->nunseen,
                sizeof *scan->unseen)
        == 0)
        scan->unseen[scan->nunseen++] = unseen;
}


/* For qsort: the order in which namespaces are listed. */
static int
by_type_and_inode(const void *a, const void *b)
{
    const struct ns_row *x = a, *y = b;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}


/* For qsort: by kind, then by where it is. */
static int
by_holder(const void *a, const void *b)
{
    const struct scan_holder *x = a, *y = b;
    const int order[][2] = {{x->kind, y->kind},
                            {x->pid, y->pid},
                            {x->tid, y->tid},
                            {x->fd, y->fd}};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (order[i][0] != order[i][1])
            return order[i][0] < order[i][1] ? -1 : 1;
    return x->text < y->text ? -1 : x->text > y->text;
}


/* The row of that inode if it is of that type, or NULL: what had it ended. */
static struct ns_row *
current_row(struct scan *scan, int type, uint64_t inode)
{
    size_t at = slot_of(&scan->row_of, inode);
    struct ns_row *row = &scan->rows[scan->row_of.slots[2 * at + 1] - 1];
    return row->type == type ? row : NULL;
}


/* Count anew who is where, without what ended during the pass. */
static void
recount(struct scan *scan)
{
    for (size_t i = 0; i < scan->nrows; i++)
        scan->rows[i].nprocs = scan->rows[i].pid = 0;
    for (size_t i = 0; i < scan->nprocesses; i++)
        for (int t = 0; t < NS_TYPES; t++) {
            uint64_t *inode = &scan->processes[i].inode[t];
            if (*inode == 0)
                continue;
            struct ns_row *row = current_row(scan, t, *inode);
            if (row == NULL) {
                *inode = 0;
                continue;
            }
            row->nprocs++;
            if (row->pid == 0)
                row->pid = (int)scan->processes[i].pid;
        }
}


/* Leave out the namespaces that ended during the pass and whose inodes are
 * others' now, and who held them. */
static void
drop_stale(struct scan *scan)
{
    size_t kept = 0;
    recount(scan);
    for (size_t i = 0; i < scan->nholders; i++)
        if (current_row(scan, scan->holders[i].type, scan->holders[i].inode))
            scan->holders[kept++] = scan->holders[i];
    scan->nholders = kept;
    kept = 0;
    for (size_t i = 0; i < scan->nrows; i++)
        if (!scan->rows[i].stale)
            scan->rows[kept++] = scan->rows[i];
    scan->nrows = kept;
}


/* Put rows and holders in order, each inode once; scan_intern() can't be used
 * after it. */
void
scan_sort(struct scan *scan)
{
    if (scan->nstale)
        drop_stale(scan);
    if (scan->nrows)
        qsort(scan->rows, scan->nrows, sizeof *scan->rows, by_type_and_inode);
    if (scan->nholders)
        qsort(scan->holders, scan->nholders, sizeof *scan->holders, by_holder);
}
