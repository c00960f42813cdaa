/* SPDX-License-Identifier: MIT */
/*
 * `vsock-cat [CID] PORT`: standard input to a vsock connection and back, as nc does. The end of
 * input ends that direction only; it ends when the peer does. Exit 0, or 1 with the reason.
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "guest.h"

static int failed(const char *what, int error)
{
	fprintf(stderr, "vsock-cat: %s: %s\n", what, strerror(error));
	return 1;
}

/* What ended a connection that read(2) says is none; also in errno if it is not 0. */
static int pending_error(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error == 0)
		return 0;
	return errno = error;
}

int vsock_cat_main(int argc, char **argv)
{
	struct sockaddr_vm address = {.svm_family = AF_VSOCK};
	_cleanup_close_ int fd = -1;
	uint64_t cid = VMADDR_CID_HOST, port;
	/* The kernel's own is two seconds, which a busy machine may need. */
	const struct timeval patience = {.tv_sec = 120};
	struct pollfd fds[2];
	char buffer[16384];

	if (argc < 2 || argc > 3 || parse_u64(argv[argc - 1], 0, UINT32_MAX, &port) < 0 ||
	    (argc == 3 && parse_u64(argv[1], 0, UINT32_MAX, &cid) < 0)) {
		fprintf(stderr, "usage: vsock-cat [CID] PORT\n");
		return 64;
	}
	address.svm_cid = (unsigned)cid;
	address.svm_port = (unsigned)port;
	signal(SIGPIPE, SIG_IGN);
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience,
				 sizeof(patience)) < 0)
		return failed("socket", errno);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return failed("connect", errno);

	fds[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = fd, .events = POLLIN};
	for (;;) {
		ssize_t n;
		int r;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			return failed("poll", errno);
		if (fds[0].revents) {
			n = read(STDIN_FILENO, buffer, sizeof(buffer));
			if (n < 0)
				return failed("standard input", errno);
			if (n == 0) {
				shutdown(fd, SHUT_WR);
				fds[0].fd = -1;
			}
			r = write_all(fd, buffer, (size_t)n);
			if (r < 0)
				return failed("send", -r);
		}
		if (fds[1].revents) {
			n = read(fd, buffer, sizeof(buffer));
			if (n < 0 && errno == ENOTCONN && pending_error(fd) == 0)
				return 0; /* ended by the peer between poll and read */
			if (n < 0)
				return failed("receive", errno);
			if (n == 0)
				return 0;
			r = write_all(STDOUT_FILENO, buffer, (size_t)n);
			if (r < 0)
				return failed("standard output", -r);
		}
	}
}
