/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/probe_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/util.h"

int probe_explain(char why[PROBE_WHY_MAX], int error, const char *path, const char *what)
{
	snprintf(why, PROBE_WHY_MAX, "%.200s: %s%s%s%s", path, what, *what ? ": " : "",
		 strerror(error), error == ELOOP ? " (a symbolic link is not followed)" : "");
	return -error;
}

static bool is_link(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

static int open_one(int dir_fd, const char *name, int flags)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (strcmp(name, "..") == 0)
		return -EINVAL;
	fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR && is_link(dir_fd, name) ? -ELOOP : -errno;
	/* With O_PATH a link itself is opened. */
	if ((flags & O_PATH) && (fstat(fd, &st) < 0 || S_ISLNK(st.st_mode)))
		return -ELOOP;
	return take_fd(&fd);
}

int probe_open_at(int dir_fd, const char *path, int flags)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *copy = strdup(path);
	char *rest = NULL, *name = copy ? strtok_r(copy, "/", &rest) : NULL;

	if (!copy)
		return -ENOMEM;
	fd = open_one(dir_fd, *path == '/' ? "/" : ".", O_PATH | O_DIRECTORY);
	while (name && fd >= 0) {
		char *next = strtok_r(NULL, "/", &rest);
		const int opened = open_one(fd, name, next ? O_PATH | O_DIRECTORY : flags);

		close_fd(fd);
		fd = opened;
		name = next;
	}
	return take_fd(&fd);
}

int probe_open_path(const char *path, int flags)
{
	return probe_open_at(AT_FDCWD, path, flags);
}

int probe_read_file(int dir_fd, const char *name, char *buf)
{
	_cleanup_close_ int fd = probe_open_at(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	size_t len = 0;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	/* Their size is not known before they are read: sysfs says 4096, cgroupfs 0. */
	while (len <= PROBE_FILE_MAX) {
		const ssize_t n = read(fd, buf + len, PROBE_FILE_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			buf[len] = '\0';
			return (int)len;
		}
		len += (size_t)n;
	}
	return -EFBIG;
}
