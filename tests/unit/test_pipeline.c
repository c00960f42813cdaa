/* SPDX-License-Identifier: MIT */
/* The pipeline with a sink of the test's: order, bounds, retries, and batches with their memory. */
#include "host-receiver/pipeline/log_start.h"
#include "host-receiver/pipeline/pipeline.h"

#include "common/util.h"
#include "host-receiver/pipeline/batch.h"
#include "tests/unit/sign_client.h"
#include "tests/unit/unit.h"

/* What a sink was given, and how it shall answer. */
struct fake_sink {
	struct evidence_sink sink;
	atomic_int answer;
	int close_answer;
	atomic_bool hold, held; /* shall it not answer yet; does somebody wait */
	atomic_uint commits, lines, closed;
	size_t checkpoint_len;
	uint64_t next; /* the sequence that must come next */
	char last[4096];
};

static uint64_t sequence_of(const char *line, size_t len)
{
	static const char key[] = "\"sequence\":";
	const char *at = memmem(line, len, key, sizeof(key) - 1);

	ck_assert(at != NULL);
	return strtoull(at + sizeof(key) - 1, NULL, 10);
}

static int fake_commit(struct evidence_sink *sink, const struct evidence_group *group)
{
	const struct iovec *lines = group->lines;
	const size_t n = group->n;
	const uint64_t n_lines = group->n_lines;
	struct fake_sink *s = (struct fake_sink *)sink;
	const int answer = s->answer;
	uint64_t seen = 0;

	s->commits++;
	while (s->hold) {
		s->held = true;
		usleep(1000);
	}
	if (answer < 0)
		return answer;
	ck_assert_uint_gt(n, 0);
	for (size_t i = 0; i < n; i++) {
		const char *at = lines[i].iov_base, *const end = at + lines[i].iov_len;

		ck_assert(at < end);
		while (at < end) {
			const char *newline = memchr(at, '\n', (size_t)(end - at));

			ck_assert(newline != NULL);
			ck_assert_uint_eq(sequence_of(at, (size_t)(newline - at)), s->next);
			snprintf(s->last, sizeof(s->last), "%.*s", (int)(newline - at), at);
			s->next++;
			seen++;
			at = newline + 1;
		}
	}
	ck_assert_uint_eq(seen, n_lines);
	s->lines += (unsigned)seen;
	*group->ret_checkpoint_len = s->checkpoint_len;
	return 0;
}

static int fake_close(struct evidence_sink *sink)
{
	struct fake_sink *s = (struct fake_sink *)sink;

	s->closed++;
	return s->close_answer;
}

static const struct evidence_sink_ops fake_ops = {.commit = fake_commit, .close = fake_close};

struct setup {
	uv_loop_t loop;
	struct fake_sink sink;
	struct pipeline *pipeline;
	struct stream_identity stream;
	uint64_t sequence;
	int last_error;
	bool fatal;
	unsigned deferred;
};

static void on_progress(void *ctx, int error, bool fatal)
{
	struct setup *s = ctx;

	s->last_error = error;
	s->fatal |= fatal;
}

static struct signer *no_signing(void)
{
	const struct signing_options options = {.algorithm = "off"};
	struct signer *signer;
	char why[SIGN_WHY_MAX];

	ck_assert_int_eq(signer_open(NULL, &options, &signer, why), 0);
	return signer;
}

static void begin_with(struct setup *s, size_t max_inflight,
		       void (*on_durable)(void *ctx, struct pipeline_account *account))
{
	static char cell_id[] = "c", run_id[] = "r", spec_hash[] = "h";

	*s = (struct setup){.sink = {.sink.ops = &fake_ops, .next = 1}};
	s->stream.cell_id = cell_id;
	s->stream.run_id = run_id;
	s->stream.spec_hash = spec_hash;
	const struct pipeline_options options = {
		.signer = no_signing(),
		.sink = &s->sink.sink,
		.workers = 3,
		.max_inflight = max_inflight,
		.on_progress = on_progress,
		.on_durable = on_durable,
		.ctx = s,
	};

	ck_assert_int_eq(uv_loop_init(&s->loop), 0);
	ck_assert_int_eq(pipeline_new(&s->loop, &options, &s->pipeline), 0);
}

static void begin(struct setup *s, size_t max_inflight)
{
	begin_with(s, max_inflight, NULL);
}

static void submit(struct setup *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct event *e =
			pipeline_event(s->pipeline, EVENT_AGENT_RESUMED, &s->stream, ++s->sequence);

		event_add_uint(e, EVENT_KEY_SILENT_MS, 1);
		event_add_text(e, EVENT_KEY_SESSION,
			       pipeline_copy(s->pipeline, wire_text("a \"text\"\n")));
		pipeline_submit(s->pipeline, e);
	}
}

static void turn_until_idle(struct setup *s)
{
	for (int i = 0; i < 120000 && !pipeline_idle(s->pipeline); i++) {
		uv_run(&s->loop, UV_RUN_NOWAIT);
		usleep(500);
	}
	ck_assert(pipeline_idle(s->pipeline));
}

static void end(struct setup *s)
{
	ck_assert_int_eq(pipeline_free(s->pipeline), s->sink.close_answer);
	ck_assert_uint_eq(s->sink.closed, 1);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&s->loop), 0);
}

UNIT_TEST(every_event_in_its_order)
{
	struct setup s;

	begin(&s, 0);
	for (int i = 0; i < 200; i++) {
		submit(&s, 1 + (unsigned)(i * 37 % 600));
		uv_run(&s.loop, UV_RUN_NOWAIT);
	}
	turn_until_idle(&s);
	ck_assert_uint_eq(s.sink.lines, s.sequence);
	ck_assert_uint_eq(pipeline_stats(s.pipeline)->lines, s.sequence);
	ck_assert_uint_eq(pipeline_stats(s.pipeline)->inflight_bytes, 0);
	ck_assert_msg(strstr(s.sink.last, "\"session\":\"a \\\"text\\\"\\n\"") != NULL, "%s",
		      s.sink.last);
	end(&s);
}

/* The last lines may not be on disk: the owner must know it. */
UNIT_TEST(a_sink_that_cannot_close_is_reported)
{
	struct setup s;

	begin(&s, 0);
	submit(&s, 1);
	turn_until_idle(&s);
	s.sink.close_answer = -EIO;
	end(&s);
}

UNIT_TEST(a_batch_closes_by_itself)
{
	struct setup s;

	begin(&s, 0);
	submit(&s, 1);
	ck_assert(!pipeline_idle(s.pipeline));
	turn_until_idle(&s); /* nobody flushes */
	ck_assert_uint_eq(s.sink.lines, 1);
	submit(&s, BATCH_EVENTS_MAX);
	ck_assert_uint_gt(pipeline_stats(s.pipeline)->inflight_bytes, 0);
	turn_until_idle(&s);
	end(&s);
}

UNIT_TEST(a_failed_commit_is_tried_again)
{
	struct setup s;

	begin(&s, 0);
	s.sink.answer = -ENOSPC;
	submit(&s, 1000);
	for (int i = 0; i < 120000 && s.sink.commits < 2; i++) {
		uv_run(&s.loop, UV_RUN_NOWAIT);
		usleep(500);
	}
	ck_assert_uint_ge(s.sink.commits, 2);
	ck_assert_int_eq(s.last_error, -ENOSPC);
	ck_assert_int_eq(pipeline_stats(s.pipeline)->sink_error, -ENOSPC);
	ck_assert(!pipeline_idle(s.pipeline) && !s.fatal);
	submit(&s, 1000);
	s.sink.answer = 0;
	turn_until_idle(&s);
	ck_assert_uint_eq(s.sink.lines, 2000);
	ck_assert_int_eq(pipeline_stats(s.pipeline)->sink_error, 0);
	ck_assert_int_eq(s.last_error, 0);
	end(&s);
}

static void turn_for(struct setup *s, unsigned ms)
{
	for (unsigned i = 0; i < ms; i++) {
		uv_run(&s->loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
}

static size_t inflight(const struct setup *s)
{
	return pipeline_stats(s->pipeline)->inflight_bytes;
}

UNIT_TEST(a_batch_costs_the_memory_it_takes)
{
	const size_t empty = sizeof(struct batch) + BATCH_BLOCK_SIZE;
	struct setup s;

	begin(&s, 0);
	s.sink.answer = -EIO;
	submit(&s, 1);
	pipeline_flush(s.pipeline);
	ck_assert_uint_ge(inflight(&s), empty);
	/* Given to the sink, so its lines are written. */
	while (s.sink.commits < 1)
		turn_for(&s, 1);
	ck_assert_uint_ge(inflight(&s), empty + 400);
	ck_assert_uint_le(inflight(&s), empty + sizeof(struct batch_block) + 4096);
	s.sink.answer = 0;
	turn_until_idle(&s);
	ck_assert_uint_eq(inflight(&s), 0);
	end(&s);
}

UNIT_TEST(events_fill_batches_while_the_sink_fails)
{
	const size_t empty = sizeof(struct batch);
	struct setup s;
	size_t before;

	begin(&s, 0);
	s.sink.answer = -EIO;
	submit(&s, 1);
	while (s.last_error != -EIO)
		turn_for(&s, 1);
	before = inflight(&s);
	for (unsigned i = 0; i < 50; i++) {
		submit(&s, 1);
		turn_for(&s, 2 * PIPELINE_BATCH_MS);
	}
	/* In one batch, which counts as it is filled. */
	ck_assert_uint_ge(inflight(&s), before + empty);
	ck_assert_uint_lt(inflight(&s), before + 2 * empty);
	/* A full one is closed, and so is any that its owner wants closed. */
	submit(&s, BATCH_EVENTS_MAX - 50);
	ck_assert_uint_ge(inflight(&s), before + empty);
	submit(&s, 1);
	turn_for(&s, 2 * PIPELINE_BATCH_MS);
	pipeline_flush(s.pipeline);
	ck_assert_uint_ge(inflight(&s), before + 2 * empty);
	submit(&s, 1);
	turn_for(&s, 2 * PIPELINE_BATCH_MS);
	s.sink.answer = 0;
	turn_until_idle(&s); /* nobody flushes */
	ck_assert_uint_eq(s.sink.lines, s.sequence);
	end(&s);
}

UNIT_TEST(events_fill_batches_while_the_sink_is_slow)
{
	struct setup s;
	size_t before;

	begin(&s, 0);
	s.sink.hold = true;
	for (unsigned i = 0; i < PIPELINE_GROUP_MAX; i++) {
		submit(&s, 1);
		pipeline_flush(s.pipeline);
	}
	while (!s.sink.held)
		turn_for(&s, 1);
	before = inflight(&s);
	for (unsigned i = 0; i < 50; i++) {
		submit(&s, 1);
		turn_for(&s, 2 * PIPELINE_BATCH_MS);
	}
	ck_assert_uint_lt(inflight(&s), before + 2 * (sizeof(struct batch) + 64 * 1024));
	s.sink.hold = false;
	turn_until_idle(&s);
	ck_assert_uint_eq(s.sink.lines, s.sequence);
	end(&s);
}

UNIT_TEST(a_sink_without_a_reader_ends_the_pipeline)
{
	struct setup s;

	begin(&s, 0);
	s.sink.answer = -EPIPE;
	submit(&s, 10);
	pipeline_flush(s.pipeline);
	for (int i = 0; i < 120000 && !s.fatal; i++) {
		uv_run(&s.loop, UV_RUN_NOWAIT);
		usleep(500);
	}
	ck_assert(s.fatal);
	ck_assert_uint_eq(s.sink.commits, 1);
	end(&s);
}

UNIT_TEST(what_is_in_flight_is_bounded)
{
	const size_t bound = 1024 * 1024;
	struct setup s;

	begin(&s, bound);
	s.sink.answer = -EIO;
	while (!pipeline_full(s.pipeline))
		submit(&s, 1);
	ck_assert_uint_ge(pipeline_stats(s.pipeline)->inflight_bytes, bound);
	ck_assert_uint_le(pipeline_stats(s.pipeline)->inflight_bytes,
			  bound + sizeof(struct batch) + BATCH_BLOCK_SIZE + 4096);
	s.sink.answer = 0;
	turn_until_idle(&s);
	ck_assert(!pipeline_full(s.pipeline));
	end(&s);
}

/* A text that JSON escapes makes the line six times as long: that is known at once. */
UNIT_TEST(a_line_counts_with_its_real_length)
{
	struct pipeline_account account = {0};
	static char hostile[1000];
	struct setup s;

	memset(hostile, 1, sizeof(hostile));
	begin(&s, 0);
	s.sink.answer = -EIO;
	for (unsigned i = 1; i <= BATCH_EVENTS_MAX; i++) {
		struct event *e =
			pipeline_event(s.pipeline, EVENT_UNKNOWN_SOURCE, &s.stream, ++s.sequence);
		size_t size;

		event_add_text(e, EVENT_KEY_SOURCE,
			       pipeline_copy(s.pipeline, (struct wire_text){hostile, i}));
		size = pipeline_submit_for(s.pipeline, e, &account);
		ck_assert_uint_ge(size, 400 + 6 * i);
		ck_assert_uint_le(size, 600 + 6 * i);
	}
	ck_assert_uint_eq(account.inflight, account.bytes);
	s.sink.answer = 0;
	turn_until_idle(&s);
	/* Not signed: the account and the sink agree to the byte. */
	ck_assert_uint_eq(account.bytes, pipeline_stats(s.pipeline)->bytes);
	ck_assert_uint_eq(account.inflight, 0);
	end(&s);
}

static unsigned durable_calls;

static void on_durable(void *ctx, struct pipeline_account *account)
{
	struct setup *s = ctx;

	durable_calls++;
	/* Only what the sink took is durable: the mark is the number of the event. */
	ck_assert_uint_le(account->durable.seq, s->sink.lines);
	ck_assert_ptr_eq(account->owner, s);
}

static void submit_marked(struct setup *s, struct pipeline_account *account)
{
	struct event *e =
		pipeline_event(s->pipeline, EVENT_AGENT_RESUMED, &s->stream, ++s->sequence);

	event_add_uint(e, EVENT_KEY_SILENT_MS, 1);
	pipeline_submit_for(s->pipeline, e, account);
	pipeline_mark(s->pipeline, account,
		      (struct pipeline_mark){.session = 7, .seq = s->sequence});
}

UNIT_TEST(a_mark_is_durable_with_the_commit_and_not_before)
{
	struct pipeline_account one, two;
	struct setup s;

	begin_with(&s, 0, on_durable);
	one = two = (struct pipeline_account){.owner = &s};
	durable_calls = 0;
	s.sink.answer = -EIO;
	for (unsigned i = 0; i < 3 * BATCH_EVENTS_MAX; i++) {
		submit_marked(&s, &one);
		submit_marked(&s, &two);
	}
	while (s.sink.commits < 2)
		turn_for(&s, 1);
	ck_assert_uint_eq(durable_calls, 0);
	ck_assert_uint_eq(one.durable.seq, 0);
	ck_assert_uint_gt(one.inflight, 0);
	s.sink.answer = 0;
	turn_until_idle(&s);
	ck_assert_uint_eq(one.durable.seq, s.sequence - 1);
	ck_assert_uint_eq(two.durable.seq, s.sequence);
	ck_assert_uint_eq(two.durable.session, 7);
	ck_assert_uint_eq(one.inflight + two.inflight, 0);
	/* Also without an event, after all that was submitted. */
	submit(&s, 10);
	pipeline_mark(s.pipeline, &one, (struct pipeline_mark){.session = 8, .seq = s.sequence});
	ck_assert_uint_eq(one.durable.session, 7);
	turn_until_idle(&s);
	ck_assert_uint_eq(one.durable.session, 8);
	ck_assert_uint_eq(one.durable.seq, s.sequence);
	end(&s);
}

/* Checkpoint lines are the cells' as their own lines are. */
UNIT_TEST(accounts_share_the_checkpoint_lines)
{
	struct pipeline_account little, much;
	uint64_t was_little, was_much, all;
	struct setup s;

	begin(&s, 0);
	little = much = (struct pipeline_account){0};
	s.sink.checkpoint_len = 1000;
	for (unsigned i = 0; i < BATCH_EVENTS_MAX / 4; i++) {
		submit_marked(&s, &little);
		for (unsigned k = 0; k < 3; k++)
			submit_marked(&s, &much);
	}
	was_little = little.bytes;
	was_much = much.bytes;
	turn_until_idle(&s);
	little.bytes -= was_little;
	much.bytes -= was_much;
	all = little.bytes + much.bytes;
	/* Rounding loses less than a byte for each of the two in each batch. */
	ck_assert_uint_le(all, 1000 * s.sink.commits);
	ck_assert_uint_ge(all + 4 * 16, 1000 * s.sink.commits);
	ck_assert_uint_ge(much.bytes, 2 * little.bytes);
	ck_assert_uint_gt(little.bytes, 0);
	end(&s);
}

UNIT_TEST(a_given_up_group_makes_nothing_durable)
{
	struct pipeline_account account;
	struct setup s;

	begin_with(&s, 0, on_durable);
	account = (struct pipeline_account){.owner = &s};
	s.sink.answer = -EPIPE;
	submit_marked(&s, &account);
	for (int i = 0; i < 120000 && !s.fatal; i++)
		turn_for(&s, 1);
	ck_assert(pipeline_dead(s.pipeline));
	ck_assert_uint_eq(account.durable.seq, 0);
	end(&s);
}

/* What comes after a lost group would have a hole before it: the sink checks the order. */
UNIT_TEST(after_a_given_up_group_nothing_is_committed)
{
	struct setup s;

	begin(&s, 0);
	s.sink.hold = true;
	s.sink.answer = -EIO;
	submit(&s, 3);
	while (!s.sink.held)
		uv_run(&s.loop, UV_RUN_NOWAIT);
	/* The first group has its answer; those that wait after it would be taken. */
	s.sink.answer = 0;
	submit(&s, 3 * BATCH_EVENTS_MAX);
	usleep(20000);
	s.sink.hold = false;
	end(&s);
	ck_assert_uint_eq(s.sink.lines, s.sink.next - 1);
}

#define WINDOW_EVENTS_MAX 200000u /* far more than the window takes */

/* On a machine that is busy the stall may come first: then it is tried again. */
static bool close_window(struct setup *s)
{
	s->sink.hold = true;
	ck_assert(pipeline_window_open(s->pipeline));
	while (pipeline_window_open(s->pipeline) && s->sequence < WINDOW_EVENTS_MAX)
		submit(s, 100);
	if (!pipeline_window_open(s->pipeline))
		return true;
	s->sink.hold = false;
	turn_until_idle(s);
	end(s);
	return false;
}

UNIT_TEST(the_window_closes_and_a_stall_opens_it)
{
	struct setup s;
	unsigned tries = 0;

	do
		begin(&s, 0);
	while (!close_window(&s) && ++tries < 20);
	ck_assert_uint_lt(tries, 20);
	ck_assert_uint_lt(pipeline_share_max(s.pipeline), PIPELINE_INFLIGHT_DEFAULT / 8);
	ck_assert(!s.sink.held || !pipeline_window_open(s.pipeline));
	while (!pipeline_window_open(s.pipeline))
		turn_for(&s, 1); /* nothing is committed in this time */
	ck_assert(s.sink.held);
	s.sink.hold = false;
	turn_until_idle(&s);
	ck_assert(pipeline_window_open(s.pipeline));
	ck_assert_uint_eq(pipeline_share_max(s.pipeline), PIPELINE_INFLIGHT_DEFAULT / 8);
	end(&s);
}

static void count_deferred(void *arg)
{
	struct setup *s = arg;

	/* All that was submitted before it is committed. */
	ck_assert_uint_ge(s->sink.lines, 300);
	s->deferred++;
}

UNIT_TEST(deferred_comes_after_the_commit)
{
	struct setup s;

	begin(&s, 0);
	submit(&s, 300);
	pipeline_defer(s.pipeline, count_deferred, &s);
	ck_assert_uint_eq(s.deferred, 0);
	turn_until_idle(&s);
	ck_assert_uint_eq(s.deferred, 1);
	/* Also without an event of its own. */
	pipeline_defer(s.pipeline, count_deferred, &s);
	turn_until_idle(&s);
	ck_assert_uint_eq(s.deferred, 2);
	/* And with others before and behind it in one group. */
	for (unsigned i = 0; i < 50; i++) {
		submit(&s, 1);
		pipeline_flush(s.pipeline);
		pipeline_defer(s.pipeline, count_deferred, &s);
		pipeline_flush(s.pipeline);
	}
	turn_until_idle(&s);
	ck_assert_uint_eq(s.deferred, 52);
	ck_assert_uint_eq(s.sink.lines, 350);
	pipeline_defer(s.pipeline, count_deferred, &s);
	end(&s);
	ck_assert_uint_eq(s.deferred, 53);
}

static struct signer *open_signer(struct sign_client *client)
{
	char key[] = "/tmp/cellos-key-XXXXXX", why[SIGN_WHY_MAX];
	const struct signing_options options = {
		.algorithm = "hmac-sha256", .kid = "k9", .key_file = key};
	struct signer *signer;
	int fd = mkstemp(key);

	ck_assert_int_eq(write(fd, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 44), 44);
	close(fd);
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	return signer;
}

static unsigned threads_begun;

int __real_uv_thread_create(uv_thread_t *ret, uv_thread_cb entry, void *arg);
int __wrap_uv_thread_create(uv_thread_t *ret, uv_thread_cb entry, void *arg);
int __wrap_uv_thread_create(uv_thread_t *ret, uv_thread_cb entry, void *arg)
{
	threads_begun++;
	return __real_uv_thread_create(ret, entry, arg);
}

/* Of a pipeline with this signer, which is taken, and so many wanted. */
static unsigned workers_of(struct signer *signer, unsigned wanted)
{
	struct setup s = {.sink = {.sink.ops = &fake_ops, .next = 1}};
	const struct pipeline_options options = {
		.signer = signer,
		.sink = &s.sink.sink,
		.workers = wanted,
		.on_progress = on_progress,
		.ctx = &s,
	};

	threads_begun = 0;
	ck_assert_int_eq(uv_loop_init(&s.loop), 0);
	ck_assert_int_eq(pipeline_new(&s.loop, &options, &s.pipeline), 0);
	end(&s);
	/* One of them commits. */
	return threads_begun - 1;
}

/* The signer's first channel is not a worker's. A worker more than the others would have none. */
UNIT_TEST(each_worker_has_a_channel_of_its_own)
{
	struct sign_client *client = unit_sign_client();
	const unsigned most = sign_client_channels(client) - 1;

	ck_assert_uint_eq(workers_of(open_signer(client), most - 1), most - 1);
	ck_assert_uint_eq(workers_of(open_signer(client), most), most);
	ck_assert_uint_eq(workers_of(open_signer(client), most + 1), most);
	ck_assert_uint_eq(workers_of(no_signing(), most + 1), most + 1);
	sign_client_free(client);
}

UNIT_TEST(a_new_signer_signs_from_the_next_event_on)
{
	struct sign_client *client = unit_sign_client();
	struct signer *signer = open_signer(client);
	struct setup s;

	begin(&s, 0);
	submit(&s, 3);
	ck_assert_int_eq(pipeline_set_signer(s.pipeline, signer), 0);
	turn_until_idle(&s);
	ck_assert_ptr_null(strstr(s.sink.last, "k9"));
	/* The second batch is the first one's memory again: the sink sees each line once. */
	for (unsigned i = 0; i < 3; i++) {
		submit(&s, 1);
		turn_until_idle(&s);
		ck_assert_msg(strstr(s.sink.last, "\"signerKid\":\"k9\"") != NULL, "%s",
			      s.sink.last);
	}
	ck_assert_uint_eq(s.sink.lines, 6);
	end(&s);
	sign_client_free(client);
}

UNIT_TEST(a_batch_gives_memory_and_gives_it_back)
{
	struct batch *b = batch_new();
	char *first = batch_alloc(b, 1), *second = batch_alloc(b, 17);
	struct wire_text copy;
	bool ok = true;

	ck_assert_uint_eq((uintptr_t)first % 16, 0);
	ck_assert_ptr_eq(second, first + 16);
	ck_assert_uint_eq(batch_footprint(b),
			  sizeof(*b) + sizeof(struct batch_block) + BATCH_BLOCK_SIZE);
	memset(batch_alloc(b, 3 * BATCH_BLOCK_SIZE), 1, 3 * BATCH_BLOCK_SIZE);
	ck_assert_uint_ge(batch_footprint(b), sizeof(*b) + 4 * BATCH_BLOCK_SIZE);
	copy = batch_copy(b, wire_text("text"), &ok);
	ck_assert(ok && copy.len == 4 && memcmp(copy.data, "text", 4) == 0);
	copy = batch_copy(b, (struct wire_text){.data = NULL, .len = 0}, &ok);
	ck_assert(ok && copy.len == 0 && copy.data != NULL);
	batch_reset(b);
	ck_assert_uint_eq(b->cost, 0);
	ck_assert(!b->blocks || (!b->blocks->next && b->blocks->size <= BATCH_BLOCK_SIZE));
	memset(batch_alloc(b, BATCH_BLOCK_SIZE), 1, BATCH_BLOCK_SIZE);
	batch_free(b);
	batch_free(NULL);
}
/* A log's name begins with what is configured, or with the host's name. */
UNIT_TEST(a_prefix_is_of_origin_bytes)
{
	static const struct {
		const char *configured, *hostname, *want;
	} cases[] = {
		{"", "web-7.example.org", "cellos/web-7.example.org"},
		{"", "a b+\xc3\xa9", "cellos/a_b___"},
		{"example.org/rack_7", "web-7", "example.org/rack_7"},
	};
	char text[LOG_PREFIX_MAX + 2], prefix[LOG_PREFIX_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		log_origin_prefix(cases[i].configured, cases[i].hostname, prefix);
		ck_assert_str_eq(prefix, cases[i].want);
	}
	memset(text, 'a', sizeof(text));
	for (size_t len = LOG_PREFIX_MAX - 1; len <= LOG_PREFIX_MAX + 1; len++) {
		text[len] = '\0';
		ck_assert(log_origin_prefix_valid(text) == (len <= LOG_PREFIX_MAX));
		text[len] = 'a';
	}
	text[LOG_PREFIX_MAX + 1] = '\0';
	log_origin_prefix("", text, prefix);
	ck_assert_uint_eq(strlen(prefix), LOG_PREFIX_MAX);
	ck_assert(log_origin_prefix_valid(prefix));
	ck_assert(!log_origin_prefix_valid(""));
	ck_assert(!log_origin_prefix_valid("a b"));
	ck_assert(!log_origin_prefix_valid("a+b"));
}
