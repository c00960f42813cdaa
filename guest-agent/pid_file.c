/* SPDX-License-Identifier: MIT */
#include "guest-agent/pid_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/util.h"

#define ATTEMPTS   100u
#define ATTEMPT_US 10000u /* an agent that was just killed takes a moment to end */

/* An agent that ends removes its file: the lock counts only if the path still names this inode. */
static bool still_there(int fd, const char *path)
{
	struct stat opened, named;

	return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 &&
	       opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

int pid_file_lock(const char *path)
{
	for (unsigned i = 0; i < ATTEMPTS; i++) {
		_cleanup_close_ int fd =
			open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno != EWOULDBLOCK)
				return -errno;
			usleep(ATTEMPT_US);
			continue;
		}
		/* Remove the contents that a killed agent left. */
		if (still_there(fd, path))
			return ftruncate(fd, 0) < 0 ? -errno : take_fd(&fd);
	}
	return -EWOULDBLOCK;
}

int pid_file_write(int fd)
{
	char line[16];
	const int n = snprintf(line, sizeof(line), "%d\n", (int)getpid());

	if (fd < 0)
		return 0;
	if (ftruncate(fd, 0) < 0 || pwrite(fd, line, (size_t)n, 0) != n)
		return -errno;
	return 0;
}

int pid_file_remove(int fd, const char *path)
{
	if (fd < 0)
		return 0;
	/* If the folder does not belong to the agent, the file stays, but empty. */
	if (ftruncate(fd, 0) < 0)
		return -errno;
	return unlink(path) < 0 ? -errno : 0;
}
