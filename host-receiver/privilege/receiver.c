/* SPDX-License-Identifier: MIT */
#include "host-receiver/privilege/receiver.h"

#include <linux/capability.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "seccomp/receiver_filter.h"

/* The counters of nftables need it. */
#define RECEIVER_CAPABILITIES (UINT64_C(1) << CAP_NET_ADMIN)

int receiver_give_up(const struct process_users *users)
{
	int r = 0;

	confine_bounding_set(RECEIVER_CAPABILITIES);
	if (users->separate)
		r = users_become(&users->receiver, true, true);
	if (r == 0)
		r = confine_capabilities(RECEIVER_CAPABILITIES);
	return r < 0 ? r : confine_no_new_privileges();
}

int receiver_limit_calls(void)
{
	return receiver_filter_install();
}
