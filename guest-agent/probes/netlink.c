/* SPDX-License-Identifier: MIT */
/*
 * The little of netlink(7) that the sources need: see netlink.h.
 */
#include "guest-agent/probes/netlink.h"

#include <linux/sock_diag.h>
#include <sys/socket.h>

#include "common/util.h"

int netlink_open(int protocol, uint32_t groups, int rcvbuf, const char **ret_step)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = groups};
	_cleanup_close_ int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

	if (fd < 0) {
		*ret_step = "socket(AF_NETLINK)";
		return -errno;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf, sizeof(rcvbuf)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf)) < 0) {
		*ret_step = "setsockopt(SO_RCVBUF)";
		return -errno;
	}
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		*ret_step = "bind(AF_NETLINK)";
		return -errno;
	}
	return take_fd(&fd);
}

int netlink_drops(int fd, uint32_t *ret)
{
	uint32_t info[SK_MEMINFO_VARS] = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0)
		return -errno;
	if (len < (SK_MEMINFO_DROPS + 1) * sizeof(info[0]))
		return -EOPNOTSUPP;
	*ret = info[SK_MEMINFO_DROPS];
	return 0;
}

const struct nlmsghdr *netlink_next(struct netlink_walk *walk)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)walk->data;
	size_t step;

	if (walk->left < NLMSG_HDRLEN || (uintptr_t)walk->data % NLMSG_ALIGNTO)
		return NULL;
	if (h->nlmsg_len < NLMSG_HDRLEN || h->nlmsg_len > walk->left)
		return NULL;
	step = MIN((size_t)NLMSG_ALIGN(h->nlmsg_len), walk->left);
	walk->data += step;
	walk->left -= step;
	return h;
}
