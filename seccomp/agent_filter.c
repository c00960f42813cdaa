/* SPDX-License-Identifier: MIT */
#include "seccomp/agent_filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "common/util.h"
#if defined(__x86_64__)
#include "agent_x86_64.h"
#elif defined(__aarch64__)
#include "agent_aarch64.h"
#else
#error "no filter for this architecture: add it to the policy compiler"
#endif

int agent_filter_install(void)
{
	const struct sock_fprog program = {
		.len = agent_filter.n_program,
		.filter = (struct sock_filter *)agent_filter.program,
	};

#ifdef CELLOS_FOREIGN_RUNTIME
	return 0;
#endif
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
