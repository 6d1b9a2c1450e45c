/* Credentials and clock offsets of a child; see steps.h for the rules. */
#include "credsteps.h"

#include "compat.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

enum { OVERFLOW_ID = 65534 };

struct caps {
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[2];      /* bits 0-31, 32-63 */
};


/* The capability sets of this thread.  0 or -errno. */
static long
get_caps(struct caps *caps)
{
    memset(caps, 0, sizeof *caps);
    caps->header.version = _LINUX_CAPABILITY_VERSION_3;
    return sc(SYS_capget, (long)&caps->header, (long)caps->data, 0, 0, 0, 0);
}


/* Give this thread those capability sets.  0 or -errno. */
static long
set_caps(struct caps *caps)
{
    return sc(SYS_capset, (long)&caps->header, (long)caps->data, 0, 0, 0, 0);
}


/* drop_groups(): no supplementary groups, where that is allowed: a user
 * namespace whose setgroups is "deny" refuses, and has none to give away. */
long
step_drop_groups(struct run *run, const long *arg)
{
    (void)run;
    (void)arg;
    long result = sc(SYS_setgroups, 0, 0, 0, 0, 0, 0);
    return result == -EPERM ? 0 : result;
}


/* adopt_root(): in a user namespace that was joined, an id without a name
 * there becomes 0, where 0 is mapped; without it exec would drop every
 * capability and no file could be made. */
long
step_adopt_root(struct run *run, const long *arg)
{
    if (sc(SYS_geteuid, 0, 0, 0, 0, 0, 0) != OVERFLOW_ID)
        return 0;
    step_drop_groups(run, arg);
    long result = 0;
    if (sc(SYS_getegid, 0, 0, 0, 0, 0, 0) == OVERFLOW_ID)
        result = sc(SYS_setresgid, 0, 0, 0, 0, 0, 0);
    if (result == 0 || result == -EINVAL)
        result = sc(SYS_setresuid, 0, 0, 0, 0, 0, 0);
    return result == -EINVAL ? 0 : result;
}


/* clear_inheritable(): no capability passes through exec of a program with
 * file capabilities unless the recipe asked (CVE-2022-29162 and its kin). */
long
step_clear_inheritable(struct run *run, const long *arg)
{
    (void)run;
    (void)arg;
    struct caps caps;
    long result = get_caps(&caps);
    if (result < 0 || !(caps.data[0].inheritable | caps.data[1].inheritable))
        return result;
    caps.data[0].inheritable = caps.data[1].inheritable = 0;
    return set_caps(&caps);
}


/* Without new privileges exec does not give root back what it has not. */
void
shed_rights(void)
{
    struct caps caps;
    sc(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
    if (get_caps(&caps) < 0)
        return;
    caps.data[0].permitted &= 1u << CAP_KILL;
    caps.data[0].effective = caps.data[0].permitted;
    caps.data[0].inheritable = 0;
    memset(&caps.data[1], 0, sizeof caps.data[1]);
    set_caps(&caps);
}


/* raise_ambient(mask, exact): inheritable and ambient become mask.  With
 * exact 0 only what is permitted is taken, else a missing one is -EPERM. */
long
step_raise_ambient(struct run *run, const long *arg)
{
    (void)run;
    struct caps caps;
    long result = get_caps(&caps);
    if (result < 0)
        return result;
    uint64_t permitted = caps.data[0].permitted
                         | (uint64_t)caps.data[1].permitted << 32;
    uint64_t wanted = (uint64_t)arg[0];
    if (arg[1] && wanted & ~permitted)
        return -EPERM;
    wanted &= permitted;
    for (int i = 0; i < 2; i++) {
        caps.data[i].inheritable = (uint32_t)(wanted >> 32 * i);
        caps.data[i].effective = caps.data[i].permitted;
    }
    result = set_caps(&caps);
    for (long cap = 0; cap < 64 && result >= 0; cap++)
        if (wanted >> cap & 1)
            result = sc(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap,
                        0, 0, 0);
    return result;
}


/* The file of this thread's clock offsets, which only /proc/TID has.  The
 * number is the one this /proc knows us by: in a new PID namespace with an old
 * /proc gettid() would be another's.  0 or -errno. */
static long
offsets_path(char path[96])
{
    char link[64];
    long n = sc(SYS_readlinkat, AT_FDCWD, (long)"/proc/thread-self",
                (long)link, sizeof link - 1, 0, 0);
    if (n < 0)
        return n;
    link[n] = '\0';
    const char *tid = link;
    for (const char *c = link; *c; c++)
        if (*c == '/')
            tid = c + 1;
    strcat(strcat(strcpy(path, "/proc/"), tid), "/timens_offsets");
    return 0;
}


/* open_offsets(): a descriptor to write them by. */
long
step_open_offsets(struct run *run, const long *arg)
{
    (void)arg;
    char path[96];
    long result = offsets_path(path);
    return result < 0 ? result : open_own_proc(run, path);
}


void
keep_admin(void)
{
    sc(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0, 0);
}


int
carry_admin(void)
{
    struct caps caps;
    unsigned admin = 1u << CAP_SYS_ADMIN;
    int carried = 0;
    if (sc(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SYS_ADMIN, 0,
           0, 0)
            == 1
        || get_caps(&caps) < 0)
        return 0;
    if (!(caps.data[0].inheritable & admin))
        carried |= 2;
    caps.data[0].inheritable |= admin;
    if (set_caps(&caps) == 0
        && sc(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN,
              0, 0, 0)
               == 0)
        carried |= 1;
    return carried;
}


/* join_cgroup(fd): write 0 to a cgroup.procs, and to nothing that is merely
 * called so: a link in its place would have us damage another file. */
long
step_join_cgroup(struct run *run, const long *arg)
{
    (void)run;
    struct statfs fs;
    long result = sc(SYS_fstatfs, arg[0], (long)&fs, 0, 0, 0, 0);
    if (result < 0)
        return result;
    if (fs.f_type != NSU_CGROUP2_MAGIC && fs.f_type != NSU_CGROUP_MAGIC)
        return -ENODEV;
    return sc(SYS_write, arg[0], (long)"0", 1, 0, 0, 0);
}
