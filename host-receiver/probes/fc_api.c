/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/fc_api.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/util.h"
#include "host-receiver/probes/probe_file.h"

#define BODY "{\"action_type\": \"FlushMetrics\"}"
_Static_assert(sizeof(BODY) - 1 == 31, "Content-Length says so");

static const char request[] = "PUT /actions HTTP/1.1\r\n"
			      "Host: localhost\r\n"
			      "Accept: application/json\r\n"
			      "Content-Type: application/json\r\n"
			      "Content-Length: 31\r\n"
			      "\r\n" BODY;

/*
 * The address goes through a descriptor of the folder: so it is short, and follows no symbolic
 * link.
 */
static int connect_to(const char *path, int *ret, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	_cleanup_close_ int path_fd = probe_open_path(path, O_PATH);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (fd < 0 || path_fd < 0)
		return probe_explain(why, fd < 0 ? errno : -path_fd, path, "the VMM's API");
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", path_fd);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return probe_explain(why, errno, path, "the VMM's API");
	*ret = take_fd(&fd);
	return 0;
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now_ns;
	int n;

	do {
		now_ns = monotonic_ns();
		if (now_ns >= deadline_ns)
			return -ETIMEDOUT;
		n = poll(&p, 1, (int)((deadline_ns - now_ns) / NSEC_PER_MSEC) + 1);
	} while (n < 0 && errno == EINTR);
	return n > 0 ? 0 : -ETIMEDOUT;
}

static int send_all(int fd, uint64_t deadline_ns)
{
	size_t sent = 0;

	while (sent < sizeof(request) - 1) {
		const ssize_t n =
			send(fd, request + sent, sizeof(request) - 1 - sent, MSG_NOSIGNAL);
		int r;

		if (n >= 0) {
			sent += (size_t)n;
			continue;
		}
		r = errno == EAGAIN ? wait_for(fd, POLLOUT, deadline_ns) : -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

/* The result of an answer that is complete, or that has ended. */
static int receive(int fd, char answer[FC_API_ANSWER_MAX + 1], uint64_t deadline_ns)
{
	size_t len = 0;

	*answer = '\0';
	while (len < FC_API_ANSWER_MAX && !strstr(answer, "\r\n\r\n")) {
		const ssize_t n = recv(fd, answer + len, FC_API_ANSWER_MAX - len, 0);
		int r;

		if (n == 0)
			break;
		if (n > 0) {
			len += (size_t)n;
			answer[len] = '\0';
			continue;
		}
		r = errno == EAGAIN ? wait_for(fd, POLLIN, deadline_ns) : -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

/* The text comes from the VMM: drop its control characters. */
static int refused(const char *path, char *answer, char why[PROBE_WHY_MAX])
{
	char *body = strstr(answer, "\r\n\r\n");

	for (char *p = answer; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = ' ';
	snprintf(why, PROBE_WHY_MAX, "%.160s: the VMM refuses to flush its metrics: %.12s %.120s",
		 path, answer, body ? body + 4 : "");
	return -EPROTO;
}

int fc_api_flush(const char *path, char why[PROBE_WHY_MAX])
{
	const uint64_t deadline_ns = monotonic_ns() + FC_API_TIMEOUT_MS * NSEC_PER_MSEC;
	static const char ok[] = "HTTP/1.1 2";
	char answer[FC_API_ANSWER_MAX + 1];
	_cleanup_close_ int fd = -1;
	int r = connect_to(path, &fd, why);

	if (r < 0)
		return r;
	r = send_all(fd, deadline_ns);
	if (r == 0)
		r = receive(fd, answer, deadline_ns);
	if (r < 0)
		return probe_explain(why, -r, path, "the VMM's API");
	return strncmp(answer, ok, sizeof(ok) - 1) == 0 ? 0 : refused(path, answer, why);
}
