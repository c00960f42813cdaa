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
 * these calls adds a byte, the first letter but one of its name, to PATH. With SYNCED=PATH, each
 * fdatasync and fsync of a file that succeeds adds a line to PATH: the size that is durable, and
 * the file. What is longer or not there is lost with the power.
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

static void note_synced(const char *path, int fd, off_t size)
{
	char link[64], file[4096], line[4200];
	int out = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600), len;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, file, sizeof(file) - 1);
	if (out < 0 || n < 0)
		abort();
	len = snprintf(line, sizeof(line), "%lld %.*s\n", (long long)size, (int)n, file);
	if (write(out, line, (size_t)len) != len)
		abort();
	close(out);
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

static void find_synced(char path[static 256])
{
	const char *control = getenv("BAD_DISK");
	FILE *f = control && getpid() == receiver ? fopen(control, "re") : NULL;
	char word[256];

	path[0] = '\0';
	if (!f)
		return;
	while (fscanf(f, "%255s", word) == 1)
		if (strncmp(word, "SYNCED=", 7) == 0)
			strcpy(path, word + 7);
	fclose(f);
}

static int sync_file(int fd, const char *call, atomic_int *calls, long number)
{
	char synced[256];
	struct stat st;
	int r;

	/* What is written from here on may not be synced. */
	if (fstat(fd, &st) < 0)
		return -1;
	r = ask(call, calls) ? (int)syscall(number, fd) : -1;
	if (r == 0 && S_ISREG(st.st_mode)) {
		find_synced(synced);
		if (*synced)
			note_synced(synced, fd, st.st_size);
	}
	return r;
}

int fdatasync(int fd)
{
	static atomic_int calls;

	return sync_file(fd, "fdatasync", &calls, SYS_fdatasync);
}

int fsync(int fd)
{
	static atomic_int calls;

	return sync_file(fd, "fsync", &calls, SYS_fsync);
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
