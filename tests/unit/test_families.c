/* SPDX-License-Identifier: MIT */
/*
 * Which source a family has, when it is drained, and what happens when it dies: with sources of
 * this test in place of the agent's own.
 */
#include "guest-agent/families.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/util.h"
#include "tests/unit/unit.h"

struct fake {
	struct probe probe;
	int open_error; /* 0: it can be opened */
	int answer;	/* of drain() */
	int healthy;
	unsigned opened, closed, drained, flushed;
};

static struct fake best, second, caps, net, asked;
static char drained_in[64];
static struct options options;
static struct families families;
static struct turn_watch turn;

static struct fake *fake_of(struct probe *p)
{
	return (struct fake *)((char *)p - offsetof(struct fake, probe));
}

static int fake_open(struct fake *f, const struct probe_ops *ops, struct probe **ret, char *why)
{
	if (f->open_error) {
		snprintf(why, PROBE_WHY_MAX, "it is refused");
		return f->open_error;
	}
	f->opened++;
	f->probe = (struct probe){.ops = ops, .fd = eventfd(1, EFD_CLOEXEC)};
	ck_assert_int_ge(f->probe.fd, 0);
	*ret = &f->probe;
	return 0;
}

static int fake_drain(struct probe *p, struct event_queue *q, unsigned budget)
{
	struct fake *f = fake_of(p);

	(void)q;
	ck_assert_uint_eq(budget, FAMILY_STEP);
	if (f->drained++ == 0) {
		strcat(drained_in, " ");
		strcat(drained_in, p->ops->via);
	}
	return f->answer;
}

static int fake_check(struct probe *p, struct event_queue *q)
{
	(void)q;
	return fake_of(p)->healthy;
}

static void fake_flush(struct probe *p, struct event_queue *q)
{
	(void)q;
	fake_of(p)->flushed++;
}

static void fake_close(struct probe *p)
{
	fake_of(p)->closed++;
	close_fd(take_fd(&p->fd));
}

#define FAKE(name, of_family, ...)                                                                 \
	static const struct probe_ops name##_ops;                                                  \
	static int name##_open(const struct probe_config *config, struct probe **ret,              \
			       char why[PROBE_WHY_MAX])                                            \
	{                                                                                          \
		(void)config;                                                                      \
		return fake_open(&(name), &name##_ops, ret, why);                                  \
	}                                                                                          \
	static const struct probe_ops name##_ops = {.via = #name,                                  \
						    .family = (of_family),                         \
						    .open = name##_open,                           \
						    .drain = fake_drain,                           \
						    .close = fake_close,                           \
						    __VA_ARGS__}

FAKE(best, PROBE_PROCESS, .check = fake_check, .flush = fake_flush);
FAKE(second, PROBE_PROCESS, .check = NULL);
FAKE(caps, PROBE_CAPABILITY, .check = NULL);
FAKE(net, PROBE_NET, .check = fake_check);
FAKE(asked, PROBE_NET, .opt_in = true);

/* Instead of the agent's. */
const struct probe_ops *const probe_table[] = {&best_ops,  &second_ops, &caps_ops,
					       &asked_ops, &net_ops,	NULL};

static void setup(void)
{
	best = second = caps = net = asked = (struct fake){.healthy = 1};
	drained_in[0] = '\0';
	memset(&turn, 0, sizeof(turn));
	memset(&options, 0, sizeof(options));
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		options.source[i] = SOURCE_AUTO;
	families_init(&families, &options, event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2),
		      epoll_create1(EPOLL_CLOEXEC));
	ck_assert_ptr_nonnull(families.queue);
	ck_assert_int_ge(families.epoll_fd, 0);
}

static void teardown(void)
{
	families_close(&families);
	event_queue_free(families.queue);
	close(families.epoll_fd);
}

static uint64_t lost(void)
{
	return event_queue_totals(families.queue)->dropped[DROP_KERNEL_OVERRUN];
}

static void assert_via(enum probe_family family, const char *expected)
{
	const char *via[_PROBE_FAMILY_MAX];

	families_via(&families, via);
	ck_assert_str_eq(via[family], expected);
}

UNIT_TEST(the_best_available_source_is_taken)
{
	ck_assert_int_eq(families_open(&families), 0);
	ck_assert_uint_eq(best.opened, 1);
	ck_assert_uint_eq(second.opened, 0);
	assert_via(PROBE_PROCESS, "best");
	assert_via(PROBE_CAPABILITY, "caps");
	assert_via(PROBE_FS, "none");
	/* What hello says is news once. */
	ck_assert(families_news(&families));
	ck_assert(!families_news(&families));
}

UNIT_TEST(one_that_is_refused_has_a_successor)
{
	best.open_error = -EPERM;
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_PROCESS, "second");
}

UNIT_TEST(what_was_asked_for_must_be_there)
{
	best.open_error = -EPERM;
	options.source[PROBE_PROCESS] = "best";
	ck_assert_int_eq(families_open(&families), -ENODEV);
	options.source[PROBE_PROCESS] = "second";
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_PROCESS, "second");
}

/* A source that costs something is taken only by its name. */
UNIT_TEST(an_expensive_source_must_be_asked_for)
{
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_NET, "net");
	ck_assert_uint_eq(asked.opened, 0);
	options.source[PROBE_NET] = "asked";
	families.probes[PROBE_NET]->ops->close(families.probes[PROBE_NET]);
	families.probes[PROBE_NET] = NULL;
	options.source[PROBE_PROCESS] = options.source[PROBE_CAPABILITY] = SOURCE_OFF;
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_NET, "asked");
}

/* A source that opens and cannot be watched is closed, and the next one is taken. */
UNIT_TEST(one_that_cannot_be_watched_has_a_successor)
{
	const int epoll_fd = families.epoll_fd;

	options.source[PROBE_CAPABILITY] = options.source[PROBE_NET] = SOURCE_OFF;
	families.epoll_fd = -1;
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_PROCESS, "none");
	ck_assert_uint_eq(best.closed, 1);
	ck_assert_uint_eq(second.opened, 1);
	ck_assert_uint_eq(second.closed, 1);
	families.epoll_fd = epoll_fd;
}

UNIT_TEST(what_is_required_must_be_there)
{
	best.open_error = -EPERM;
	options.required[PROBE_PROCESS] = "best";
	ck_assert_int_eq(families_open(&families), -ENODEV);
}

UNIT_TEST(any_source_may_be_required)
{
	options.required[PROBE_PROCESS] = SOURCE_ANY;
	best.open_error = -EPERM;
	ck_assert_int_eq(families_open(&families), 0);
	ck_assert(!families_satisfy(SOURCE_ANY, NULL));
	ck_assert(families_satisfy(NULL, NULL));
	ck_assert(families_satisfy("best", &best_ops));
	ck_assert(!families_satisfy("best", &second_ops));
}

/* Events may wait in the sources before the agent is ready: they do not keep it awake. */
UNIT_TEST(nothing_wakes_the_loop_before_it_observes)
{
	struct epoll_event ev[4];

	options.source[PROBE_PROCESS] = SOURCE_OFF;
	options.source[PROBE_CAPABILITY] = SOURCE_OFF;
	ck_assert_int_eq(families_open(&families), 0);
	assert_via(PROBE_PROCESS, "none");
	ck_assert_int_eq(epoll_wait(families.epoll_fd, ev, 4, 0), 0);
	ck_assert(!families_any_due(&families));
	families_observe(&families);
	ck_assert_int_eq(epoll_wait(families.epoll_fd, ev, 4, 0), 1);
	ck_assert_ptr_eq(ev[0].data.ptr, &net.probe);
	ck_assert(families_any_due(&families));
}

UNIT_TEST(what_is_due_is_drained_in_its_order)
{
	ck_assert_int_eq(families_open(&families), 0);
	families_drain(&families, &turn);
	ck_assert_str_eq(drained_in, "");
	families_ready(&families, &net.probe);
	ck_assert(families_any_due(&families));
	families_drain(&families, &turn);
	ck_assert_str_eq(drained_in, " net");
	ck_assert(!families_any_due(&families));
	net.drained = 0;
	families_all_due(&families);
	families_drain(&families, &turn);
	/* System calls wait for the answers of the capability source. */
	ck_assert_str_eq(drained_in, " net caps best net");
	ck_assert(!families_any_due(&families));
	families_drain(&families, &turn);
	ck_assert_uint_eq(caps.drained, 1);
}

UNIT_TEST(a_source_without_end_has_a_budget)
{
	ck_assert_int_eq(families_open(&families), 0);
	best.answer = 1;
	families_all_due(&families);
	families_drain(&families, &turn);
	ck_assert_uint_ge(best.drained, 1);
	ck_assert_uint_le(best.drained, FAMILY_BUDGET_EVENTS / FAMILY_STEP);
	/* The others had their turn, and only this one has another. */
	ck_assert_uint_eq(net.drained, 1);
	for (int i = 0; i < _PROBE_FAMILY_MAX; i++)
		ck_assert_int_eq(families.due[i], i == PROBE_PROCESS);
}

UNIT_TEST(a_dead_source_has_a_successor)
{
	ck_assert_int_eq(families_open(&families), 0);
	families_news(&families);
	families_ready(&families, &best.probe);
	best.answer = -EBADF;
	families_drain(&families, &turn);
	ck_assert_uint_eq(best.flushed, 1);
	ck_assert_uint_eq(best.closed, 1);
	assert_via(PROBE_PROCESS, "second");
	ck_assert_uint_eq(lost(), 1);
	ck_assert(families_news(&families));
	/* One cause can kill two sources: those that had their turn have another. */
	ck_assert(families.due[PROBE_PROCESS]);
	ck_assert(families.due[PROBE_CAPABILITY]);
	/* After the last one there is none, and the agent goes on. */
	second.answer = -EBADF;
	families_drain(&families, &turn);
	assert_via(PROBE_PROCESS, "none");
	ck_assert_uint_eq(lost(), 2);
	ck_assert(!families_check(&families));
}

UNIT_TEST(what_waits_at_the_end_is_reported_or_lost)
{
	ck_assert_int_eq(families_open(&families), 0);
	families_flush(&families);
	ck_assert_uint_eq(best.flushed, 1);
	ck_assert_uint_eq(lost(), 0);
	families_ready(&families, &net.probe);
	families_flush(&families);
	ck_assert_uint_eq(lost(), 1);
}

/* The end of a failing source is not the end of what was looked at first. */
UNIT_TEST(what_is_required_may_fail_later)
{
	options.required[PROBE_NET] = SOURCE_ANY;
	ck_assert_int_eq(families_open(&families), 0);
	families_ready(&families, &net.probe);
	net.answer = -EBADF;
	families_drain(&families, &turn);
	assert_via(PROBE_NET, "none");
	ck_assert_uint_eq(net.closed, 1);
	families_close(&families);
	ck_assert_uint_eq(best.closed, 1);
	ck_assert_uint_eq(caps.closed, 1);
	ck_assert_uint_eq(net.closed, 1);
	families.probes[PROBE_PROCESS] = families.probes[PROBE_CAPABILITY] = NULL;
}

UNIT_TEST(health_is_that_of_the_process_source)
{
	ck_assert_int_eq(families_open(&families), 0);
	ck_assert(families_check(&families));
	ck_assert(families_any_due(&families));
	net.healthy = 0;
	ck_assert(families_check(&families));
	best.healthy = 0;
	ck_assert(!families_check(&families));
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
