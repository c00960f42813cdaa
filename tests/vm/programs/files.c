/* SPDX-License-Identifier: MIT */
/*
 * Changes of files by one process, which waits for a moment first, so that it is known by the time.
 * Prints its pid.
 *
 * `files mmap FILE`: writes through a shared mapping.
 * `files write FILE`: appends.
 * `files rename FROM TO`: renames.
 * `files many DIR COUNT`: creates COUNT files, each with a byte in it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/util.h"

static int map_and_write(const char *path)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return 1;
	close(fd);
	memcpy(p, "MAPPED", 6);
	return munmap(p, 4096) < 0;
}

static int append(const char *path)
{
	const int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	return fd < 0 || write(fd, "x", 1) != 1 || close(fd) < 0;
}

static int many(const char *directory, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char path[256];
		int fd;

		snprintf(path, sizeof(path), "%s/f%u", directory, i);
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, "x", 1) != 1)
			return 1;
		close(fd);
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t n = 0;

	printf("%d\n", getpid());
	fflush(stdout);
	usleep(200000);
	if (argc == 3 && !strcmp(argv[1], "mmap"))
		return map_and_write(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "write"))
		return append(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "rename"))
		return rename(argv[2], argv[3]) < 0;
	if (argc == 4 && !strcmp(argv[1], "many") && parse_u64(argv[3], 1, 100000, &n) == 0)
		return many(argv[2], (unsigned)n);
	return 64;
}
