/* SPDX-License-Identifier: MIT */
#include "seccomp/launcher/launch.h"
#if defined(__x86_64__)
#include "workload_x86_64.h"
#elif defined(__aarch64__)
#include "workload_aarch64.h"
#else
#error "no filter for this architecture: add it to the policy compiler"
#endif

const struct filter_table *launch_table(bool share_pidns)
{
	return share_pidns ? &workload_shared_filter : &workload_filter;
}
