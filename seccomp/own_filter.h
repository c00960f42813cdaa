/* SPDX-License-Identifier: MIT */
/* How a process puts itself under a compiled list, once it has no_new_privs. */
#pragma once

#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "seccomp/filter.h"

/* For all threads, those to come too. Returns 0 or a negative errno; 0 and nothing done in a build
 * whose run-time (sanitizer, coverage) makes calls of its own. */
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
