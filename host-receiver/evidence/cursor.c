/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/cursor.h"

#include <dirent.h>
#include <fcntl.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"

#define CURSOR_FORMAT "cellos-evidence-cursor 1 %020" PRIu64 " %020" PRIu64 "\n"
#define CURSOR_SIZE   67u /* every cursor has exactly this size */

static void format(const struct evidence_position *at, char out[static CURSOR_SIZE + 1])
{
	snprintf(out, CURSOR_SIZE + 1, CURSOR_FORMAT, at->segment, at->offset);
}

int evidence_cursor_load(int dir_fd, const char *name, struct evidence_position *ret)
{
	char text[CURSOR_SIZE + 2], again[CURSOR_SIZE + 1];
	const ssize_t n = durable_read(dir_fd, name, text, sizeof(text));
	struct evidence_position at;

	if (n < 0)
		return (int)n;
	if (sscanf(text, "cellos-evidence-cursor 1 %20" SCNu64 " %20" SCNu64, &at.segment,
		   &at.offset) != 2)
		return -EBADMSG;
	/* Accept exactly what format() writes: not a shorter text, not a longer one. */
	format(&at, again);
	if (strcmp(text, again) != 0)
		return -EBADMSG;
	*ret = at;
	return 0;
}

int evidence_cursor_store(int dir_fd, const char *name, const struct evidence_position *at)
{
	char text[CURSOR_SIZE + 1];

	format(at, text);
	return durable_write(dir_fd, name, text, strlen(text), 0640);
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

int evidence_cursor_floor(int dir_fd, uint64_t *ret, char bad[CURSOR_NAME_MAX])
{
	_cleanup_(closedirp) DIR *dir = NULL;
	uint64_t floor = UINT64_MAX;
	struct dirent *entry;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(fd);
		return -ENOMEM;
	}
	bad[0] = '\0';
	while ((errno = 0, entry = readdir(dir))) {
		struct evidence_position at = {0};
		int r;

		/* A file that is still being written has a '#' in its name. */
		if (entry->d_name[0] == '.' || strchr(entry->d_name, '#'))
			continue;
		r = evidence_cursor_load(dir_fd, entry->d_name, &at);
		if (r == -ENOENT)
			continue;
		if (r < 0)
			snprintf(bad, CURSOR_NAME_MAX, "%s", entry->d_name);
		floor = MIN(floor, at.segment);
	}
	if (errno != 0)
		return -errno;
	*ret = floor;
	return 0;
}
