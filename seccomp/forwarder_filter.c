/* SPDX-License-Identifier: MIT */
#include "seccomp/forwarder_filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "common/util.h"
#if defined(__x86_64__)
#include "forwarder_x86_64.h"
#elif defined(__aarch64__)
#include "forwarder_aarch64.h"
#else
#error "no filter for this architecture: add it to the policy compiler"
#endif

int forwarder_filter_install(void)
{
	const struct sock_fprog program = {
		.len = forwarder_filter.n_program,
		.filter = (struct sock_filter *)forwarder_filter.program,
	};

#ifdef CELLOS_FOREIGN_RUNTIME
	return 0;
#endif
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) ==
			       0
		       ? 0
		       : -EPERM;
}
