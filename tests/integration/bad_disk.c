/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into the daemon by a test: a disk that fails or is slow, as the file named by BAD_DISK
 * says at the time, one word a call:
 *
 *	fdatasync=fail	EIO, after the write before it has happened, as on a disk that dies
 *	fdatasync=300	takes so many milliseconds longer, or until the file changes
 *	fdatasync=300:1	the same, but not the first one of the process
 *
 * The same for fsync, syncfs and pwritev. No file: a good disk. With COUNT=PATH in it, each of
 * these calls adds a byte, the first letter but one of its name, to PATH.
 *
 * The signer, a child, has a good disk: its system call filter would kill it for reading the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void count(const char *path, const char *call)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0) {
		if (write(fd, call + 1, 1) != 1)
			abort();
		close(fd);
	}
}

/* Sleeps for the time, or until another file, or none, is at the path. */
static void delay(FILE *now, const char *path, int milliseconds)
{
	struct stat was, is;

	if (fstat(fileno(now), &was) < 0)
		abort();
	for (int slept = 0; slept < milliseconds; slept += 10) {
		if (stat(path, &is) < 0 || is.st_ino != was.st_ino)
			return;
		usleep(10000);
	}
}

static pid_t receiver;

__attribute__((constructor)) static void remember_receiver(void)
{
	receiver = getpid();
}

/* False: fail. */
static int ask(const char *call, atomic_int *calls)
{
	const char *path = getenv("BAD_DISK");
	char word[256], *skip;
	const size_t len = strlen(call);
	FILE *f = path && getpid() == receiver ? fopen(path, "re") : NULL;
	int so_far, fine = 1;

	if (!f)
		return 1;
	so_far = (*calls)++;
	while (fscanf(f, "%255s", word) == 1) {
		if (strncmp(word, "COUNT=", 6) == 0)
			count(word + 6, call);
		if (strncmp(word, call, len) != 0 || word[len] != '=')
			continue;
		skip = strchr(word, ':');
		if (strcmp(word + len + 1, "fail") == 0)
			fine = 0;
		else if (!skip || so_far >= atoi(skip + 1))
			delay(f, path, atoi(word + len + 1));
	}
	fclose(f);
	if (!fine)
		errno = EIO;
	return fine;
}

int fdatasync(int fd)
{
	static atomic_int calls;

	return ask("fdatasync", &calls) ? (int)syscall(SYS_fdatasync, fd) : -1;
}

int fsync(int fd)
{
	static atomic_int calls;

	return ask("fsync", &calls) ? (int)syscall(SYS_fsync, fd) : -1;
}

int syncfs(int fd)
{
	static atomic_int calls;

	return ask("syncfs", &calls) ? (int)syscall(SYS_syncfs, fd) : -1;
}

/* With 64-bit offsets, as everything here is built: the name of it is pwritev64. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	static atomic_int calls;

	return ask("pwritev", &calls) ? syscall(SYS_pwritev, fd, iov, n, offset, 0) : -1;
}
