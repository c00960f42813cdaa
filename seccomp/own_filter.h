/* SPDX-License-Identifier: MIT */
/* Installs a compiled list for the calling process. It needs no_new_privs. */
#pragma once

#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "seccomp/filter.h"

/*
 * Valid for all threads, also for later ones. Returns 0 or a negative errno. Returns 0 and does
 * nothing in builds whose run-time library (sanitizer, coverage) makes calls of its own.
 */
static inline int own_filter_install(const struct filter_table *table)
{
	const struct sock_fprog program = {
		.len = table->n_program,
		.filter = (struct sock_filter *)table->program,
	};

#ifdef CELLOS_FOREIGN_RUNTIME
	return 0;
#endif
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) ==
			       0
		       ? 0
		       : -EPERM;
}
