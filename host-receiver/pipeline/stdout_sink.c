/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/stdout_sink.h"

#include <limits.h>
#include <poll.h>

#include "common/util.h"
#include "host-receiver/evidence/chain.h"

struct stdout_sink {
	struct evidence_sink sink;
	struct chain chain;
	int fd;
	bool begun; /* the first line of the log was written */
	char first[LINE_OWN_MAX];
	size_t first_len;
	/*
	 * Bytes that were written of a group before it failed. The group comes again, and these
	 * bytes must not be written twice.
	 */
	size_t done;
};

static int write_rest(struct stdout_sink *s, const struct iovec *piece, size_t *skip)
{
	size_t at = MIN(*skip, piece->iov_len);

	*skip -= at;
	while (at < piece->iov_len) {
		ssize_t w = write(s->fd, (const char *)piece->iov_base + at, piece->iov_len - at);

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
	return 0;
}

/* After a failure the rest is written at the next call. */
static int write_pieces(struct stdout_sink *s, const struct iovec *pieces, size_t n)
{
	size_t skip = s->done;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = write_rest(s, &pieces[i], &skip);
	if (r == 0)
		s->done = 0;
	return r;
}

static int begin(struct stdout_sink *s, const char *origin)
{
	struct iovec piece = {.iov_base = s->first};
	int len;

	if (s->begun)
		return 0;
	if (s->done == 0) {
		chain_begin(&s->chain, origin);
		len = chain_segment_line(&s->chain, s->first);
		if (len < 0)
			return len;
		s->first_len = (size_t)len;
	}
	piece.iov_len = s->first_len;
	len = write_pieces(s, &piece, 1);
	s->begun = len == 0;
	return len;
}

static int commit(struct evidence_sink *sink, const struct evidence_group *group)
{
	struct stdout_sink *s = (struct stdout_sink *)sink;
	struct iovec pieces[IOV_MAX];
	size_t n = group->n;
	int r;

	if (n >= IOV_MAX)
		return -EINVAL;
	memcpy(pieces, group->lines, n * sizeof(*pieces));
	if (group->signer) {
		r = begin(s, group->signer->origin);
		if (r == 0)
			r = chain_sign(&s->chain, group, s->chain.frontier.size);
		if (r < 0)
			return r;
		pieces[n++] = (struct iovec){
			.iov_base = s->chain.line,
			.iov_len = s->chain.line_len,
		};
	}
	r = write_pieces(s, pieces, n);
	if (r == 0 && group->signer) {
		chain_accept(&s->chain);
		if (group->ret_checkpoint_len)
			*group->ret_checkpoint_len = s->chain.line_len;
	}
	return r;
}

static int sink_close(struct evidence_sink *sink)
{
	struct stdout_sink *s = (struct stdout_sink *)sink;

	chain_done(&s->chain);
	free(s);
	return 0;
}

struct evidence_sink *stdout_sink_new(int fd)
{
	static const struct evidence_sink_ops ops = {.commit = commit, .close = sink_close};
	struct stdout_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	if (chain_init(&s->chain) < 0) {
		free(s);
		return NULL;
	}
	s->sink.ops = &ops;
	s->fd = fd;
	return &s->sink;
}
