/* SPDX-License-Identifier: MIT */
#include "seccomp/forwarder_filter.h"

#include "seccomp/own_filter.h"
#if defined(__x86_64__)
#include "forwarder_x86_64.h"
#elif defined(__aarch64__)
#include "forwarder_aarch64.h"
#else
#error "no filter for this architecture: add it to the policy compiler"
#endif

int forwarder_filter_install(void)
{
	return own_filter_install(&forwarder_filter);
}
