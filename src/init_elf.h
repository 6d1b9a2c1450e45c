/* PID 1 of a new PID namespace, a static program, as bytes.
 *
 * setup.py compiles src/init.c and generates the definitions; the size is 0
 * on machines that src/init.c does not know. */
#ifndef NSUTIL_INIT_ELF_H
#define NSUTIL_INIT_ELF_H

extern const unsigned char init_elf[];
extern const unsigned int init_elf_size;

#endif
