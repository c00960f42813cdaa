/* SPDX-License-Identifier: MIT */
/*
 * Parts of the daemon by themselves: cells that are not served, its cells by id, the sessions of
 * the last run, the forwarder's state.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"
#include "host-receiver/cell/recall.h"
#include "host-receiver/daemon/cell_index.h"
#include "host-receiver/daemon/forwarding.h"
#include "host-receiver/daemon/internal.h"
#include "host-receiver/daemon/lifecycle.h"
#include "host-receiver/daemon/unserved.h"
#include "host-receiver/evidence/cursor.h"
#include "host-receiver/evidence/segment.h"
#include "tests/unit/unit.h"

#define MS NSEC_PER_MSEC

/* ---- cells that cannot be served ---- */

UNIT_TEST(unserved_cells_stand_in_the_order_of_their_ids)
{
	static const char *const ids[] = {"m", "z", "a", "n"}, *const sorted[] = {"a", "m", "n",
										  "z"};
	const struct unserved_cell *cell;
	struct unserved u = {0};

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		ck_assert_int_eq(unserved_put(&u, ids[i], "why", 5), 1);
	ck_assert_uint_eq(u.n, ARRAY_SIZE(ids));
	cell = u.first;
	for (size_t i = 0; i < ARRAY_SIZE(sorted); i++, cell = cell->next) {
		ck_assert_str_eq(cell->id, sorted[i]);
		ck_assert_str_eq(cell->shown, sorted[i]);
		ck_assert_str_eq(cell->why, "why");
		ck_assert_uint_eq(cell->since_ns, 5);
		ck_assert_ptr_eq(unserved_find(&u, sorted[i]), cell);
	}
	ck_assert_ptr_null(cell);
	ck_assert_ptr_null(unserved_find(&u, "b"));
	ck_assert_ptr_null(unserved_find(&u, "zz"));
	ck_assert(!unserved_remove(&u, "b"));
	ck_assert(unserved_remove(&u, "m"));
	ck_assert(!unserved_remove(&u, "m"));
	ck_assert_uint_eq(u.n, 3);
	ck_assert_ptr_null(unserved_find(&u, "m"));
	ck_assert_ptr_nonnull(unserved_find(&u, "z"));
	unserved_free(&u);
	ck_assert_uint_eq(u.n, 0);
	ck_assert_ptr_null(u.first);
}

/* Only a new cell and a new reason are reported; the first time stays. */
UNIT_TEST(a_reason_is_news_once)
{
	struct unserved u = {0};

	ck_assert_int_eq(unserved_put(&u, "a", "one", 5), 1);
	ck_assert_int_eq(unserved_put(&u, "a", "one", 6), 0);
	ck_assert_int_eq(unserved_put(&u, "a", "two", 7), 1);
	ck_assert_int_eq(unserved_put(&u, "a", "two", 8), 0);
	ck_assert_str_eq(u.first->why, "two");
	ck_assert_uint_eq(u.first->since_ns, 5);
	ck_assert_uint_eq(u.n, 1);
	unserved_free(&u);
}

UNIT_TEST(what_people_read_has_no_control_characters)
{
	char longest[CELL_WHY_MAX + 10];
	struct unserved u = {0};

	ck_assert_int_eq(unserved_put(&u, "a\x1b[31m\x7f\xff ~", "b\n", 1), 1);
	ck_assert_str_eq(u.first->id, "a\x1b[31m\x7f\xff ~");
	ck_assert_str_eq(u.first->shown, "a?[31m?? ~");
	ck_assert_str_eq(u.first->why, "b?");
	ck_assert_int_eq(unserved_put(&u, u.first->id, "b\n", 1), 0);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_int_eq(unserved_put(&u, "b", longest, 1), 1);
	ck_assert_uint_eq(strlen(unserved_find(&u, "b")->why), CELL_WHY_MAX - 1);
	ck_assert_int_eq(unserved_put(&u, "b", longest, 1), 0);
	unserved_free(&u);
}

/* The delay doubles up to its bound; each try sets the next. */
UNIT_TEST(unserved_cells_are_tried_with_a_growing_delay)
{
	uint64_t now_ns = 1000 * MS, delay_ms = UNSERVED_RETRY_MIN_MS;
	struct unserved u = {0};

	ck_assert_int_eq(unserved_put(&u, "a", "why", now_ns), 1);
	for (int tries = 0; tries < 10; tries++) {
		ck_assert_ptr_null(unserved_due(&u, now_ns + delay_ms * MS - 1));
		now_ns += delay_ms * MS;
		ck_assert_ptr_eq(unserved_due(&u, now_ns), u.first);
		ck_assert_ptr_null(unserved_due(&u, now_ns));
		delay_ms = MIN(delay_ms * 2, (uint64_t)UNSERVED_RETRY_MAX_MS);
		/* The same reason again, or another one, changes no time. */
		unserved_put(&u, "a", tries % 2 ? "why" : "another", now_ns);
	}
	ck_assert_uint_eq(u.first->delay_ms, UNSERVED_RETRY_MAX_MS);
	/* A second cell is found beside one that is not due. */
	ck_assert_int_eq(unserved_put(&u, "b", "why", now_ns), 1);
	ck_assert_str_eq(unserved_due(&u, now_ns + UNSERVED_RETRY_MIN_MS * MS)->id, "b");
	unserved_free(&u);
}

/* ---- cells by their id ---- */

static void append_id(const struct cell *cell, void *ctx)
{
	strcat(ctx, cell->options.cell_id);
}

UNIT_TEST(cells_are_found_by_their_ids)
{
	static const char *const ids[] = {"d", "b", "a", "c", "e"};
	static struct cell cells[ARRAY_SIZE(ids)];
	struct cell_index index = {0};
	char all[16] = "";

	cell_index_each(&index, append_id, all);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		cells[i].options.cell_id = ids[i];
		ck_assert_ptr_null(cell_index_find(&index, ids[i]));
		ck_assert(cell_index_add(&index, &cells[i]));
		ck_assert_ptr_eq(cell_index_find(&index, ids[i]), &cells[i]);
	}
	cell_index_each(&index, append_id, all);
	ck_assert_str_eq(all, "abcde");
	cell_index_remove(&index, &cells[3]);
	ck_assert_ptr_null(cell_index_find(&index, "c"));
	*all = '\0';
	cell_index_each(&index, append_id, all);
	ck_assert_str_eq(all, "abde");
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		cell_index_remove(&index, &cells[i]);
	ck_assert_ptr_null(index.root);
}

/* ---- sessions of the last run ---- */

#define SESSION "00000000000000aa"
#define GUEST(data, type)                                                                          \
	"{\"data\":{\"cellId\":\"c\",\"connection\":1," data "},\"type\":\"" EVENT_TYPE_PREFIX     \
	"guest.v1." type "\"}\n"

/* A line of `long_line` bytes, without its '\n'; then the text. */
static void put_segment(const char *dir, uint64_t number, size_t long_line, const char *text)
{
	char name[SEGMENT_NAME_MAX], path[128];
	FILE *f;

	segment_format_name(number, name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	for (size_t i = 0; i < long_line; i++)
		fputc('x', f);
	fprintf(f, "%s%s", long_line > 0 ? "\n" : "", text);
	ck_assert_int_eq(fclose(f), 0);
}

static void remove_segment(const char *dir, uint64_t number)
{
	char name[SEGMENT_NAME_MAX], path[128];

	segment_format_name(number, name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(unlink(path), 0);
}

/* What the guest said last is in the lines after a damaged one, and after a lost segment. */
UNIT_TEST(a_damaged_log_is_recalled_to_its_end)
{
	static const size_t long_lines[] = {0, EVIDENCE_LINE_MAX - 1, EVIDENCE_LINE_MAX,
					    5 * EVIDENCE_LINE_MAX};
	const struct evidence_limits limits = {.rotate_size = EVIDENCE_ROTATE_SIZE_DEFAULT};
	static struct recover_point points[RECOVER_POINTS];
	static struct daemon d;
	static struct cell cell;
	char dir[] = "/tmp/cellos-recall-XXXXXX", why[EVIDENCE_WHY_MAX], lock[64];
	const struct session *known;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	d.config.evidence_dir = dir;
	cell.options.cell_id = "c";
	/* The log was not damaged when it was opened. */
	ck_assert_msg(evidence_log_open(dir, &limits, UINT64_MAX, points, &d.log, why) == 0, "%s",
		      why);
	for (size_t i = 0; i < ARRAY_SIZE(long_lines); i++) {
		put_segment(dir, 1, long_lines[i],
			    GUEST("\"detail\":{\"assigned\":1,\"nextSeq\":1,\"session\":\"" SESSION
				  "\"}",
				  "telemetry_hello") GUEST("\"seq\":1", "process_spawned"));
		put_segment(dir, 3, 0, GUEST("\"seq\":2", "process_spawned"));
		ck_assert_int_eq(daemon_recall_sessions(&d), 0);
		cell.sessions = (struct sessions){0};
		daemon_give_sessions(&d, &cell);
		known = sessions_find(&cell.sessions, wire_text(SESSION));
		ck_assert_msg(known && known->next == 3, "a line of %zu bytes", long_lines[i]);
		recall_free(take_ptr(d.recall));
	}
	remove_segment(dir, 1);
	remove_segment(dir, 3);
	evidence_log_sink(d.log)->ops->close(evidence_log_sink(d.log));
	snprintf(lock, sizeof(lock), "%s/lock", dir);
	unlink(lock);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* ---- the forwarder's state ---- */

UNIT_TEST(evidence_that_stays_here_is_a_reason)
{
	struct forwarding f = {.wanted = true, .lag_ready_ms = 5000};
	char why[256] = "";

	f.status.error = FORWARD_FULL;
	strcpy(f.status.why, "no space");
	f.status.lag_ms = 4999;
	ck_assert(forwarding_is_ready(&f, why));
	ck_assert_str_eq(why, "");
	f.status.lag_ms = 5000;
	ck_assert(!forwarding_is_ready(&f, why));
	ck_assert_str_eq(why, "evidence has not left this host for 5 s (full): no space");
	f.wanted = false;
	ck_assert(forwarding_is_ready(&f, why));
}

static void expect_number(const json_t *state, const char *name, json_int_t want)
{
	ck_assert_msg(json_integer_value(json_object_get(state, name)) == want, "%s", name);
}

static void expect_text(const json_t *state, const char *name, const char *want)
{
	ck_assert_str_eq(json_string_value(json_object_get(state, name)), want);
}

static const struct forward_status status = {
	.state = FORWARD_CONNECTED,
	.error = FORWARD_FULL,
	.landlock = 1,
	.why = "no space",
	.warnings = "a warning",
	.server = "nats://h:1",
	.read = 1,
	.published = 2,
	.acked = 3,
	.duplicates = 4,
	.retries = 5,
	.skipped = 6,
	.cursor_lost = 7,
	.errors = {[FORWARD_FULL] = 8},
	.index = 9,
	.lag_events = 10,
	.lag_ms = 11,
	.unacked_ms = 12,
};

static void expect_status(const json_t *state)
{
	static const char *const numbers[] = {"read",	 "published", "acked",	   "duplicates",
					      "retries", "skipped",   "cursorLost"};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		expect_number(state, numbers[i], (json_int_t)i + 1);
	expect_number(state, "index", 9);
	expect_number(state, "lagEvents", 10);
	expect_number(state, "lagMs", 11);
	expect_number(state, "oldestUnackedMs", 12);
	expect_number(state, "restarts", 13);
	expect_text(state, "server", "nats://h:1");
	expect_text(state, "reason", "full");
	expect_text(state, "why", "no space");
	expect_text(state, "warnings", "a warning");
	ck_assert(json_is_true(json_object_get(state, "landlock")));
	expect_number(json_object_get(state, "errors"), "full", 8);
	ck_assert_uint_eq(json_object_size(json_object_get(state, "errors")), 1);
}

UNIT_TEST(the_forwarders_status_is_described)
{
	struct forwarding f = {.wanted = true,
			       .running = true,
			       .starting = true,
			       .backoff_ms = 9999,
			       .restarts = 13};
	struct link_order order;
	json_t *state;
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	f.fd = fds[0];
	state = forwarding_describe(&f);
	expect_text(state, "state", "starting");
	expect_text(state, "reason", "");
	json_decref(state);
	link_put_status(fds[1], &status);
	forwarding_update(&f);
	ck_assert(!f.starting);
	ck_assert_uint_lt(f.backoff_ms, 9999);
	state = forwarding_describe(&f);
	expect_text(state, "state", "connected");
	expect_status(state);
	json_decref(state);
	ck_assert_int_eq(forwarding_rewind(&f, LINK_REWIND_INDEX, 77), 0);
	ck_assert_int_eq(link_take_order(fds[1], &order), 1);
	ck_assert_uint_eq(order.kind, LINK_REWIND_INDEX);
	ck_assert_uint_eq(order.index, 77);
	close_fd(fds[0]);
	close_fd(fds[1]);
	f.fd = -1;
	ck_assert_int_eq(forwarding_rewind(&f, LINK_REWIND_INDEX, 77), -ENOTCONN);
	state = forwarding_describe(&f);
	expect_text(state, "state", "starting");
	json_decref(state);
	f.wanted = false;
	ck_assert_ptr_null(forwarding_describe(&f));
}

/* ---- the end ---- */

static struct lifecycle life;
static uv_timer_t busy;
static uv_async_t last;
static unsigned turns, finished, overdue;

static void on_busy(uv_timer_t *timer _unused_)
{
	turns++;
}

static void on_last(uv_async_t *async _unused_)
{
	turns = 3;
}

static void on_signal(void *ctx _unused_, int number)
{
	ck_assert_int_eq(number, SIGUSR1);
	lifecycle_stop(&life, 60000);
	/* The second call does nothing: not even its shorter time counts. */
	lifecycle_stop(&life, 0);
}

static bool is_done(void *ctx)
{
	ck_assert_ptr_eq(ctx, &turns);
	return turns >= 3;
}

static void finish(void *ctx _unused_)
{
	finished++;
	uv_close((uv_handle_t *)&busy, NULL);
	uv_close((uv_handle_t *)&last, NULL);
}

static void on_overdue(void *ctx _unused_)
{
	overdue++;
	turns = 3;
}

static const struct lifecycle_ops ops = {
	.on_signal = on_signal, .is_done = is_done, .finish = finish, .on_overdue = on_overdue};

static void begin_life(void)
{
	static const int signals[] = {SIGUSR1};

	turns = finished = overdue = 0;
	ck_assert_int_eq(lifecycle_init(&life, &ops, signals, ARRAY_SIZE(signals), &turns), 0);
	uv_timer_init(&life.loop, &busy);
	uv_async_init(&life.loop, &last, on_last);
}

UNIT_TEST(it_ends_when_all_is_done)
{
	begin_life();
	uv_timer_start(&busy, on_busy, 1, 1);
	raise(SIGUSR1);
	lifecycle_run(&life);
	ck_assert_uint_eq(finished, 1);
	ck_assert_uint_eq(overdue, 0);
	ck_assert_uint_ge(turns, 3);
}

UNIT_TEST(an_end_that_takes_too_long_is_overdue)
{
	begin_life();
	lifecycle_stop(&life, 1);
	lifecycle_run(&life);
	ck_assert_uint_eq(overdue, 1);
	ck_assert_uint_eq(finished, 1);
}

/* The last completion came while the whole process stood still, for longer than the end may take.
 */
UNIT_TEST(a_machine_that_stands_still_is_not_overdue)
{
	begin_life();
	lifecycle_stop(&life, 10);
	uv_async_send(&last);
	usleep(50 * 1000);
	lifecycle_run(&life);
	ck_assert_uint_eq(overdue, 0);
	ck_assert_uint_eq(finished, 1);
}
