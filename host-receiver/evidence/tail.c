/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/tail.h"

#include "common/util.h"

static int read_all(int fd, char *buf, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pread(fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int tail_read(struct tail *tail, int fd, uint64_t size, size_t window)
{
	const size_t len = (size_t)MIN(size, (uint64_t)window);
	const char *newline;
	int r;

	if (len > tail->size) {
		char *p = realloc(tail->buf, len);

		if (!p)
			return -ENOMEM;
		tail->buf = p;
		tail->size = len;
	}
	r = read_all(fd, tail->buf, len, size - len);
	if (r < 0)
		return r;
	tail->len = len;
	tail->whole = len == size;
	newline = tail->whole ? NULL : memchr(tail->buf, '\n', len);
	tail->first = tail->whole ? 0 : newline ? (size_t)(newline + 1 - tail->buf) : len;
	return 0;
}

void tail_free(struct tail *tail)
{
	free(take_ptr(tail->buf));
}

bool tail_line_before(const struct tail *tail, size_t at, struct tail_line *ret)
{
	const char *end, *last;

	if (at <= tail->first)
		return false;
	end = memrchr(tail->buf + tail->first, '\n', at - tail->first);
	if (!end)
		return false;
	ret->end = (size_t)(end - tail->buf);
	last = memrchr(tail->buf + tail->first, '\n', ret->end - tail->first);
	ret->begin = last ? (size_t)(last + 1 - tail->buf) : tail->first;
	return true;
}

bool tail_line_after(const struct tail *tail, size_t at, struct tail_line *ret)
{
	const char *end = at < tail->len ? memchr(tail->buf + at, '\n', tail->len - at) : NULL;

	if (!end)
		return false;
	ret->begin = at;
	ret->end = (size_t)(end - tail->buf);
	return true;
}
