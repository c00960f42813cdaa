/* SPDX-License-Identifier: MIT */
/*
 * The walk over /proc, at the limit of its table: in a mount namespace of the test's own, where
 * /proc has as many processes as it takes. Needs root.
 */
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/probes/pid_table.h"
#include "guest-agent/probes/sources.h"
#include "tests/unit/unit.h"

static struct probe_config config = {.poll_ms = 10};
static struct probe *probe;
static struct event_queue *queue;
static unsigned processes;

static void add_processes(unsigned n)
{
	while (n--) {
		const unsigned pid = 1000 + processes++;
		char path[64];
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%u", pid);
		ck_assert_int_eq(mkdir(path, 0755), 0);
		strcat(path, "/stat");
		f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		fprintf(f, "%u (p) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100\n", pid);
		fclose(f);
	}
}

static void walk(void)
{
	struct pollfd pfd = {.fd = probe->fd, .events = POLLIN};

	ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
	while (probe->ops->drain(probe, queue, 1) == 1)
		;
}

static void setup(void)
{
	char why[PROBE_WHY_MAX] = "";

	ck_assert_int_eq(mount("tmpfs", "/proc", "tmpfs", 0, NULL), 0);
	processes = 0;
	queue = event_queue_new(EVENT_QUEUE_MAX, WIRE_VERSION_2);
	ck_assert_msg(proc_walk_ops.open(&config, &probe, why) == 0, "%s", why);
}

static void teardown(void)
{
	proc_walk_ops.close(probe);
	event_queue_free(queue);
	umount2("/proc", MNT_DETACH);
}

UNIT_TEST(who_does_not_fit_is_lost_once)
{
	const struct event_queue_totals *totals = event_queue_totals(queue);
	const uint64_t *lost = &totals->dropped[DROP_KERNEL_OVERRUN];

	add_processes(10);
	walk();
	ck_assert_uint_eq(totals->observed, 0);
	add_processes(PID_TABLE_SIZE - 10);
	walk();
	ck_assert_uint_eq(totals->observed, PID_TABLE_SIZE - 10);
	ck_assert_uint_eq(*lost, 0);
	add_processes(1);
	for (int i = 0; i < 3; i++) {
		walk();
		ck_assert_uint_eq(*lost, 1);
	}
	add_processes(2);
	for (int i = 0; i < 3; i++) {
		walk();
		ck_assert_uint_eq(*lost, 3);
	}
	ck_assert_uint_eq(totals->observed, PID_TABLE_SIZE - 10);
}

UNIT_TEST(who_was_there_is_not_lost)
{
	const uint64_t *lost = &event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN];

	add_processes(PID_TABLE_SIZE + 5);
	walk();
	walk();
	ck_assert_uint_eq(*lost, 0);
	add_processes(1);
	walk();
	ck_assert_uint_eq(*lost, 1);
}

static int begin(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		perror("skipped: cannot make a mount namespace of its own");
		return 77;
	}
	return 0;
}

UNIT_SUITE(.setup = setup, .teardown = teardown, .begin = begin);
