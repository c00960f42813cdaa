/* SPDX-License-Identifier: MIT */
/* `auditrules`: prints how many audit rules the kernel has, and whether audit is enabled (0, 1, 2).
 */
#include <linux/audit.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

static _Alignas(8) uint8_t buf[16384];

static void ask(int fd, uint16_t type)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct nlmsghdr h = {
		.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST};

	if (sendto(fd, &h, sizeof(h), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
		perror("auditrules");
		exit(1);
	}
}

int main(void)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	struct audit_status status;
	unsigned rules = 0;

	ask(fd, AUDIT_LIST_RULES);
	while (recv(fd, buf, sizeof(buf), 0) > 0 && h->nlmsg_type != NLMSG_DONE)
		rules += h->nlmsg_type == AUDIT_LIST_RULES;
	ask(fd, AUDIT_GET);
	while (recv(fd, buf, sizeof(buf), 0) > 0 && h->nlmsg_type != AUDIT_GET)
		;
	memcpy(&status, NLMSG_DATA(h), sizeof(status));
	printf("%u %u\n", rules, status.enabled);
	return 0;
}
