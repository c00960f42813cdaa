/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/durable.h"

#include <fcntl.h>
#include <limits.h>

#include "common/util.h"

int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int staged_name(const char *name, char out[static NAME_MAX + 1])
{
	return snprintf(out, NAME_MAX + 1, "%s" DURABLE_STAGED_SUFFIX, name) > NAME_MAX
		       ? -ENAMETOOLONG
		       : 0;
}

int durable_stage(int dir_fd, const char *name, const void *data, size_t len, mode_t mode)
{
	char staged[NAME_MAX + 1];
	_cleanup_close_ int fd = -1;
	int r = staged_name(name, staged);

	if (r < 0)
		return r;
	fd = openat(dir_fd, staged, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	if (r < 0)
		unlinkat(dir_fd, staged, 0);
	return r;
}

int durable_publish(int dir_fd, const char *name)
{
	char staged[NAME_MAX + 1];
	int r = staged_name(name, staged);

	if (r < 0)
		return r;
	return renameat(dir_fd, staged, dir_fd, name) < 0 ? -errno : 0;
}

int durable_commit(int dir_fd, const char *name)
{
	char staged[NAME_MAX + 1];
	_cleanup_close_ int fd = -1;
	int r = staged_name(name, staged);

	if (r < 0)
		return r;
	fd = openat(dir_fd, staged, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	r = durable_publish(dir_fd, name);
	if (r == 0 && fsync(dir_fd) < 0)
		r = -errno;
	return r;
}

int durable_discard(int dir_fd, const char *name)
{
	char staged[NAME_MAX + 1];
	int r = staged_name(name, staged);

	if (r < 0)
		return r;
	return unlinkat(dir_fd, staged, 0) < 0 ? -errno : 0;
}

int durable_write(int dir_fd, const char *name, const void *data, size_t len, mode_t mode)
{
	int r = durable_stage(dir_fd, name, data, len, mode);

	if (r < 0)
		return r;
	r = durable_commit(dir_fd, name);
	if (r < 0)
		durable_discard(dir_fd, name);
	return r;
}

ssize_t durable_read(int dir_fd, const char *name, char *ret, size_t size)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	const int error = errno;

	ret[MAX(n, (ssize_t)0)] = '\0';
	return n < 0 ? -error : n;
}

int durable_remove(int dir_fd, const char *name)
{
	if (unlinkat(dir_fd, name, 0) < 0 || fsync(dir_fd) < 0)
		return -errno;
	return 0;
}
