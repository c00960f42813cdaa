/* SPDX-License-Identifier: MIT */
/*
 * The inotify source: what wakes the agent, and the overflow of the kernel's queue, after which a
 * path whose end was lost is watched again.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/sources.h"
#include "tests/unit/unit.h"

static struct probe_config config = {.poll_ms = 10, .n_inotify_paths = 2};
static char folder[32], busy[64], path[64];
static struct probe *probe;
static struct event_queue *queue;

static void make_file(const char *name)
{
	_cleanup_close_ int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
}

static void setup(void)
{
	char why[PROBE_WHY_MAX] = "";

	strcpy(folder, "/tmp/cellos-inotify-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(busy, sizeof(busy), "%s/busy", folder);
	snprintf(path, sizeof(path), "%s/path", folder);
	ck_assert_int_eq(mkdir(busy, 0700), 0);
	make_file(path);
	config.inotify_paths[0] = busy;
	config.inotify_paths[1] = path;
	queue = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	ck_assert_msg(inotify_ops.open(&config, &probe, why) == 0, "%s", why);
}

static void teardown(void)
{
	inotify_ops.close(probe);
	event_queue_free(queue);
	unlink(path);
	rmdir(busy);
	rmdir(folder);
}

/* More events than the queue of the kernel takes, none of which is equal to the one before. */
static void overflow(void)
{
	char text[24] = "", one[80];
	uint64_t max = 0;
	int n = proc_read_file("/proc/sys/fs/inotify/max_queued_events", text, sizeof(text) - 1);

	ck_assert_int_gt(n, 0);
	text[strcspn(text, "\n")] = '\0';
	ck_assert_int_eq(parse_u64(text, 1, 10000000, &max), 0);
	snprintf(one, sizeof(one), "%s/one", busy);
	for (uint64_t i = 0; i <= max / 2; i++) {
		make_file(one);
		unlink(one);
	}
}

static void drain(void)
{
	while (inotify_ops.drain(probe, queue, 1000) == 1)
		;
}

/* Whether a change of the path is reported. */
static bool sees_path(void)
{
	const uint64_t before = event_queue_totals(queue)->observed;

	ck_assert_int_eq(chmod(path, 0600), 0);
	drain();
	return event_queue_totals(queue)->observed > before;
}

/* The agent sleeps until the source's descriptor is readable. */
static bool wakes(int patience_ms)
{
	struct pollfd p = {.fd = probe->fd, .events = POLLIN};

	return poll(&p, 1, patience_ms) == 1;
}

UNIT_TEST(test_a_change_wakes_the_agent)
{
	const uint64_t *observed = &event_queue_totals(queue)->observed;
	uint64_t before;

	ck_assert(!wakes(0));
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert(wakes(0));
	drain();
	ck_assert_uint_eq(*observed, 1);
	ck_assert(!wakes(0));
	/* A path that is missing is looked for by a timer. */
	ck_assert_int_eq(unlink(path), 0);
	drain();
	before = *observed;
	make_file(path);
	while (*observed == before) {
		ck_assert(wakes(300000));
		drain();
	}
	ck_assert_uint_eq(*observed, before + 1);
	drain();
	ck_assert(!wakes(0));
}

UNIT_TEST(test_overflow_watches_again)
{
	const uint64_t *lost = &event_queue_totals(queue)->dropped[DROP_KERNEL_OVERRUN];

	ck_assert(sees_path());
	overflow();
	ck_assert_int_eq(unlink(path), 0);
	make_file(path);
	drain();
	/* The kernel does not tell how many: at least one. */
	ck_assert_uint_ge(*lost, 1);
	ck_assert(sees_path());
}

UNIT_TEST(test_overflow_of_a_path_that_is_gone)
{
	overflow();
	ck_assert_int_eq(unlink(path), 0);
	drain();
	make_file(path);
	/* It is looked for every --poll ms. */
	while (!sees_path())
		usleep(5000);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
