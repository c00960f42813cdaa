/* SPDX-License-Identifier: MIT */
/*
 * send_frames N RATE PATH...: connects to each cell socket, and sends N frames of what an agent
 * sends over each, as fast as they are taken, or RATE a second in all (0: no limit). All frames are
 * encoded before the first is sent. Prints "sent FRAMES BYTES NANOSECONDS CPU_NANOSECONDS".
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/util.h"
#include "common/wire.h"

#define SEND_MAX (64u * 1024u)

static void fail(const char *what)
{
	fprintf(stderr, "send_frames: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static struct declaration process(uint64_t seq)
{
	struct declaration d = {
		.content_version = 2,
		.source = WIRE_PROCESS_EXECUTED,
		.guest_pid = (uint32_t)(1000 + seq % 30000),
		.guest_comm = wire_text("worker"),
		.guest_monotonic_ns = 1000000 * seq,
		.seq = seq,
	};

	declaration_add_uint(&d, WIRE_KEY_PPID, 7);
	declaration_add_text(&d, WIRE_KEY_EXE, wire_text("/usr/bin/worker"));
	return d;
}

static struct declaration hello(void)
{
	struct declaration d = {
		.content_version = 2,
		.source = WIRE_TELEMETRY_HELLO,
		.guest_pid = 2,
		.guest_comm = wire_text("cellos-telemetr"),
	};

	declaration_add_text(&d, WIRE_KEY_AGENT_VERSION, wire_text("bench"));
	declaration_add_text(&d, WIRE_KEY_SESSION, wire_text("0123456789abcdef"));
	declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, 1);
	return d;
}

/* All frames of one connection, and where each ends. */
static uint8_t *encode(uint64_t n, size_t *ends)
{
	uint8_t *buf = malloc((n + 1) * 256);
	struct declaration d = hello();
	int len = wire_encode(&d, buf, 256);

	for (uint64_t seq = 1; seq <= n && len > 0; seq++) {
		ends[seq - 1] = seq == 1 ? (size_t)len : ends[seq - 1];
		d = process(seq);
		len = wire_encode(&d, buf + ends[seq - 1], 256);
		if (len > 0)
			ends[seq] = ends[seq - 1] + (size_t)len;
	}
	if (len <= 0)
		fail("encode");
	return buf;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail(path);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* With a rate: up to where the connection may be by now. */
static size_t allowed(const size_t *ends, uint64_t n, uint64_t rate, unsigned n_cells,
		      uint64_t begin_ns)
{
	const uint64_t frames =
		rate ? (monotonic_ns() - begin_ns) / 1000 * rate / 1000000 / n_cells : n;

	return ends[MIN(frames, n)];
}

int main(int argc, char **argv)
{
	const uint64_t n = argc > 3 ? strtoull(argv[1], NULL, 10) : 0;
	const uint64_t rate = argc > 3 ? strtoull(argv[2], NULL, 10) : 0;
	const unsigned n_cells = argc > 3 ? (unsigned)argc - 3 : 0;
	size_t *ends = calloc(n + 1, sizeof(*ends)), *sent = calloc(n_cells + 1, sizeof(*sent));
	struct pollfd *fds = calloc(n_cells + 1, sizeof(*fds));
	uint64_t begin_ns, total = 0;
	unsigned open_cells = n_cells;
	uint8_t *buf;

	if (n == 0 || !ends || !sent || !fds)
		fail("N RATE PATH...");
	buf = encode(n, ends);
	for (unsigned i = 0; i < n_cells; i++)
		fds[i] = (struct pollfd){.fd = connect_to(argv[3 + i]), .events = POLLOUT};
	begin_ns = monotonic_ns();
	while (open_cells > 0) {
		if (rate)
			usleep(500);
		else if (poll(fds, n_cells, -1) < 0)
			fail("poll");
		for (unsigned i = 0; i < n_cells; i++) {
			const size_t to =
				fds[i].fd < 0 ? 0 : allowed(ends, n, rate, n_cells, begin_ns);
			ssize_t r;

			if (fds[i].fd < 0 || (!rate && !(fds[i].revents & POLLOUT)) ||
			    to == sent[i])
				continue;
			r = send(fds[i].fd, buf + sent[i], MIN(to - sent[i], (size_t)SEND_MAX),
				 MSG_NOSIGNAL);
			if (r < 0 && errno != EAGAIN)
				fail(argv[3 + i]);
			if (r < 0)
				continue;
			sent[i] += (size_t)r;
			total += (uint64_t)r;
			if (sent[i] < ends[n])
				continue;
			close(fds[i].fd);
			fds[i].fd = -1;
			open_cells--;
		}
	}
	printf("sent %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", n * n_cells, total,
	       monotonic_ns() - begin_ns, clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
