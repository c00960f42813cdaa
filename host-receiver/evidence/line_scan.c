/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/line_scan.h"

#include <fcntl.h>

#include "common/util.h"

#define BUFFER_SIZE (4 * LINE_SCAN_MAX)

int line_scan_init(struct line_scan *s)
{
	*s = (struct line_scan){.fd = -1, .buf = malloc(BUFFER_SIZE)};
	return s->buf ? 0 : -ENOMEM;
}

void line_scan_done(struct line_scan *s)
{
	line_scan_close(s);
	free(take_ptr(s->buf));
}

static int fill(struct line_scan *s)
{
	ssize_t n;

	memmove(s->buf, s->buf + s->begin, s->end - s->begin);
	s->end -= s->begin;
	s->begin = 0;
	do
		n = pread(s->fd, s->buf + s->end, BUFFER_SIZE - s->end, (off_t)s->offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	s->end += (size_t)n;
	s->offset += (uint64_t)n;
	return n > 0;
}

int line_scan_next(struct line_scan *s, struct scan_line *ret)
{
	for (;;) {
		const char *at = s->buf + s->begin;
		const char *newline = memchr(at, '\n', s->end - s->begin);
		const size_t have = newline ? (size_t)(newline - at) : s->end - s->begin;
		int r;

		if (newline) {
			s->begin += have + 1;
			*ret = (struct scan_line){
				.data = at,
				.len = have,
				.end = s->offset - (s->end - s->begin),
				.whole = true,
				.too_long = s->skip || have >= LINE_SCAN_MAX,
				.nul = s->nul || memchr(at, 0, have),
			};
			s->skip = s->nul = false;
			return 1;
		}
		if (have >= LINE_SCAN_MAX) {
			s->skip = true;
			s->nul = s->nul || memchr(at, 0, have);
			s->begin = s->end;
		}
		r = fill(s);
		if (r > 0)
			continue;
		if (r < 0 || (s->begin == s->end && !s->skip))
			return r;
		*ret = (struct scan_line){.data = s->buf, .len = s->end, .end = s->offset};
		s->begin = s->end;
		s->skip = s->nul = false;
		return 1;
	}
}

int line_scan_open(struct line_scan *s, const struct folder *folder, uint64_t number)
{
	char name[SEGMENT_NAME_MAX];

	segment_format_name(number, name);
	s->fd = openat(folder->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	s->offset = 0;
	s->begin = s->end = 0;
	s->skip = s->nul = false;
	return s->fd < 0 ? -errno : 0;
}

void line_scan_close(struct line_scan *s)
{
	close_fd(take_fd(&s->fd));
}
