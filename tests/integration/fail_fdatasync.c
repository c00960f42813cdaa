/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into the daemon by a test: fdatasync(2) fails with EIO as long as the file named by
 * FAIL_FDATASYNC exists. The write before it has happened, as on a disk that dies.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd)
{
	const char *path = getenv("FAIL_FDATASYNC");

	if (path && access(path, F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}
