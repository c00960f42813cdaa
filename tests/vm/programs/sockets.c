/* SPDX-License-Identifier: MIT */
/*
 * What a process can do with inet sockets beside connect(2).
 *
 * `sockets all FILE`: every protocol and every way; FILE gets a line for each observation that is
 * due: "SOURCE FAMILY ADDRESS PORT PROTOCOL" (an address of "-" for a socket).
 * `sockets datagrams COUNT`: COUNT datagrams, each from a socket to an address of its own, and each
 * of them twice.
 * `sockets low PORT`: as uid 1000 binds PORT and waits for a second.
 * `sockets busy PORT`: as root binds PORT twice.
 * `sockets gives-up PORT`: the same, then is uid 1000 and waits for standard input to end.
 * `sockets hide PORT`: listens on 127.0.0.2:PORT, connects to 127.0.0.1:7777 from 127.0.0.3:PORT
 * and waits for standard input to end.
 *
 * Each prints its pid first.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

#define SCTP	  132
#define UDPLITE	  136
#define MPTCP	  262
#define DCCP	  33
#define DCCP_TYPE 6

static void die(const char *what)
{
	fprintf(stderr, "sockets: %s: %s\n", what, strerror(errno));
	exit(1);
}

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} u;
	socklen_t len;
};

static struct address address_of(const char *text, unsigned port)
{
	struct address a = {0};

	if (strchr(text, ':')) {
		a.u.in6.sin6_family = AF_INET6;
		a.u.in6.sin6_port = htons((uint16_t)port);
		inet_pton(AF_INET6, text, &a.u.in6.sin6_addr);
		a.len = sizeof(a.u.in6);
	} else {
		a.u.in.sin_family = AF_INET;
		a.u.in.sin_port = htons((uint16_t)port);
		inet_pton(AF_INET, text, &a.u.in.sin_addr);
		a.len = sizeof(a.u.in);
	}
	return a;
}

static const struct way {
	const char *source, *address;
	unsigned port;
	int type, protocol;
	const char *name;
	enum { CONNECT, SEND, FAST_OPEN, BIND, ONLY_SOCKET } call;
} ways[] = {
	{"net.datagram_sent", "127.0.0.1", 21001, SOCK_DGRAM, 0, "udp", SEND},
	{"net.datagram_sent", "::1", 21002, SOCK_DGRAM, 0, "udp", SEND},
	{"net.connect_attempted", "127.0.0.1", 21003, SOCK_DGRAM, 0, "udp", CONNECT},
	{"net.connect_attempted", "127.0.0.1", 21004, SOCK_STREAM, 0, "tcp", FAST_OPEN},
	{"net.connect_attempted", "127.0.0.1", 21005, SOCK_STREAM, MPTCP, "mptcp", CONNECT},
	{"net.socket_created", "127.0.0.1", 0, SOCK_DGRAM, UDPLITE, "udplite", ONLY_SOCKET},
	{"net.datagram_sent", "127.0.0.1", 21006, SOCK_DGRAM, UDPLITE, "udplite", SEND},
	{"net.socket_created", "127.0.0.1", 0, SOCK_STREAM, SCTP, "sctp", CONNECT},
	{"net.socket_created", "127.0.0.1", 0, DCCP_TYPE, DCCP, "dccp", CONNECT},
	{"net.socket_created", "127.0.0.1", 0, SOCK_RAW, 253, "253", SEND},
	{"net.socket_created", "::1", 0, SOCK_RAW, IPPROTO_ICMPV6, "icmp6", ONLY_SOCKET},
	{"net.bound", "127.0.0.1", 21007, SOCK_STREAM, 0, "tcp", BIND},
	{"net.bound", "::1", 21008, SOCK_DGRAM, 0, "udp", BIND},
	{"net.bound", "0.0.0.0", 21009, SOCK_DGRAM, 0, "udp", BIND},
};

static int all(const char *path)
{
	_cleanup_fclose_ FILE *list = fopen(path, "we");

	if (!list)
		die(path);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const struct way *w = &ways[i];
		const struct address a = address_of(w->address, w->port ? w->port : 21999);
		const int fd = socket(a.u.any.sa_family, w->type | SOCK_NONBLOCK, w->protocol);
		const bool is_socket = w->port == 0;

		/* The kernel may lack the protocol. */
		if (fd < 0)
			continue;
		if (w->call == CONNECT)
			(void)!connect(fd, &a.u.any, a.len);
		else if (w->call == BIND && bind(fd, &a.u.any, a.len) < 0)
			die("bind");
		else if (w->call == SEND || w->call == FAST_OPEN)
			(void)!sendto(fd, "x", 1, w->call == FAST_OPEN ? MSG_FASTOPEN : 0, &a.u.any,
				      a.len);
		fprintf(list, "%s %s %s %u %s\n", w->source,
			a.u.any.sa_family == AF_INET6 ? "inet6" : "inet",
			is_socket ? "-" : w->address, w->port, w->name);
		close(fd);
	}
	return 0;
}

static int datagrams(unsigned count)
{
	int fd = -1;

	for (unsigned i = 0; i < count; i++) {
		char text[INET_ADDRSTRLEN];
		struct address a;

		if (i % 100 == 0) {
			close_fd(fd);
			fd = socket(AF_INET, SOCK_DGRAM, 0);
		}
		snprintf(text, sizeof(text), "127.1.%u.%u", i / 200, 1 + i % 200);
		a = address_of(text, 20000 + i % 100);
		for (unsigned twice = 0; twice < 2; twice++)
			(void)!sendto(fd, "x", 1, 0, &a.u.any, a.len);
	}
	return 0;
}

static int bind_low(unsigned port)
{
	const struct address a = address_of("127.0.0.1", port);
	const int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (setresuid(1000, 1000, 1000) < 0)
		die("setresuid");
	if (bind(fd, &a.u.any, a.len) == 0 || errno != EACCES)
		die("bind was not refused");
	sleep(1);
	return 0;
}

static void bind_twice(unsigned port)
{
	const struct address a = address_of("127.0.0.1", port);

	if (bind(socket(AF_INET, SOCK_STREAM, 0), &a.u.any, a.len) < 0)
		die("bind");
	if (bind(socket(AF_INET, SOCK_STREAM, 0), &a.u.any, a.len) == 0)
		die("bound twice");
}

static int bind_busy(unsigned port)
{
	bind_twice(port);
	sleep(1);
	return 0;
}

static int give_up(unsigned port)
{
	char c;

	bind_twice(port);
	if (setresuid(1000, 1000, 1000) < 0)
		die("setresuid");
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

static int hide(unsigned port)
{
	const struct address own = address_of("127.0.0.2", port),
			     from = address_of("127.0.0.3", port),
			     to = address_of("127.0.0.1", 7777);
	const int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	const int fd = socket(AF_INET, SOCK_STREAM, 0);
	char c;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, &own.u.any, own.len) < 0 || listen(listener, 1) < 0 ||
	    bind(fd, &from.u.any, from.len) < 0 || connect(fd, &to.u.any, to.len) < 0)
		die("hide");
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t number = 0;

	printf("%d\n", getpid());
	fflush(stdout);
	if (argc == 3 && !strcmp(argv[1], "all"))
		return all(argv[2]);
	if (argc != 3 || parse_u64(argv[2], 1, 65535, &number) < 0)
		return 64;
	if (!strcmp(argv[1], "datagrams"))
		return datagrams((unsigned)number);
	if (!strcmp(argv[1], "low"))
		return bind_low((unsigned)number);
	if (!strcmp(argv[1], "busy"))
		return bind_busy((unsigned)number);
	if (!strcmp(argv[1], "gives-up"))
		return give_up((unsigned)number);
	if (!strcmp(argv[1], "hide"))
		return hide((unsigned)number);
	return 64;
}
