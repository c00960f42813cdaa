/* SPDX-License-Identifier: MIT */
/*
 * LD_PRELOAD: a file system that hangs. While the file that CELLOS_HANG names exists, pread(2) does
 * not return.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* With 64-bit offsets, as everything here is compiled: pread64. */
ssize_t pread(int fd, void *buf, size_t size, off_t offset)
{
	const char *path = getenv("CELLOS_HANG");

	while (path && access(path, F_OK) == 0)
		usleep(10000);
	return syscall(SYS_pread64, fd, buf, size, offset);
}
