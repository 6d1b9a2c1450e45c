/* src/init.c, a static program without libc, as bytes.
 *
 * setup.py compiles src/init.c and generates the definitions; the size is 0
 * on machines that src/init.c does not know.  Its arguments are described
 * there.
 */
#ifndef NSUTIL_INIT_ELF_H
#define NSUTIL_INIT_ELF_H

extern const unsigned char init_elf[];
extern const unsigned int init_elf_size;

/* The first int of what the "s" job writes on failure; the second is errno. */
enum { STAGE_JOIN_TIME = 1, STAGE_EXEC = 2 };

#endif
