/* SPDX-License-Identifier: MIT */
/*
 * `connects COUNT FILE`: COUNT connects, by every way there is in turn; FILE gets a line for each,
 * "WAY ADDRESS PORT RESULT", RESULT an errno's number, 0 or "-" where it cannot be known.
 * Standard output: "PID COUNT MILLISECONDS".
 *
 * `connects held COUNT FILE`: the same, once standard input has ended.
 *
 * `connects hold PORT`: connects to 127.0.0.1 and ::1 and waits for standard input to end.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/util.h"

enum way {
	REFUSED4,
	REFUSED6,
	ACCEPTED4,
	ACCEPTED6,
	UNREACHABLE,
	NONBLOCKING,
	STUCK,
	DATAGRAM,
	MAPPED,
	INT80,
	INT80_SOCKETCALL,
	URING,
	URING_ASYNC,
	WAY_MAX
};

static const char *const way_names[WAY_MAX] = {
	"refused4",	    "refused6", "accepted4",   "accepted6", "unreachable",
	"nonblocking",	    "stuck",	"datagram",    "mapped",    "int80",
	"int80-socketcall", "uring",	"uring-async",
};

static int listeners[2]; /* inet, inet6 */
static uint16_t ports[2];
static int stuck_listener;
static uint16_t stuck_port;
static char *low; /* memory that a 32-bit call can address */

struct uring {
	int fd;
	unsigned *sq_tail, *sq_array, *cq_head, *cq_tail;
	unsigned sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static struct uring uring;

static void die(const char *what)
{
	fprintf(stderr, "connects: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void uring_setup(void)
{
	struct io_uring_params p = {0};
	uint8_t *sq, *cq;

	uring.fd = (int)syscall(__NR_io_uring_setup, 4, &p);
	if (uring.fd < 0)
		die("io_uring_setup");
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned), PROT_READ | PROT_WRITE,
		  MAP_SHARED, uring.fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED, uring.fd, IORING_OFF_CQ_RING);
	uring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED, uring.fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)uring.sqes == MAP_FAILED)
		die("mmap of io_uring");
	uring.sq_tail = (unsigned *)(sq + p.sq_off.tail);
	uring.sq_array = (unsigned *)(sq + p.sq_off.array);
	uring.sq_mask = *(unsigned *)(sq + p.sq_off.ring_mask);
	uring.cq_head = (unsigned *)(cq + p.cq_off.head);
	uring.cq_tail = (unsigned *)(cq + p.cq_off.tail);
	uring.cq_mask = *(unsigned *)(cq + p.cq_off.ring_mask);
	uring.cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

/* flags: IOSQE_ASYNC lets a thread of the kernel's do it. */
static int uring_connect(int fd, const void *address, size_t len, uint8_t flags)
{
	const unsigned tail = *uring.sq_tail, slot = tail & uring.sq_mask;
	int result;

	uring.sqes[slot] = (struct io_uring_sqe){.opcode = IORING_OP_CONNECT,
						 .flags = flags,
						 .fd = fd,
						 .addr = (uintptr_t)address,
						 .off = len};
	uring.sq_array[slot] = slot;
	__atomic_store_n(uring.sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, uring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		die("io_uring_enter");
	while (__atomic_load_n(uring.cq_tail, __ATOMIC_ACQUIRE) == *uring.cq_head)
		;
	result = uring.cqes[*uring.cq_head & uring.cq_mask].res;
	__atomic_store_n(uring.cq_head, *uring.cq_head + 1, __ATOMIC_RELEASE);
	return result;
}

/* A system call by the 32-bit gate; all pointers below 4 GiB. */
static int int80(int nr, unsigned long a, unsigned long b, unsigned long c)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}

static int listen_at(int family, int backlog, uint16_t *ret_port)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, backlog) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		die("listen");
	*ret_port = ntohs(a.sin6_port);
	return fd;
}

struct target {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} u;
	socklen_t len;
};

static struct target target(int family, const char *address, unsigned port)
{
	struct target t = {0};

	t.u.any.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		t.u.in.sin_port = htons((uint16_t)port);
		inet_pton(family, address, &t.u.in.sin_addr);
		t.len = sizeof(t.u.in);
	} else {
		t.u.in6.sin6_port = htons((uint16_t)port);
		inet_pton(family, address, &t.u.in6.sin6_addr);
		t.len = sizeof(t.u.in6);
	}
	return t;
}

static int connect_by(enum way way, int fd, const struct target *t)
{
	switch (way) {
	case INT80:
		memcpy(low, &t->u, sizeof(t->u));
		return int80(362, (unsigned long)fd, (unsigned long)(uintptr_t)low, t->len);
	case INT80_SOCKETCALL: {
		uint32_t *args = (uint32_t *)(low + 256);

		memcpy(low, &t->u, sizeof(t->u));
		args[0] = (uint32_t)fd;
		args[1] = (uint32_t)(uintptr_t)low;
		args[2] = t->len;
		return int80(102, 3, (unsigned long)(uintptr_t)args, 0);
	}
	case URING: return uring_connect(fd, &t->u, t->len, 0);
	case URING_ASYNC: return uring_connect(fd, &t->u, t->len, IOSQE_ASYNC);
	default: return connect(fd, &t->u.any, t->len) < 0 ? -errno : 0;
	}
}

static void one(enum way way, unsigned i, FILE *list)
{
	const unsigned closed = 1 + i % 1000; /* nobody listens there */
	const int kind = SOCK_CLOEXEC | (way == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM) |
			 (way == NONBLOCKING || way == STUCK ? SOCK_NONBLOCK : 0);
	const bool six = way == REFUSED6 || way == ACCEPTED6 || way == MAPPED;
	int fd = socket(six ? AF_INET6 : AF_INET, kind, 0), accepted = -1, r;
	char address[INET6_ADDRSTRLEN];
	struct target t;

	snprintf(address, sizeof(address), "127.0.%u.%u", i / 250 % 250, 1 + i % 250);
	if (way == REFUSED6 || way == ACCEPTED6)
		snprintf(address, sizeof(address), "::1");
	else if (way == MAPPED)
		snprintf(address, sizeof(address), "::ffff:127.0.0.%u", 1 + i % 250);
	else if (way == UNREACHABLE)
		snprintf(address, sizeof(address), "192.0.2.%u", 1 + i % 250);
	t = target(six ? AF_INET6 : AF_INET, address,
		   way == ACCEPTED4   ? ports[0]
		   : way == ACCEPTED6 ? ports[1]
		   : way == STUCK     ? stuck_port
				      : closed);
	r = connect_by(way, fd, &t);
	if (way == ACCEPTED4 || way == ACCEPTED6)
		accepted = accept(listeners[way == ACCEPTED6], NULL, NULL);
	fprintf(list, "%s %s %u %d\n", way_names[way], address,
		six ? ntohs(t.u.in6.sin6_port) : ntohs(t.u.in.sin_port), -r);
	close_fd(accepted);
	close(fd);
}

static void await_end_of_input(void)
{
	char c;

	while (read(STDIN_FILENO, &c, 1) > 0)
		;
}

static int hold(const char *port_text)
{
	uint64_t port;
	struct target t4, t6;
	int fd4 = socket(AF_INET, SOCK_STREAM, 0), fd6 = socket(AF_INET6, SOCK_STREAM, 0);

	if (parse_u64(port_text, 1, 65535, &port) < 0)
		return 64;
	t4 = target(AF_INET, "127.0.0.1", (unsigned)port);
	t6 = target(AF_INET6, "::1", (unsigned)port);
	if (connect(fd4, &t4.u.any, t4.len) < 0 || connect(fd6, &t6.u.any, t6.len) < 0)
		die("connect");
	await_end_of_input();
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t count, start;
	_cleanup_fclose_ FILE *list = NULL;

	if (argc == 3 && !strcmp(argv[1], "hold"))
		return hold(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "held")) {
		await_end_of_input();
		argv++;
		argc--;
	}
	if (argc != 3 || parse_u64(argv[1], 1, 1000000, &count) < 0) {
		fprintf(stderr, "usage: connects [held] COUNT FILE | hold PORT\n");
		return 64;
	}
	start = monotonic_ns();
	list = fopen(argv[2], "we");
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1,
		   0);
	if (!list || low == MAP_FAILED)
		die(argv[2]);
	listeners[0] = listen_at(AF_INET, 64, &ports[0]);
	listeners[1] = listen_at(AF_INET6, 64, &ports[1]);
	/* A backlog that is full: further connects hang, as behind a filter that drops. */
	stuck_listener = listen_at(AF_INET, 0, &stuck_port);
	for (unsigned i = 0; i < 2; i++) {
		struct target t = target(AF_INET, "127.0.0.1", stuck_port);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		fprintf(list, "fill 127.0.0.1 %u -\n", stuck_port);
		(void)!connect(fd, &t.u.any, t.len);
	}
	uring_setup();
	for (uint64_t i = 0; i < count; i++)
		one((enum way)(i % WAY_MAX), (unsigned)i, list);
	printf("%d %" PRIu64 " %" PRIu64 "\n", getpid(), count + 2,
	       (monotonic_ns() - start) / NSEC_PER_MSEC);
	return 0;
}
