/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/cursor.h"

#include <fcntl.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"

#define CURSOR_FORMAT "cellos-evidence-cursor 1 %020" PRIu64 " %020" PRIu64 "\n"
#define CURSOR_SIZE   67u /* of every cursor, exactly */

static void format(const struct evidence_position *at, char out[static CURSOR_SIZE + 1])
{
	snprintf(out, CURSOR_SIZE + 1, CURSOR_FORMAT, at->segment, at->offset);
}

int evidence_cursor_load(int dir_fd, const char *name, struct evidence_position *ret)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[CURSOR_SIZE + 2] = "", again[CURSOR_SIZE + 1];
	struct evidence_position at;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	if (sscanf(text, "cellos-evidence-cursor 1 %20" SCNu64 " %20" SCNu64, &at.segment,
		   &at.offset) != 2)
		return -EBADMSG;
	/* Only what this wrote: nothing cut, nothing more. */
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
