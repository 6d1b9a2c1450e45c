/* What a kernel without mount_setattr(2) tells of mounts; see submounts.h. */
#include "submounts.h"

#include "compat.h"
#include "procfs.h"
#include "steps.h"

#include <string.h>

/* A file of procfs, read byte by byte. */
struct text {
    long fd, at, length;
    char buffer[1024];
};


/* The next byte, or -1 at the end. */
static int
next(struct text *text)
{
    if (text->at == text->length) {
        text->at = 0;
        text->length = sc(SYS_read, text->fd, (long)text->buffer,
                          sizeof text->buffer, 0, 0, 0);
        if (text->length <= 0) {
            text->length = 0;
            return -1;
        }
    }
    return (unsigned char)text->buffer[text->at++];
}


/* The number that comes next, with the byte behind it taken too; any number
 * if it is too long for one. */
static long
next_number(struct text *text)
{
    unsigned long value = 0;
    int byte;
    while ((byte = next(text)) >= '0' && byte <= '9')
        value = value * 10 + (unsigned long)(byte - '0');
    return (long)value;
}


/* Go behind the end of the line.  Whether there is another one. */
static bool
next_line(struct text *text)
{
    int byte;
    while ((byte = next(text)) >= 0 && byte != '\n')
        ;
    return byte >= 0;
}


/* Whether a file could be opened for reading. */
static bool
open_text(struct text *text, const char *path)
{
    text->at = text->length = 0;
    text->fd = open_proc(path, O_RDONLY);
    return text->fd >= 0;
}


/* The id of the mount that a descriptor is on, or -1. */
static long
mount_id(long fd)
{
    static const char name[] = "mnt_id:\t";
    struct text text;
    char path[48];
    long id = -1;
    if (!open_text(&text, proc_path("/proc/thread-self/fdinfo/", fd, path)))
        return -1;
    do {
        size_t same = 0;
        while (name[same] && next(&text) == name[same])
            same++;
        if (name[same] == '\0')
            id = next_number(&text);
    } while (id < 0 && next_line(&text));
    sc(SYS_close, text.fd, 0, 0, 0, 0, 0);
    return id;
}


const char *
proc_path(const char *prefix, long fd, char path[48])
{
    char digits[12];
    int n = 0;
    do
        digits[n++] = (char)('0' + fd % 10);
    while ((fd /= 10) > 0);
    size_t length = strlen(prefix);
    memcpy(path, prefix, length);
    while (n > 0)
        path[length++] = digits[--n];
    path[length] = '\0';
    return path;
}


bool
may_have_submounts(long mount)
{
    struct text text;
    long id = mount_id(mount);
    if (id < 0 || !open_text(&text, "/proc/thread-self/mountinfo"))
        return true;
    bool found = false, seen = false;
    do {
        long each = next_number(&text);
        seen |= each == id;
        found |= each != id && next_number(&text) == id;
    } while (!found && next_line(&text));
    sc(SYS_close, text.fd, 0, 0, 0, 0, 0);
    return found || !seen;
}
