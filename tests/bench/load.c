/* SPDX-License-Identifier: MIT */
/*
 * `load WHAT N ROUNDS`: does WHAT N times in each round, on the first CPU only, and prints
 * "WHAT NANOSECONDS PID": what one took in the best round, since what disturbs only adds.
 *
 *     spawn    fork, execute a program that ends at once, and wait for it
 *     connect  to a port of 127.0.0.1 that refuses
 *     getpid, open (and close), read (a byte of /dev/zero)
 *     sendto   a datagram to a port of 127.0.0.1 that nobody has, from one socket
 *     bind     a new UDP socket to any port, and close it
 *     raw      a raw socket, and close it
 *     write    a byte to /tmp/w/file, opened and closed
 *     rate     as spawn, but N a second for ROUNDS seconds; prints "rate COUNT PID" instead
 *
 * `load idle SECONDS 1 PID...`: sleeps so long, and prints how often the processes slept and woke
 * meanwhile and how many nanoseconds of CPU they took, all together.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"

#define REFUSING_PORT 1

static int fd = -1;

static void do_spawn(void)
{
	char *args[] = {"leaf", NULL};
	int status;
	pid_t pid;

	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ) != 0 ||
	    waitpid(pid, &status, 0) != pid || status != 0)
		exit(1);
}

static void do_connect(void)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(REFUSING_PORT),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0 || errno != ECONNREFUSED)
		exit(1);
}

static void do_getpid(void)
{
	syscall(SYS_getpid);
}

static void do_open(void)
{
	close(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

static void do_read(void)
{
	char c;

	if (read(fd, &c, 1) != 1)
		exit(1);
}

static void do_sendto(void)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(REFUSING_PORT),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	/* Every second one gets the refusal of the one before. */
	if (sendto(fd, "x", 1, 0, (const struct sockaddr *)&to, sizeof(to)) < 0 &&
	    errno != ECONNREFUSED)
		exit(1);
}

static void do_bind(void)
{
	const struct sockaddr_in any = {.sin_family = AF_INET};
	const int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0 || bind(s, (const struct sockaddr *)&any, sizeof(any)) < 0)
		exit(1);
	close(s);
}

static void do_raw(void)
{
	const int s = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);

	if (s < 0)
		exit(1);
	close(s);
}

static void do_write(void)
{
	const int f = open("/tmp/w/file", O_WRONLY | O_CLOEXEC);

	if (f < 0 || write(f, "x", 1) != 1)
		exit(1);
	close(f);
}

static const struct {
	const char *name;
	void (*f)(void);
} work[] = {
	{"spawn", do_spawn}, {"connect", do_connect}, {"getpid", do_getpid},
	{"open", do_open},   {"read", do_read},	      {"sendto", do_sendto},
	{"bind", do_bind},   {"raw", do_raw},	      {"write", do_write},
};

static void at_rate(uint64_t n, uint64_t seconds)
{
	const uint64_t period = NSEC_PER_SEC / n, until = monotonic_ns() + seconds * NSEC_PER_SEC;
	uint64_t next = monotonic_ns(), count = 0;

	while (monotonic_ns() < until) {
		const struct timespec at = {.tv_sec = (time_t)(next / NSEC_PER_SEC),
					    .tv_nsec = (long)(next % NSEC_PER_SEC)};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		do_spawn();
		count++;
		next += period;
	}
	printf("rate %" PRIu64 " %d\n", count, (int)getpid());
}

/* The sum over pids of the number behind the first line_start in a file of each. */
static uint64_t sum_of(char **pids, const char *file, const char *line_start)
{
	uint64_t sum = 0;

	for (; *pids; pids++) {
		char path[64], line[256];
		_cleanup_fclose_ FILE *f = NULL;

		snprintf(path, sizeof(path), "/proc/%s/%s", *pids, file);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			if (strncmp(line, line_start, strlen(line_start)) == 0) {
				sum += strtoull(line + strlen(line_start), NULL, 10);
				break;
			}
	}
	return sum;
}

static void idle(uint64_t seconds, char **pids)
{
	uint64_t wakeups, ns;

	/* What the start of this program has caused is over by then. */
	sleep(1);
	wakeups = sum_of(pids, "status", "voluntary_ctxt_switches:");
	ns = sum_of(pids, "schedstat", "");
	sleep((unsigned)seconds);
	printf("%" PRIu64 " %" PRIu64 "\n",
	       sum_of(pids, "status", "voluntary_ctxt_switches:") - wakeups,
	       sum_of(pids, "schedstat", "") - ns);
}

int main(int argc, char **argv)
{
	uint64_t n, rounds, best = UINT64_MAX;
	cpu_set_t first;
	size_t w = 0;

	if (strcmp(argv[0], "leaf") == 0)
		return 0;
	if (argc < 4 || parse_u64(argv[2], 1, UINT32_MAX, &n) < 0 ||
	    parse_u64(argv[3], 1, UINT32_MAX, &rounds) < 0) {
		fprintf(stderr, "usage: load WHAT N ROUNDS\n");
		return 64;
	}
	if (strcmp(argv[1], "idle") == 0) {
		idle(n, argv + 4);
		return 0;
	}
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first) < 0)
		return 1;
	if (strcmp(argv[1], "rate") == 0) {
		at_rate(n, rounds);
		return 0;
	}
	while (w < ARRAY_SIZE(work) && strcmp(argv[1], work[w].name) != 0)
		w++;
	if (w == ARRAY_SIZE(work))
		return 64;
	if (work[w].f == do_connect)
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	else if (work[w].f == do_sendto)
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	else if (work[w].f == do_read)
		fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	for (uint64_t r = 0; r < rounds; r++) {
		const uint64_t began = monotonic_ns();

		for (uint64_t i = 0; i < n; i++)
			work[w].f();
		best = MIN(best, (monotonic_ns() - began) / n);
	}
	printf("%s %" PRIu64 " %d\n", work[w].name, best, (int)getpid());
	return 0;
}
