/* SPDX-License-Identifier: MIT */
/*
 * The little of netlink(7) that the sources need, without a library: open and bind, who sent a
 * datagram, how many the kernel dropped, and a walk over the messages of one.
 *
 * The walk is pure and accepts any bytes. No allocation; safe on any thread.
 */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A non-blocking socket of the protocol, bound to the mask of multicast groups (0: none), its
 * receive buffer raised to rcvbuf bytes past rmem_max where CAP_NET_ADMIN allows it, else as far
 * as it goes. Returns the descriptor or a negative errno, with the failing call in *ret_step.
 */
int netlink_open(int protocol, uint32_t groups, int rcvbuf, const char **ret_step);

/* Datagrams that this socket had no room for since it was opened, modulo 2^32. 0 or -errno. */
int netlink_drops(int fd, uint32_t *ret);

struct netlink_walk {
	const uint8_t *data;
	size_t left;
};

/* The next message whose header and length fit into the datagram, or NULL. Alignment is checked. */
const struct nlmsghdr *netlink_next(struct netlink_walk *walk);

static inline const void *netlink_payload(const struct nlmsghdr *h)
{
	return (const uint8_t *)h + NLMSG_HDRLEN;
}

static inline size_t netlink_payload_len(const struct nlmsghdr *h)
{
	return h->nlmsg_len - NLMSG_HDRLEN;
}
