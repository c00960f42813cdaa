/* SPDX-License-Identifier: MIT */
#include "seccomp/agent_filter.h"

#include "seccomp/own_filter.h"
#if defined(__x86_64__)
#include "agent_x86_64.h"
#elif defined(__aarch64__)
#include "agent_aarch64.h"
#else
#error "no filter for this architecture: add it to the policy compiler"
#endif

int agent_filter_install(void)
{
	return own_filter_install(&agent_filter);
}
