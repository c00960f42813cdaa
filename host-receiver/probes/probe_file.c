/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/probe_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"

int probe_explain(char why[PROBE_WHY_MAX], int error, const char *path, const char *what)
{
	snprintf(why, PROBE_WHY_MAX, "%.200s: %s%s%s%s", path, what, *what ? ": " : "",
		 strerror(error), error == ELOOP ? " (a symbolic link is not followed)" : "");
	return -error;
}

static int open_resolved(int dir_fd, const char *path, int flags, uint64_t resolve)
{
	const struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = resolve | RESOLVE_NO_MAGICLINKS,
	};
	const long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

int probe_open_path(const char *path, int flags)
{
	return open_resolved(AT_FDCWD, path, flags, RESOLVE_NO_SYMLINKS);
}

int probe_open_beneath(int dir_fd, const char *name, int flags)
{
	return open_resolved(dir_fd, name, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
}

int probe_read_file(int dir_fd, const char *name, char *buf)
{
	_cleanup_close_ int fd =
		open_resolved(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY,
			      RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
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
