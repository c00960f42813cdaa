/* SPDX-License-Identifier: MIT */
/*
 * `vm`: how a script in the guest talks to the test on the host, over a connection through the
 * relay. One request a connection, one line of answer.
 *
 *	vm say NAME [TEXT...]	the test sees mark NAME with TEXT
 *	vm await NAME		waits until the test tells NAME; minutes, if it must
 *	vm put FILE [NAME]	the test gets the bytes of FILE (- is standard input)
 *	vm idle PID		waits until a process has nothing left to do: idle.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util.h"
#include "guest.h"

int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int ctl_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = VM_CONTROL_PATH};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return take_fd(&fd);
}

static int send_file(int fd, const char *path)
{
	_cleanup_close_ int opened = -1;
	int from = STDIN_FILENO;
	char buffer[16384];

	if (strcmp(path, "-") != 0) {
		from = opened = open(path, O_RDONLY | O_CLOEXEC);
		if (opened < 0)
			return -errno;
	}
	for (;;) {
		ssize_t n = read(from, buffer, sizeof(buffer));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		r = write_all(fd, buffer, (size_t)n);
		if (r < 0)
			return r;
	}
}

int ctl_main(int argc, char **argv)
{
	_cleanup_close_ int fd = -1;
	char line[4096] = "", answer[256];
	size_t got = 0;
	int r;

	if (argc < 3 || (strcmp(argv[1], "say") != 0 && strcmp(argv[1], "await") != 0 &&
			 strcmp(argv[1], "put") != 0)) {
		fprintf(stderr, "usage: vm say NAME [TEXT...] | await NAME | "
				"put FILE [NAME]\n");
		return 64;
	}
	fd = ctl_connect();
	if (fd < 0) {
		fprintf(stderr, "vm: %s: %s\n", VM_CONTROL_PATH, strerror(-fd));
		return 1;
	}

	if (strcmp(argv[1], "put") == 0) {
		snprintf(line, sizeof(line), "put %s\n", argv[argc > 3 ? 3 : 2]);
	} else {
		size_t len = 0;

		for (int i = 1; i < argc && len < sizeof(line); i++)
			len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%c", argv[i],
						i + 1 < argc ? ' ' : '\n');
		if (len >= sizeof(line)) {
			fprintf(stderr, "vm: the request is longer than %zu bytes\n", sizeof(line));
			return 64;
		}
	}
	r = write_all(fd, line, strlen(line));
	if (r >= 0 && strcmp(argv[1], "put") == 0)
		r = send_file(fd, argv[2]);
	if (r < 0) {
		fprintf(stderr, "vm: %s %s: %s\n", argv[1], argv[2], strerror(-r));
		return 1;
	}
	shutdown(fd, SHUT_WR);

	while (got < sizeof(answer) - 1) {
		ssize_t n = read(fd, answer + got, sizeof(answer) - 1 - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	answer[got] = '\0';
	if (strcmp(answer, "ok\n") == 0)
		return 0;
	fprintf(stderr, "vm: %s %s: %s", argv[1], argv[2], got ? answer : "no answer\n");
	return 1;
}
