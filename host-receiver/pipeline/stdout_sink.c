/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/stdout_sink.h"

#include <poll.h>

#include "common/util.h"

struct stdout_sink {
	struct evidence_sink sink;
	int fd;
	/* What was written of a group that failed half-way: it comes again, and must not be
	 * written twice. */
	size_t done;
};

static int commit(struct evidence_sink *sink, const struct iovec *lines, size_t n, uint64_t n_lines)
{
	struct stdout_sink *s = (struct stdout_sink *)sink;
	size_t skip = s->done;

	(void)n_lines;
	for (size_t i = 0; i < n; i++) {
		size_t at = MIN(skip, lines[i].iov_len);

		skip -= at;
		while (at < lines[i].iov_len) {
			ssize_t w = write(s->fd, (const char *)lines[i].iov_base + at,
					  lines[i].iov_len - at);

			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0 && errno == EAGAIN) {
				poll(&(struct pollfd){.fd = s->fd, .events = POLLOUT}, 1, -1);
				continue;
			}
			if (w < 0)
				return errno == EBADF ? -EPIPE : -errno;
			at += (size_t)w;
			s->done += (size_t)w;
		}
	}
	s->done = 0;
	return 0;
}

static int sink_close(struct evidence_sink *sink)
{
	free(sink);
	return 0;
}

struct evidence_sink *stdout_sink_new(int fd)
{
	static const struct evidence_sink_ops ops = {.commit = commit, .close = sink_close};
	struct stdout_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.ops = &ops;
	s->fd = fd;
	return &s->sink;
}
