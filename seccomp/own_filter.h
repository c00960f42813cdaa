/* SPDX-License-Identifier: MIT */
/* Installs a compiled list for the calling process. It needs no_new_privs. */
#pragma once

#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "seccomp/filter.h"

/*
 * The list holds for all threads, also for later ones. Returns 0 or a negative errno. In builds
 * whose run-time library (sanitizer, coverage) makes calls of its own it does nothing.
 */
static inline int own_filter_install(const struct filter_table *table)
{
	const struct sock_fprog program = {
		.len = table->n_program,
		.filter = (struct sock_filter *)table->program,
	};
	long r;

#ifdef CELLOS_FOREIGN_RUNTIME
	return 0;
#endif
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
	if (r < 0)
		return -errno;
	/* The id of a thread that has a filter of its own (seccomp(2)). */
	return r == 0 ? 0 : -EPERM;
}
