/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/lines.h"

static int explain(char why[FOLDER_WHY_MAX], int error, const char *dir, const char *what)
{
	snprintf(why, FOLDER_WHY_MAX, "%.300s: %s: %s", dir, what, strerror(-error));
	return error;
}

/* The lock is a file of its own: a reader of the folder cannot hold it by accident. */
static int take_lock(struct folder *folder, const char *dir, char why[FOLDER_WHY_MAX])
{
	folder->lock_fd = openat(folder->fd, FOLDER_LOCK_NAME,
				 O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (folder->lock_fd < 0)
		return explain(why, -errno, dir, "cannot open the lock of the evidence folder");
	if (flock(folder->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return explain(why, -errno, dir, "cannot lock the evidence folder");
	snprintf(why, FOLDER_WHY_MAX, "%.300s: another process writes this evidence log", dir);
	return -EBUSY;
}

static int compare_segments(const void *a, const void *b)
{
	const struct folder_segment *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

int folder_add(struct folder *folder, uint64_t number, const char *origin, uint64_t first_index)
{
	struct folder_segment *s;

	if (folder->n == folder->size) {
		const size_t n = MAX(folder->size * 2, (size_t)64);

		s = reallocarray(folder->segments, n, sizeof(*s));
		if (!s)
			return -ENOMEM;
		folder->segments = s;
		folder->size = n;
	}
	s = &folder->segments[folder->n++];
	*s = (struct folder_segment){.number = number, .first_index = first_index};
	snprintf(s->origin, sizeof(s->origin), "%s", origin);
	return 0;
}

/*
 * Read the first line. A line that is not complete yet, or that is no segment line, gives nothing.
 */
static int read_first_line(struct folder *folder, struct folder_segment *s,
			   struct json_document *doc)
{
	_cleanup_close_ int fd = -1;
	char name[SEGMENT_NAME_MAX], text[LINE_OWN_MAX];
	struct line_segment line;
	const char *why, *end;
	ssize_t n;
	int r;

	segment_format_name(s->number, name);
	fd = openat(folder->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, text, sizeof(text), 0);
	if (n < 0)
		return -errno;
	end = memchr(text, '\n', (size_t)n);
	if (!end || line_kind_of_canonical(text, (size_t)(end - text)) != LINE_SEGMENT)
		return 0;
	r = json_document_try(doc, text, (size_t)(end - text));
	if (r <= 0 || line_read_segment(doc, json_document_root(doc), &line, &why) < 0)
		return MIN(r, 0);
	snprintf(s->origin, sizeof(s->origin), "%s", line.origin);
	s->first_index = line.frontier.size;
	return 0;
}

static int list(struct folder *folder, DIR *dir, char bad[NAME_MAX + 1])
{
	struct dirent *entry;

	while ((errno = 0, entry = readdir(dir))) {
		struct stat st;
		uint64_t number;

		if (!segment_parse_name(entry->d_name, &number))
			continue;
		snprintf(bad, NAME_MAX + 1, "%s", entry->d_name);
		if (number > FOLDER_SEGMENT_MAX)
			return -ERANGE;
		if (fstatat(folder->fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if (!S_ISREG(st.st_mode))
			return -EMEDIUMTYPE;
		if (folder_add(folder, number, "", 0) < 0)
			return -ENOMEM;
		folder->segments[folder->n - 1].size = (uint64_t)st.st_size;
	}
	*bad = '\0';
	return -errno;
}

static int scan(struct folder *folder, char bad[NAME_MAX + 1])
{
	struct json_document *doc = json_document_new(LINE_OWN_MAX);
	int fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!doc || !dir) {
		r = fd < 0 ? -errno : -ENOMEM;
		if (!dir)
			close_fd(fd);
	} else {
		r = list(folder, dir, bad);
	}
	if (dir)
		closedir(dir);
	if (r == 0 && folder->n > 0)
		qsort(folder->segments, folder->n, sizeof(*folder->segments), compare_segments);
	for (size_t i = 0; r == 0 && i < folder->n; i++)
		r = read_first_line(folder, &folder->segments[i], doc);
	json_document_free(doc);
	return r;
}

int folder_open(struct folder *folder, const char *dir, char why[FOLDER_WHY_MAX])
{
	char bad[NAME_MAX + 1] = "";
	int r;

	*folder = FOLDER_NONE;
	folder->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder->fd < 0)
		return explain(why, -errno, dir, "cannot open the evidence folder");
	r = take_lock(folder, dir, why);
	if (r < 0)
		return r;
	r = scan(folder, bad);
	if (r == -ERANGE)
		snprintf(why, FOLDER_WHY_MAX,
			 "%.300s/%.60s: a segment with a number that no writer reaches; move it "
			 "away",
			 dir, bad);
	else if (r == -EMEDIUMTYPE)
		snprintf(why, FOLDER_WHY_MAX, "%.300s/%.60s: expected a regular file", dir, bad);
	else if (r < 0)
		explain(why, r, dir, "cannot list the segments");
	return r;
}

void folder_close(struct folder *folder)
{
	close_fd(take_fd(&folder->lock_fd));
	close_fd(take_fd(&folder->fd));
	free(take_ptr(folder->segments));
	folder->n = folder->size = 0;
}

struct folder_segment *folder_newest(struct folder *folder)
{
	return folder->n > 0 ? &folder->segments[folder->n - 1] : NULL;
}

void folder_drop_oldest(struct folder *folder, size_t n)
{
	folder->n -= n;
	memmove(folder->segments, folder->segments + n, folder->n * sizeof(*folder->segments));
}

void folder_drop_newest(struct folder *folder)
{
	folder->n--;
}

uint64_t folder_bytes(const struct folder *folder)
{
	uint64_t total = 0;

	for (size_t i = 0; i < folder->n; i++)
		total += folder->segments[i].size;
	return total;
}
