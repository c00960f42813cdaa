/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/own_mark.h"

#include <fcntl.h>
#include <stdio.h>

#include "common/util.h"

/* "<sequence> <segment> <offset> <origin>\n": below the 512 bytes that a disk writes at once. */
#define MARK_MAX (3 * 21 + NOTE_ORIGIN_MAX + 2)
_Static_assert(MARK_MAX < 512, "a mark is one sector");

static void write_mark(int dir_fd, const struct own_mark *m)
{
	_cleanup_close_ int fd =
		openat(dir_fd, OWN_MARK_FILE,
		       O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	char text[MARK_MAX];
	int len = snprintf(text, sizeof(text), "%020" PRIu64 " %020" PRIu64 " %020" PRIu64 " %s\n",
			   m->sequence, m->segment, m->offset, m->origin);

	if (fd < 0 || len < 0 || len >= (int)sizeof(text))
		return;
	/* What remains of a longer mark is after the newline, and not read. */
	if (pwrite(fd, text, (size_t)len, 0) != len)
		unlinkat(dir_fd, OWN_MARK_FILE, 0);
}

void own_mark_write(int dir_fd, const struct own_mark *m, struct own_mark *last)
{
	if (m->segment == last->segment && m->offset < last->offset + OWN_MARK_BYTES)
		return;
	write_mark(dir_fd, m);
	*last = *m;
}

bool own_mark_read(int dir_fd, struct own_mark *ret)
{
	_cleanup_close_ int fd =
		openat(dir_fd, OWN_MARK_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	uint64_t *const numbers[] = {&ret->sequence, &ret->segment, &ret->offset};
	char text[MARK_MAX], *at = text, *end;
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++, at = end + 1) {
		end = strchr(at, ' ');
		if (!end)
			return false;
		*end = '\0';
		if (parse_u64(at, 0, UINT64_MAX, numbers[i]) < 0)
			return false;
	}
	end = strchr(at, '\n');
	if (!end || end == at || (size_t)(end - at) > NOTE_ORIGIN_MAX)
		return false;
	*end = '\0';
	memcpy(ret->origin, at, (size_t)(end - at) + 1);
	return true;
}
