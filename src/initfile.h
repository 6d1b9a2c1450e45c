/* nsutil-init (src/init.c) as something that can be executed. */
#ifndef NSUTIL_INITFILE_H
#define NSUTIL_INITFILE_H

/* A descriptor for execveat(fd, "", argv, envp, AT_EMPTY_PATH), close-on-exec,
 * above 2, for the caller to close.  -errno on failure: -ENOEXEC where no
 * program is embedded for this machine.  Not for use in a vfork child. */
int open_init(void);

#endif
