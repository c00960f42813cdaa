/* SPDX-License-Identifier: MIT */
/*
 * `auditd-like`: enables audit and is its daemon until SIGTERM, as auditd(8) is. Exits 0 if it
 * still was the daemon at the end, else 1. Reads and forgets the records.
 */
#include <linux/audit.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

static volatile sig_atomic_t ended;
static _Alignas(8) uint8_t buf[16384];

static void on_term(_unused_ int sig)
{
	ended = 1;
}

static void ask(int fd, uint16_t type, const struct audit_status *status)
{
	struct nlmsghdr h = {.nlmsg_len = NLMSG_HDRLEN + (status ? sizeof(*status) : 0),
			     .nlmsg_type = type,
			     .nlmsg_flags = NLM_F_REQUEST};

	memcpy(buf, &h, sizeof(h));
	if (status)
		memcpy(buf + NLMSG_HDRLEN, status, sizeof(*status));
	if (send(fd, buf, h.nlmsg_len, 0) < 0) {
		perror("auditd-like");
		exit(1);
	}
}

int main(void)
{
	const struct audit_status on = {.mask = AUDIT_STATUS_PID | AUDIT_STATUS_ENABLED,
					.pid = (uint32_t)getpid(),
					.enabled = 1};
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	const struct sigaction sa = {.sa_handler = on_term};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	int control = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	struct audit_status status;

	sigaction(SIGTERM, &sa, NULL);
	ask(fd, AUDIT_SET, &on);
	while (!ended) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};

		if (poll(&pfd, 1, 100) > 0)
			(void)!recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	}
	ask(control, AUDIT_GET, NULL);
	while (recv(control, buf, sizeof(buf), 0) > 0 && h->nlmsg_type != AUDIT_GET)
		;
	memcpy(&status, NLMSG_DATA(h), sizeof(status));
	return status.pid == (uint32_t)getpid() ? 0 : 1;
}
