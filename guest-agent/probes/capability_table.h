/* SPDX-License-Identifier: MIT */
/*
 * Which capability a refused system call lacked, and the names of system calls and capabilities.
 * Static tables, pure; safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYSCALL_NAME_MAX 48u

/*
 * The CAP_* that the kernel wanted when the native system call nr with the first argument a0 failed
 * with error (EPERM or EACCES, positive), or -1 where the call does not imply one.
 */
int capability_of_syscall(long nr, uint64_t a0, int error);

/* "CAP_SYS_ADMIN"; NULL beyond the last one known. */
const char *capability_name(int capability);

/*
 * The name of a system call of arch (AUDIT_ARCH_*: the native one, or the 32-bit one of the same
 * machine); "#NR" if it has no name here. buf holds a name that is made up.
 */
const char *syscall_name(uint32_t arch, long nr, char buf[static SYSCALL_NAME_MAX]);

/* The same with the ABI where it is not the native one: "i386:socket", "x32:socket", "arm:socket".
 */
const char *syscall_name_abi(uint32_t arch, long nr, char buf[static SYSCALL_NAME_MAX]);

/* Whether a call (arch, nr) is one of another ABI than native's. */
bool syscall_is_foreign(uint32_t arch, long nr, uint32_t native);

/* The native number of a call, or -1. */
long syscall_number(const char *name);

/* AUDIT_ARCH_* of this build. */
uint32_t syscall_native_arch(void);
/* AUDIT_ARCH_* of the 32-bit calls of this machine. */
uint32_t syscall_compat_arch(void);

/* "EPERM", "EACCES", "ENOSYS" and a few more; NULL for others. error is positive. */
const char *error_name(int error);
