/* SPDX-License-Identifier: MIT */
/*
 * The pipeline with its real threads, and a sink that remembers: the order of what is committed,
 * what happens while it cannot be, and that nothing is lost or told twice.
 */
#include <check.h>
#include <pthread.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/pipeline/pipeline.h"
#include "tests/unit/unit.h"

/* ---- a sink that remembers ---- */

struct memory_sink {
	struct evidence_sink base;
	pthread_mutex_t lock;
	char *data;
	size_t len;
	uint64_t lines;
	unsigned commits, failures; /* failures: to come */
	unsigned delay_us;
};

static struct memory_sink sink;

static int sink_commit(struct evidence_sink *base, const struct iovec *lines, size_t n,
		       uint64_t n_lines)
{
	struct memory_sink *s = (struct memory_sink *)base;
	int r = 0;

	if (s->delay_us)
		usleep(s->delay_us);
	pthread_mutex_lock(&s->lock);
	if (s->failures > 0) {
		s->failures--;
		r = -ENOSPC;
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		s->data = realloc(s->data, s->len + lines[i].iov_len);
		memcpy(s->data + s->len, lines[i].iov_base, lines[i].iov_len);
		s->len += lines[i].iov_len;
	}
	if (r == 0) {
		s->lines += n_lines;
		s->commits++;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void sink_close(struct evidence_sink *base)
{
	(void)base;
}

static const struct evidence_sink_ops sink_ops = {.commit = sink_commit, .close = sink_close};

/* ---- a loop with a pipeline ---- */

static uv_loop_t loop;
static uv_timer_t deadline;
static struct pipeline *pipeline;
static unsigned progress, errors;

static void on_progress(void *ctx, int error, bool fatal)
{
	(void)ctx;
	ck_assert(!fatal);
	progress++;
	errors += error < 0;
}

static void begin(size_t max_inflight)
{
	static const struct signer_options off = {.algorithm = "off"};
	struct pipeline_options options = {
		.sink = &sink.base,
		.workers = 3,
		.max_inflight = max_inflight,
		.on_progress = on_progress,
	};
	char why[SIGN_WHY_MAX];

	sink = (struct memory_sink){.base.ops = &sink_ops};
	pthread_mutex_init(&sink.lock, NULL);
	progress = errors = 0;
	uv_loop_init(&loop);
	uv_timer_init(&loop, &deadline);
	ck_assert_int_eq(signer_open(&off, &options.signer, why), 0);
	ck_assert_int_eq(pipeline_new(&loop, &options, &pipeline), 0);
}

static void end(void)
{
	pipeline_free(pipeline);
	uv_close((uv_handle_t *)&deadline, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	pthread_mutex_destroy(&sink.lock);
	free(sink.data);
}

static void on_deadline(uv_timer_t *timer)
{
	(void)timer;
	ck_abort_msg("the pipeline does not become idle");
}

static void run_until_idle(void)
{
	pipeline_flush(pipeline);
	uv_timer_start(&deadline, on_deadline, 20000, 0);
	while (!pipeline_idle(pipeline))
		uv_run(&loop, UV_RUN_ONCE);
	uv_timer_stop(&deadline);
}

static char cell_ids[3][8] = {"a", "b", "c"};
static struct stream_identity streams[3] = {
	{.cell_id = cell_ids[0], .run_id = cell_ids[0], .spec_hash = cell_ids[0]},
	{.cell_id = cell_ids[1], .run_id = cell_ids[1], .spec_hash = cell_ids[1]},
	{.cell_id = cell_ids[2], .run_id = cell_ids[2], .spec_hash = cell_ids[2]},
};

static void submit(unsigned stream, uint64_t sequence, const char *text)
{
	struct event *e =
		pipeline_event(pipeline, EVENT_UNKNOWN_SOURCE, &streams[stream], sequence);

	event_add_text(e, EVENT_KEY_SOURCE, pipeline_copy(pipeline, wire_text(text)));
	pipeline_submit(pipeline, e);
}

/* Each line a whole event, each stream's numbers from 1 on; returns the number of lines. */
static uint64_t check_lines(void)
{
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	uint64_t last[3] = {0}, n = 0;

	for (size_t at = 0; at < sink.len;) {
		const char *line = sink.data + at, *why;
		const char *newline = memchr(line, '\n', sink.len - at);
		const struct json_node *data;
		struct wire_text cell;
		uint64_t sequence;
		size_t offset;

		ck_assert_ptr_nonnull(newline);
		ck_assert_int_eq(
			json_document_read(doc, line, (size_t)(newline - line), &why, &offset), 0);
		data = json_member(doc, json_document_root(doc), "data");
		ck_assert(json_member_string(doc, data, "cellId", &cell));
		ck_assert(json_member_uint(doc, data, "sequence", &sequence));
		ck_assert_uint_eq(sequence, ++last[*cell.data - 'a']);
		at += (size_t)(newline - line) + 1;
		n++;
	}
	json_document_free(doc);
	return n;
}

/* ---- tests ---- */

START_TEST(in_order)
{
	uint64_t sequence[3] = {0}, seed = unit_seed();

	begin(0);
	for (unsigned i = 0; i < 20000; i++) {
		const unsigned stream = (unsigned)(unit_random(&seed) % 3);

		submit(stream, ++sequence[stream], "x");
		if (i % 1000 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	run_until_idle();
	ck_assert_uint_eq(check_lines(), 20000);
	ck_assert_uint_eq(sink.lines, 20000);
	ck_assert_uint_eq(pipeline_stats(pipeline)->lines, 20000);
	ck_assert_uint_eq(pipeline_stats(pipeline)->bytes, sink.len);
	ck_assert_uint_eq(pipeline_stats(pipeline)->inflight_bytes, 0);
	end();
}
END_TEST

/* A batch does not wait to be full. */
START_TEST(a_single_event)
{
	begin(0);
	submit(0, 1, "x");
	uv_timer_start(&deadline, on_deadline, 20000, 0);
	while (!pipeline_idle(pipeline))
		uv_run(&loop, UV_RUN_ONCE);
	uv_timer_stop(&deadline);
	ck_assert_uint_eq(check_lines(), 1);
	end();
}
END_TEST

/* What fails is given again, whole and in its order. */
START_TEST(a_sink_that_fails)
{
	begin(0);
	sink.failures = 2;
	for (uint64_t i = 1; i <= 1000; i++)
		submit(0, i, "x");
	run_until_idle();
	ck_assert_uint_ge(errors, 1);
	ck_assert_int_eq(pipeline_stats(pipeline)->sink_error, 0);
	ck_assert_uint_eq(check_lines(), 1000);
	end();
}
END_TEST

/* At the bound it says so, and when there is room it says so again; nothing is dropped. */
START_TEST(the_bound)
{
	char text[1001];
	uint64_t n = 0;
	bool was_full = false;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	begin(1024 * 1024);
	sink.delay_us = 20000;
	while (n < 5000) {
		if (pipeline_full(pipeline)) {
			was_full = true;
			ck_assert_uint_lt(pipeline_stats(pipeline)->inflight_bytes,
					  2u * 1024u * 1024u);
			uv_run(&loop, UV_RUN_ONCE);
			continue;
		}
		submit(0, ++n, text);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	run_until_idle();
	ck_assert(was_full);
	ck_assert(!pipeline_full(pipeline));
	ck_assert_uint_eq(check_lines(), 5000);
	end();
}
END_TEST

static uint64_t deferred_at;

static void on_deferred(void *arg)
{
	(void)arg;
	deferred_at = sink.lines;
}

/* Not before all that was submitted by then is committed. */
START_TEST(deferred)
{
	begin(0);
	sink.delay_us = 5000;
	for (uint64_t i = 1; i <= 700; i++)
		submit(1, i, "x");
	pipeline_defer(pipeline, on_deferred, NULL);
	deferred_at = 0;
	for (uint64_t i = 701; i <= 900; i++)
		submit(1, i, "x");
	run_until_idle();
	ck_assert_uint_ge(deferred_at, 700);
	/* With nothing on its way it is called all the same. */
	deferred_at = 0;
	pipeline_defer(pipeline, on_deferred, NULL);
	run_until_idle();
	ck_assert_uint_eq(deferred_at, 900);
	end();
}
END_TEST

/* An event of the largest size there is, among small ones. */
START_TEST(large_events)
{
	_cleanup_free_ char *text = malloc(60 * 1024 + 1);

	memset(text, 'y', 60 * 1024);
	text[60 * 1024] = '\0';
	begin(0);
	for (uint64_t i = 1; i <= 300; i++)
		submit(2, i, i % 3 ? "x" : text);
	run_until_idle();
	ck_assert_uint_eq(check_lines(), 300);
	end();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pipeline");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, in_order);
	tcase_add_test(tc, a_single_event);
	tcase_add_test(tc, a_sink_that_fails);
	tcase_add_test(tc, the_bound);
	tcase_add_test(tc, deferred);
	tcase_add_test(tc, large_events);
	return unit_run("pipeline", &tc, 1);
}
