/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/segment_io.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"
#include "host-receiver/evidence/segment.h"

#define COPY_SIZE     (256u * 1024u)
#define TORN_NAME_MAX (SEGMENT_NAME_MAX + 48u)
/* Files with moved bytes for one offset; each crash at that offset makes one. */
#define TORN_TRIES 1000u
/* How many names that exist already one call skips when it creates a segment. */
#define NUMBER_TRIES 16u

int segment_create(int dir_fd, uint64_t *number, char name[static SEGMENT_NAME_MAX])
{
	for (unsigned i = 0; i < NUMBER_TRIES; i++) {
		int fd;

		segment_format_name(*number, name);
		fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    EVIDENCE_SEGMENT_MODE);
		if (fd >= 0 || errno != EEXIST)
			return fd < 0 ? -errno : fd;
		++*number;
	}
	return -EEXIST;
}

int segment_write(int fd, const struct iovec *lines, size_t n, uint64_t offset)
{
	struct iovec left[IOV_MAX];
	size_t first = 0;

	memcpy(left, lines, n * sizeof(*left));
	while (first < n) {
		ssize_t written = pwritev(fd, left + first, (int)(n - first), (off_t)offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		offset += (uint64_t)written;
		while (written > 0) {
			const size_t take = MIN((size_t)written, left[first].iov_len);

			left[first].iov_base = (char *)left[first].iov_base + take;
			left[first].iov_len -= take;
			written -= (ssize_t)take;
			if (left[first].iov_len == 0)
				first++;
		}
	}
	return 0;
}

/* Like pread(2), but goes on after a signal. */
static ssize_t read_at(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, buf, len, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int segment_compare(int fd, const struct iovec *lines, size_t n, uint64_t offset)
{
	_cleanup_free_ char *buf = malloc(COPY_SIZE);

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		for (size_t at = 0; at < lines[i].iov_len;) {
			const size_t want = MIN(lines[i].iov_len - at, (size_t)COPY_SIZE);
			const ssize_t have = read_at(fd, buf, want, offset);

			if (have < 0)
				return (int)have;
			if (have == 0 ||
			    memcmp(buf, (const char *)lines[i].iov_base + at, (size_t)have) != 0)
				return -EBADMSG;
			at += (size_t)have;
			offset += (uint64_t)have;
		}
	}
	return 0;
}

int segment_write_again(int fd, uint64_t from, uint64_t to)
{
	_cleanup_free_ char *buf = malloc(COPY_SIZE);

	if (!buf)
		return -ENOMEM;
	while (from < to) {
		const ssize_t n =
			read_at(fd, buf, (size_t)MIN(to - from, (uint64_t)COPY_SIZE), from);
		const struct iovec piece = {.iov_base = buf, .iov_len = n > 0 ? (size_t)n : 0};
		int r = n < 0 ? (int)n : n == 0 ? -EIO : segment_write(fd, &piece, 1, from);

		if (r < 0)
			return r;
		from += (uint64_t)n;
	}
	return 0;
}

/*
 * A file with this name may be from a start that died here. Then it has the same length, and is
 * used again.
 */
static int open_torn(int dir_fd, uint64_t number, uint64_t end, uint64_t len)
{
	char name[TORN_NAME_MAX];

	for (unsigned i = 0; i < TORN_TRIES; i++) {
		struct stat st;
		char more[16] = "";
		int fd;

		if (i > 0)
			snprintf(more, sizeof(more), ".%u", i);
		snprintf(name, sizeof(name),
			 SEGMENT_PREFIX "%020" PRIu64 ".%" PRIu64 "%s" EVIDENCE_TORN_SUFFIX, number,
			 end, more);
		fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    EVIDENCE_SEGMENT_MODE);
		if (fd >= 0 || errno != EEXIST)
			return fd < 0 ? -errno : fd;
		fd = openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		    (uint64_t)st.st_size < len)
			return fd;
		close_fd(fd);
	}
	return -EEXIST;
}

int segment_move_aside(int dir_fd, int fd, uint64_t number, uint64_t end)
{
	_cleanup_close_ int torn_fd = -1;
	_cleanup_free_ char *buf = malloc(COPY_SIZE);
	uint64_t offset = end;
	struct stat st;
	ssize_t n;
	int r;

	if (!buf)
		return -ENOMEM;
	if (fstat(fd, &st) < 0)
		return -errno;
	torn_fd = open_torn(dir_fd, number, end, (uint64_t)st.st_size - end);
	if (torn_fd < 0)
		return torn_fd;
	while ((n = read_at(fd, buf, COPY_SIZE, offset)) > 0) {
		r = write_all(torn_fd, buf, (size_t)n);
		if (r < 0)
			return r;
		offset += (uint64_t)n;
	}
	if (n < 0)
		return (int)n;
	if (fsync(torn_fd) < 0 || fsync(dir_fd) < 0 || ftruncate(fd, (off_t)end) < 0 ||
	    fsync(fd) < 0)
		return -errno;
	return 0;
}

uint64_t segment_birth_ms(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0 || !(stx.stx_mask & STATX_BTIME))
		return clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
	return (uint64_t)stx.stx_btime.tv_sec * MSEC_PER_SEC +
	       stx.stx_btime.tv_nsec / NSEC_PER_MSEC;
}

void segment_read_access(int fd, struct segment_access *ret)
{
	struct stat st;

	*ret = (struct segment_access){0};
	if (fstat(fd, &st) == 0)
		*ret = (struct segment_access){st.st_mode, st.st_uid, st.st_gid};
}

const char *segment_find_loss(int dir_fd, int fd, uint64_t number, uint64_t size,
			      bool may_be_longer, const struct segment_access *access)
{
	char name[SEGMENT_NAME_MAX];
	struct stat open_one, named;

	if (fstat(fd, &open_one) < 0)
		return NULL;
	if (open_one.st_nlink == 0)
		return "unlinked";
	segment_format_name(number, name);
	if (fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? "renamed" : NULL;
	if (named.st_ino != open_one.st_ino || named.st_dev != open_one.st_dev)
		return "replaced";
	if ((uint64_t)open_one.st_size < size)
		return "truncated";
	if ((uint64_t)open_one.st_size > size && !may_be_longer)
		return "grown";
	if (!access->mode)
		return NULL;
	if (open_one.st_mode != access->mode)
		return "mode changed";
	return open_one.st_uid != access->uid || open_one.st_gid != access->gid ? "owner changed"
										: NULL;
}
