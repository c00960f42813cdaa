/* SPDX-License-Identifier: MIT */
#include "host-receiver/control/client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>

#include "common/util.h"

static int unavailable(const char *verb, const char *path, const char *what)
{
	fprintf(stderr, "%s: %s: %s: %s\n", verb, path, what, strerror(errno));
	return errno == EACCES || errno == EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

/*
 * A socket with a time limit is not restarted after SIGSTOP and SIGCONT (^Z and fg): signal(7). So
 * each call here is repeated after EINTR.
 */
static int connect_once(int fd, const struct sockaddr_un *address)
{
	int r;

	do
		r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	while (r < 0 && errno == EINTR);
	return r;
}

static int connect_to(const char *verb, const char *path, int *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct timeval within = {.tv_sec = CONTROL_ANSWER_WITHIN_S};
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path)) {
		fprintf(stderr, "%s: %s: a socket's path has at most 107 bytes\n", verb, path);
		return EX_USAGE;
	}
	strcpy(address.sun_path, path);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &within, sizeof(within)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &within, sizeof(within)) < 0 ||
	    connect_once(fd, &address) < 0)
		return unavailable(verb, path, "cannot reach the daemon; is it running?");
	*ret = take_fd(&fd);
	return EX_OK;
}

static size_t read_some(void *buffer, size_t size, void *arg)
{
	const int *fd = arg;
	ssize_t n;

	do
		n = recv(*fd, buffer, size, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? (size_t)-1 : (size_t)n;
}

/*
 * A daemon that refuses the client may already have answered and closed. Then this fails, but the
 * answer can still be read.
 */
static void send_line(int fd, const char *line, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, line, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		line += n;
		len -= (size_t)n;
	}
}

static int judge(const char *verb, const json_t *answer)
{
	const char *error = json_string_value(json_object_get(answer, "error"));
	const json_t *status = json_object_get(answer, "status");

	if (json_is_true(json_object_get(answer, "ok")))
		return EX_OK;
	fprintf(stderr, "%s: %s\n", verb, error ? error : "the daemon refused");
	return json_is_integer(status) ? (int)json_integer_value(status) : EXIT_FAILURE;
}

int control_ask(const char *verb, const char *path, const json_t *request, json_t **ret)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *line = json_dumps(request, JSON_COMPACT);
	json_error_t error;
	json_t *answer;
	size_t len;
	int status;

	if (!line)
		return EX_OSERR;
	status = connect_to(verb, path, &fd);
	if (status != EX_OK)
		return status;
	len = strlen(line);
	line[len] = '\n';
	send_line(fd, line, len + 1);
	answer = json_load_callback(read_some, &fd, JSON_DISABLE_EOF_CHECK, &error);
	if (!answer) {
		fprintf(stderr, "%s: %s: no answer from the daemon: %s\n", verb, path, error.text);
		return EX_UNAVAILABLE;
	}
	status = judge(verb, answer);
	if (status == EX_OK)
		*ret = answer;
	else
		json_decref(answer);
	return status;
}
