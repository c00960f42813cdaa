/* SPDX-License-Identifier: MIT */
/* A datagram of the process connector. */
#include "common/util.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/netlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct netlink_walk walk = {data, size};
	const struct nlmsghdr *h;

	while ((h = netlink_next(&walk))) {
		struct connector_event ev;

		if ((const uint8_t *)h + h->nlmsg_len > data + size)
			abort();
		if (connector_parse(h, &ev) == 0 && ev.kind == CONNECTOR_FORK && ev.tgid <= 0)
			abort();
	}
	return 0;
}
