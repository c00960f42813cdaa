/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/segment.h"

#define BUFFER_SIZE (4u * EVIDENCE_LINE_MAX)

struct evidence_reader {
	int dir_fd, fd; /* fd -1: the segment of `at` is not open */
	struct evidence_position at, end;
	/*
	 * Bytes of the segment from at.offset on. They are dropped if they hold no whole line,
	 * because the writer may take back lines that are not committed.
	 */
	size_t first, len;
	bool skipping; /* inside a line that is too long */
	char buf[BUFFER_SIZE];
};

int evidence_reader_open(const char *dir, const struct evidence_position *from,
			 struct evidence_reader **ret)
{
	struct evidence_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->fd = -1;
	reader->at = from ? *from : (struct evidence_position){0};
	reader->end = (struct evidence_position){.segment = UINT64_MAX, .offset = UINT64_MAX};
	reader->first = reader->len = 0;
	reader->skipping = false;
	reader->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (reader->dir_fd < 0) {
		int r = -errno;

		free(reader);
		return r;
	}
	*ret = reader;
	return 0;
}

void evidence_reader_close(struct evidence_reader *reader)
{
	if (!reader)
		return;
	close_fd(reader->fd);
	close_fd(reader->dir_fd);
	free(reader);
}

/*
 * Find the segment with the smallest number >= min, and the largest number of all. Returns 1, 0 if
 * there is none from min on, or a negative errno.
 */
static int find_segments(struct evidence_reader *reader, uint64_t min, uint64_t *ret_next,
			 uint64_t *ret_last)
{
	int fd = openat(reader->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint64_t number, next = 0, last = 0;
	bool found = false;
	int r;

	if (!dir) {
		r = -errno;
		close_fd(fd);
		return r;
	}
	while ((errno = 0, entry = readdir(dir))) {
		if (!segment_parse_name(entry->d_name, &number))
			continue;
		last = MAX(last, number);
		if (number >= min && (!found || number < next)) {
			next = number;
			found = true;
		}
	}
	r = -errno;
	closedir(dir);
	if (r < 0)
		return r;
	*ret_next = next;
	*ret_last = last;
	return found;
}

static int open_segment(struct evidence_reader *reader, uint64_t number, uint64_t offset)
{
	char name[SEGMENT_NAME_MAX];
	struct stat st;
	int fd;

	segment_format_name(number, name);
	/* Non-blocking, because opening a FIFO with a segment's name would block. */
	fd = openat(reader->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close_fd(fd);
		return -EINVAL;
	}
	close_fd(reader->fd);
	reader->fd = fd;
	reader->at = (struct evidence_position){.segment = number, .offset = offset};
	reader->first = reader->len = 0;
	reader->skipping = false;
	return 0;
}

/*
 * Returns 1 when a segment is open, 0 when there is none yet, -ENODATA when segments are missing.
 */
static int open_current(struct evidence_reader *reader)
{
	uint64_t next, last, wanted = reader->at.segment;
	int r;

	if (reader->fd >= 0)
		return 1;
	r = find_segments(reader, wanted, &next, &last);
	if (r <= 0 || next > reader->end.segment)
		return MIN(r, 0);
	r = open_segment(reader, next, next == wanted ? reader->at.offset : 0);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return reader->at.segment != wanted && wanted > 1 ? -ENODATA : 1;
}

/* How many bytes of the current segment may be read from this offset on. */
static uint64_t allowed(const struct evidence_reader *reader, uint64_t offset)
{
	if (reader->at.segment != reader->end.segment)
		return reader->at.segment < reader->end.segment ? UINT64_MAX : 0;
	return reader->end.offset > offset ? reader->end.offset - offset : 0;
}

/* Read more bytes to the end of the buffer. Returns how many. */
static ssize_t fill(struct evidence_reader *reader)
{
	const uint64_t offset = reader->at.offset + reader->len;
	const size_t size =
		(size_t)MIN((uint64_t)(BUFFER_SIZE - reader->len), allowed(reader, offset));
	ssize_t n;

	if (reader->first > 0) {
		memmove(reader->buf, reader->buf + reader->first, reader->len);
		reader->first = 0;
	}
	do
		n = pread(reader->fd, reader->buf + reader->len, size, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	reader->len += (size_t)n;
	return n;
}

static void pass(struct evidence_reader *reader, size_t n)
{
	reader->first += n;
	reader->len -= n;
	reader->at.offset += n;
}

/* Returns 1 and the line, 0 if it is not complete yet, or -EMSGSIZE. */
static int take_line(struct evidence_reader *reader, const char **ret_line, size_t *ret_len)
{
	const char *begin = reader->buf + reader->first;
	const char *end = memchr(begin, '\n', reader->len);
	const size_t len = end ? (size_t)(end - begin) + 1 : reader->len;

	if (!end) {
		if (len <= EVIDENCE_LINE_MAX && !reader->skipping)
			return 0;
		pass(reader, len);
		reader->skipping = true;
		return 0;
	}
	pass(reader, len);
	if (reader->skipping || len > EVIDENCE_LINE_MAX) {
		reader->skipping = false;
		return -EMSGSIZE;
	}
	*ret_line = begin;
	*ret_len = len - 1;
	return 1;
}

/*
 * This segment has no more lines. If another segment follows, this one cannot grow any more; but it
 * may have grown between the two checks, so it is read once more. Returns 1 to continue.
 */
static int follow(struct evidence_reader *reader, bool *seen_next)
{
	uint64_t next, last;
	int r = find_segments(reader, reader->at.segment + 1, &next, &last);

	if (r <= 0 || next > reader->end.segment)
		return MIN(r, 0);
	if (!*seen_next) {
		*seen_next = true;
		return 1;
	}
	*seen_next = false;
	r = open_segment(reader, next, 0);
	if (r < 0)
		return r == -ENOENT ? 1 : r;
	return 1;
}

int evidence_reader_next(struct evidence_reader *reader, const char **ret_line, size_t *ret_len)
{
	bool seen_next = false;
	int r;

	r = open_current(reader);
	if (r <= 0)
		return r;
	for (;;) {
		const uint64_t segment = reader->at.segment;
		ssize_t n;

		r = take_line(reader, ret_line, ret_len);
		if (r != 0)
			return r;
		/* Usually the reader has read everything: do not list the folder then. */
		if (segment == reader->end.segment &&
		    allowed(reader, reader->at.offset + reader->len) == 0) {
			reader->first = reader->len = 0;
			return 0;
		}
		n = fill(reader);
		if (n < 0)
			return (int)n;
		if (n > 0)
			continue;
		reader->first = reader->len = 0;
		r = follow(reader, &seen_next);
		if (r <= 0)
			return r;
		if (reader->at.segment > segment + 1)
			return -ENODATA;
	}
}

struct evidence_position evidence_reader_position(const struct evidence_reader *reader)
{
	return reader->at;
}

void evidence_reader_set_end(struct evidence_reader *reader, const struct evidence_position *end)
{
	reader->end = *end;
}

int evidence_reader_seek_end(struct evidence_reader *reader)
{
	uint64_t next, last;
	struct stat st;
	int r = find_segments(reader, 0, &next, &last);

	if (r <= 0)
		return r;
	r = open_segment(reader, last, 0);
	if (r < 0)
		return r;
	if (fstat(reader->fd, &st) < 0)
		return -errno;
	/* If the last line is not complete yet, reading begins inside it and skips its rest. */
	reader->at.offset = (uint64_t)st.st_size;
	return 0;
}
