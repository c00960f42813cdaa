/* SPDX-License-Identifier: MIT */
/* The polling net source, on loopback. */
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/sources.h"
#include "tests/unit/observed.h"
#include "tests/unit/unit.h"

#define POLL_MS 10u

static struct probe_config config;
static struct probe *probe;
static struct event_queue *queue;
static struct observed observed;

static void setup(void)
{
	char why[PROBE_WHY_MAX] = "";

	config = (struct probe_config){.self = getppid(), .poll_ms = POLL_MS};
	observed.n = 0;
	queue = event_queue_new(EVENT_QUEUE_MAX, WIRE_VERSION_2);
	ck_assert_msg(proc_net_ops.open(&config, &probe, why) == 0, "%s", why);
}

static void teardown(void)
{
	proc_net_ops.close(probe);
	event_queue_free(queue);
}

/* So many whole periods. */
static void run_periods(unsigned n)
{
	while (n--) {
		struct pollfd pfd = {probe->fd, POLLIN, 0};
		int r;

		ck_assert_int_eq(poll(&pfd, 1, 2000), 1);
		do
			r = proc_net_ops.drain(probe, queue, 256);
		while (r > 0);
		ck_assert_int_eq(r, 0);
	}
	observed_take(&observed, queue);
}

static int listen_on(int family, uint16_t *ret_port)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET)
		((struct sockaddr_in *)&a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*ret_port = ntohs(a.sin6_port);
	return fd;
}

static int connect_to(int family, uint16_t port)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family,
				 .sin6_port = htons(port),
				 .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET)
		*(struct sockaddr_in *)&a = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_port = htons(port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		};
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a,
				 family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a)),
			 0);
	return fd;
}

static unsigned count(uint16_t port, const struct observed_event **ret)
{
	unsigned n = 0;

	for (size_t i = 0; i < observed.n; i++) {
		if (observed.events[i].uints[WIRE_KEY_PORT] != port)
			continue;
		*ret = &observed.events[i];
		n++;
	}
	return n;
}

UNIT_TEST(test_connects)
{
	static const struct {
		int family;
		const char *name, *address;
	} cases[] = {{AF_INET, "inet", "127.0.0.1"}, {AF_INET6, "inet6", "::1"}};
	char comm[16];

	/* An emulator of user programs has its own name until it is given another. */
	ck_assert_int_eq(prctl(PR_GET_NAME, comm), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct observed_event *e = NULL;
		uint16_t port;
		int listener = listen_on(cases[i].family, &port), old, fresh, accepted;

		/* One that is there before the source: known, not reported. */
		teardown();
		old = connect_to(cases[i].family, port);
		setup();
		run_periods(2);
		ck_assert_uint_eq(count(port, &e), 0);

		fresh = connect_to(cases[i].family, port);
		accepted = accept(listener, NULL, NULL);
		run_periods(3);
		/* Once, and not its accepted end. */
		ck_assert_uint_eq(count(port, &e), 1);
		ck_assert_str_eq(e->family, cases[i].name);
		ck_assert_str_eq(e->address, cases[i].address);
		ck_assert_str_eq(e->result, "ok");
		ck_assert_uint_eq(e->pid, (uint32_t)getpid());
		ck_assert_str_eq(e->comm, comm);
		/* Only the process source could tell which program, and there is none. */
		ck_assert(!observed_has(e, WIRE_KEY_EXE));

		close(accepted);
		close(old);
		close(fresh);
		close(listener);
	}
}

UNIT_TEST(test_more_than_one_period_takes)
{
	enum { MANY = 64 + 30 };
	const struct observed_event *e = NULL;
	uint16_t port;
	int listener = listen_on(AF_INET, &port), fds[MANY], accepted[MANY];

	run_periods(2);
	for (unsigned i = 0; i < MANY; i++) {
		fds[i] = connect_to(AF_INET, port);
		accepted[i] = accept(listener, NULL, NULL);
	}
	run_periods(4);
	ck_assert_uint_eq(count(port, &e), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		close(fds[i]);
		close(accepted[i]);
	}
	close(listener);
}

UNIT_TEST(test_excluded)
{
	const struct observed_event *e = NULL;
	uint16_t port;
	int listener = listen_on(AF_INET, &port), fd;

	config.excluded[config.n_excluded++] = getpid();
	probe_exclude_now(&config);
	run_periods(2);
	fd = connect_to(AF_INET, port);
	run_periods(3);
	ck_assert_uint_eq(count(port, &e), 0);
	close(fd);
	close(listener);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
