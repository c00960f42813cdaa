/* SPDX-License-Identifier: MIT */
/*
 * `acked SOCKET FRAMES DEVICE SECTOR`: sends the file FRAMES to a cell's socket, a piece at a time,
 * until its last number is acknowledged. Each acknowledgement is written to a sector of DEVICE,
 * past its page cache, before the next piece is sent. So who records the device's writes knows at
 * each of them what the agent was told by then.
 *
 * FRAMES begins with two numbers, 8 bytes each, little-endian: the last one, and the bytes of a
 * piece.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/util.h"

#define SECTOR	 512u
#define PAUSE_MS 5

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int dial(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(path);
	return fd;
}

static char *load(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data = NULL;

	if (fd < 0 || fstat(fd, &st) < 0 || !(data = malloc((size_t)st.st_size)) ||
	    read(fd, data, (size_t)st.st_size) != st.st_size)
		die(path);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

static void record(int device, off_t at, uint64_t number)
{
	static _Alignas(4096) uint8_t sector[SECTOR];

	memcpy(sector, &number, sizeof(number));
	if (pwrite(device, sector, sizeof(sector), at) != (ssize_t)sizeof(sector))
		die("pwrite");
}

/* The newest number in what the host has sent, or 0. */
static uint64_t read_acks(int fd)
{
	static uint8_t buf[4096];
	static size_t have;
	uint64_t number = 0;
	size_t at = 0;
	ssize_t n = recv(fd, buf + have, sizeof(buf) - have, 0);

	if (n <= 0)
		die("recv");
	have += (size_t)n;
	while (at < have && (buf[at] == 0 || have - at >= 9)) {
		if (buf[at] != 0)
			memcpy(&number, buf + at + 1, sizeof(number));
		at += buf[at] == 0 ? 1 : 9;
	}
	memmove(buf, buf + at, have - at);
	have -= at;
	return number;
}

int main(int argc, char **argv)
{
	uint64_t wanted, piece, acked = 0;
	size_t len, at = 2 * sizeof(uint64_t);
	char *data;
	int fd, device;

	if (argc != 5)
		return 64;
	data = load(argv[2], &len);
	memcpy(&wanted, data, sizeof(wanted));
	memcpy(&piece, data + sizeof(wanted), sizeof(piece));
	device = open(argv[3], O_WRONLY | O_DIRECT | O_CLOEXEC);
	if (device < 0)
		die(argv[3]);
	fd = dial(argv[1]);
	while (acked < wanted) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		const size_t n = MIN(len - at, (size_t)piece);

		if (n > 0 && send(fd, data + at, n, MSG_NOSIGNAL) != (ssize_t)n)
			die("send");
		at += n;
		while (poll(&p, 1, n > 0 ? PAUSE_MS : -1) > 0) {
			acked = MAX(acked, read_acks(fd));
			record(device, strtoll(argv[4], NULL, 10) * SECTOR, acked);
			if (n == 0)
				break;
		}
	}
	printf("%" PRIu64 "\n", acked);
	return 0;
}
