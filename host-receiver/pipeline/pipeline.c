/* SPDX-License-Identifier: MIT */
/*
 * The loop thread's half: it fills batches, closes them, takes committed batches back and reports
 * them. threads.c has the other half. The order of a turn is in on_progress(): batches come back,
 * their shares are settled and reported, then the batches are used again, then the owner is called.
 */
#include "host-receiver/pipeline/pipeline.h"

#include <assert.h>

#include "common/util.h"
#include "host-receiver/pipeline/internal.h"
#include "host-receiver/pipeline/threads.h"

const uint64_t pipeline_bucket_us[PIPELINE_BUCKETS - 1] = {
	100,   250,    500,    1000,   2500,	5000,	 10000,	   25000,
	50000, 100000, 250000, 500000, 1000000, 2500000, 10000000,
};

static void signer_unref(struct signer_ref *ref)
{
	if (--ref->refs > 0)
		return;
	signer_free(ref->signer);
	free(ref);
}

static struct signer_ref *signer_ref_new(struct signer *signer)
{
	struct signer_ref *ref = malloc(sizeof(*ref));

	if (!ref) {
		signer_free(signer);
		return NULL;
	}
	*ref = (struct signer_ref){.signer = signer, .refs = 1};
	return ref;
}

static void run_deferred(struct batch *b)
{
	for (struct batch_deferred *d = b->deferred; d; d = d->next)
		d->fn(d->arg);
	b->deferred = NULL;
}

/* The parts of the accounts in this batch are no longer in flight. */
static void settle_shares(struct pipeline *p, const struct batch *b)
{
	for (size_t i = 0; i < b->n_shares; i++) {
		struct pipeline_account *a = b->shares[i].account;

		a->inflight -= b->shares[i].bytes;
		if (b->durable && b->lines_size > 0)
			a->bytes += b->checkpoint_share * b->shares[i].bytes / b->lines_size;
		if (b->durable && b->shares[i].mark.session != 0)
			a->durable = b->shares[i].mark;
		if (a->listed)
			continue;
		a->listed = true;
		a->next = p->durable;
		p->durable = a;
	}
	p->lines_inflight -= b->lines_size;
}

/*
 * Measure how many bytes are committed in the time that an event may wait. That is the new window:
 * it grows if batches come back sooner, and shrinks if they come back later.
 */
static void measure_window(struct pipeline *p, const struct batch *first)
{
	const uint64_t now_ns = monotonic_ns();
	const uint64_t wanted_ns = PIPELINE_WINDOW_MS * NSEC_PER_MSEC + p->commit_ns;
	__uint128_t window;

	for (const struct batch *b = first; b; b = b->next)
		p->lately_bytes += b->lines_size;
	p->lately_ns += now_ns - p->progress_ns;
	p->progress_ns = now_ns;
	window = (__uint128_t)p->lately_bytes * wanted_ns / MAX(p->lately_ns, UINT64_C(1));
	window = MIN(window, (__uint128_t)PIPELINE_WINDOW_MAX);
	p->window = MAX((size_t)window, (size_t)PIPELINE_WINDOW_MIN);
	p->lately_bytes -= p->lately_bytes / 8;
	p->lately_ns -= p->lately_ns / 8;
}

static void report_durable(struct pipeline *p)
{
	struct pipeline_account *a;

	while ((a = p->durable)) {
		p->durable = a->next;
		a->listed = false;
		if (p->on_durable && a->owner)
			p->on_durable(p->ctx, a);
	}
}

static void recycle(struct pipeline *p, struct batch *b)
{
	run_deferred(b);
	atomic_fetch_sub(&p->stats.inflight_bytes, b->cost);
	signer_unref(b->signer);
	p->n_outstanding--;
	p->oldest = b->younger;
	if (!p->oldest)
		p->youngest = &p->oldest;
	if (p->n_free >= PIPELINE_FREE_MAX) {
		batch_free(b);
		return;
	}
	batch_reset(b);
	queue_put(&p->free_batches, b);
	p->n_free++;
}

static void close_overdue(struct pipeline *p);

static void on_progress(uv_async_t *handle)
{
	struct pipeline *p = handle->data;
	struct batch_queue committed;
	struct batch *b;
	bool fatal;

	uv_mutex_lock(&p->lock);
	committed = p->committed;
	if (!committed.first)
		queue_init(&committed);
	queue_init(&p->committed);
	fatal = p->fatal;
	uv_mutex_unlock(&p->lock);
	p->dead = fatal;
	if (committed.first)
		measure_window(p, committed.first);
	/* Before anything is freed, because a deferred call may free an account. */
	for (b = committed.first; b; b = b->next)
		settle_shares(p, b);
	report_durable(p);
	while ((b = committed.first)) {
		committed.first = b->next;
		recycle(p, b);
	}
	if (p->overdue)
		close_overdue(p);
	p->on_progress(p->ctx, atomic_load(&p->stats.sink_error), fatal);
}

void pipeline_flush(struct pipeline *p)
{
	struct batch *b = take_ptr(p->open);

	uv_timer_stop(&p->batch_timer);
	p->overdue = false;
	if (!b)
		return;
	b->number = p->next_number++;
	b->younger = NULL;
	*p->youngest = b;
	p->youngest = &b->younger;
	if (p->n_outstanding++ == 0)
		p->progress_ns = monotonic_ns();
	uv_mutex_lock(&p->lock);
	queue_put(&p->to_sign, b);
	uv_cond_signal(&p->work);
	uv_mutex_unlock(&p->lock);
}

/*
 * Close the open batch, unless it must wait: while the sink fails, or while a whole group waits
 * already. It is called again at each progress.
 */
static void close_overdue(struct pipeline *p)
{
	const bool failing = atomic_load(&p->stats.sink_error) != 0;

	p->overdue = (failing && p->n_outstanding > 0) || p->n_outstanding >= PIPELINE_GROUP_MAX;
	if (!p->overdue)
		pipeline_flush(p);
}

static void on_batch_timer(uv_timer_t *handle)
{
	close_overdue(handle->data);
}

static struct batch *open_batch(struct pipeline *p)
{
	if (p->open)
		return p->open;
	p->open = queue_take(&p->free_batches);
	if (p->open)
		p->n_free--;
	else
		p->open = batch_new();
	if (!p->open)
		pipeline_die("no memory", -ENOMEM);
	p->open->signer = p->signer;
	p->signer->refs++;
	uv_timer_start(&p->batch_timer, on_batch_timer, PIPELINE_BATCH_MS, 0);
	return p->open;
}

struct event *pipeline_event(struct pipeline *p, enum event_type type,
			     const struct stream_identity *stream, uint64_t sequence)
{
	struct batch *b = open_batch(p);
	struct event *e = &p->event;

	e->type = type;
	e->stream = stream;
	e->realtime_ms = clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
	e->monotonic_ns = monotonic_ns();
	e->sequence = sequence;
	e->n_fields = 0;
	e->n_details = 0;
	uuid_generate(&p->uuids, e->id);
	if (b->n_events == 0)
		b->oldest_ns = e->monotonic_ns;
	return e;
}

struct wire_text pipeline_copy(struct pipeline *p, struct wire_text text)
{
	bool ok = true;
	struct wire_text copy = batch_copy(open_batch(p), text, &ok);

	if (!ok)
		pipeline_die("no memory", -ENOMEM);
	return copy;
}

/* The account's share of the open batch. */
static struct batch_share *open_share(struct pipeline *p, struct pipeline_account *a)
{
	struct batch *b = open_batch(p);

	if (a->share < b->n_shares && b->shares[a->share].account == a)
		return &b->shares[a->share];
	a->share = (unsigned)b->n_shares++;
	b->shares[a->share] = (struct batch_share){.account = a};
	return &b->shares[a->share];
}

/*
 * The size at which a batch is closed although it has room for more events. If the workers and the
 * committer have enough batches, each one is filled completely, because every batch needs memory.
 */
static size_t lines_max(const struct pipeline *p)
{
	return p->n_outstanding < 2 * PIPELINE_WINDOW_BATCHES ? p->window / PIPELINE_WINDOW_BATCHES
							      : BATCH_LINES_MAX;
}

size_t pipeline_submit_for(struct pipeline *p, struct event *e, struct pipeline_account *a)
{
	struct batch *b = p->open;
	size_t size;
	int len;

	assert(b && e == &p->event);
	atomic_fetch_add_explicit(&p->stats.events, 1, memory_order_relaxed);
	len = batch_add(b, e, &p->clock);
	if (len < 0)
		pipeline_die("an event cannot be written", len);
	size = (size_t)len + p->line_overhead;
	b->lines_size += size;
	p->lines_inflight += size;
	if (a) {
		open_share(p, a)->bytes += size;
		a->inflight += size;
		a->bytes += size;
	}
	measure_footprint(p, b);
	if (b->n_events == BATCH_EVENTS_MAX || b->n_shares == BATCH_EVENTS_MAX ||
	    b->lines_size >= lines_max(p))
		pipeline_flush(p);
	if (p->on_full && pipeline_full(p))
		p->on_full(p->ctx);
	return size;
}

void pipeline_submit(struct pipeline *p, struct event *e)
{
	pipeline_submit_for(p, e, NULL);
}

void pipeline_mark(struct pipeline *p, struct pipeline_account *a, struct pipeline_mark mark)
{
	open_share(p, a)->mark = mark;
	if (p->open->n_shares == BATCH_EVENTS_MAX)
		pipeline_flush(p);
}

void pipeline_defer(struct pipeline *p, void (*fn)(void *arg), void *arg)
{
	struct batch *b = open_batch(p);
	struct batch_deferred *d = batch_alloc(b, sizeof(*d));

	if (!d)
		pipeline_die("no memory", -ENOMEM);
	*d = (struct batch_deferred){.next = b->deferred, .fn = fn, .arg = arg};
	b->deferred = d;
}

bool pipeline_full(const struct pipeline *p)
{
	return atomic_load(&p->stats.inflight_bytes) >= p->max_inflight;
}

uint64_t pipeline_oldest_ns(const struct pipeline *p)
{
	/* Batches come back in their order. A batch without events only carries deferred calls. */
	for (const struct batch *b = p->oldest; b; b = b->younger)
		if (b->n_events > 0)
			return b->oldest_ns;
	return p->open && p->open->n_events > 0 ? p->open->oldest_ns : 0;
}

bool pipeline_window_open(const struct pipeline *p)
{
	const uint64_t began_ns = p->commit_began_ns;

	return p->lines_inflight < p->window ||
	       (began_ns != 0 && monotonic_ns() >= began_ns + PIPELINE_STALL_MS * NSEC_PER_MSEC);
}

size_t pipeline_share_max(const struct pipeline *p)
{
	const size_t used = atomic_load(&p->stats.inflight_bytes);

	return used < p->max_inflight ? (p->max_inflight - used) / 8 : 0;
}

bool pipeline_dead(const struct pipeline *p)
{
	return p->dead;
}

bool pipeline_idle(const struct pipeline *p)
{
	return !p->open && p->n_outstanding == 0;
}

/* The size of a line without its event: '\n' and the envelope, at most. */
static size_t line_overhead(const struct signer *signer)
{
	const enum sign_algorithm algorithm = signer_algorithm(signer);

	if (!sign_algorithm_has_envelope(algorithm))
		return 1;
	return 408 + strlen(signer_kid(signer));
}

int pipeline_set_signer(struct pipeline *p, struct signer *signer)
{
	struct signer_ref *ref = signer_ref_new(signer);

	if (!ref)
		return -ENOMEM;
	pipeline_flush(p);
	signer_unref(p->signer);
	p->signer = ref;
	p->line_overhead = line_overhead(signer);
	return 0;
}

const struct pipeline_stats *pipeline_stats(const struct pipeline *p)
{
	return &p->stats;
}

static unsigned processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : (unsigned)MIN(n, 64L);
}

/* Each worker has its own channel to the signer. */
static unsigned usable_workers(const struct pipeline_options *o)
{
	const struct sign_client *client = signer_client(o->signer);
	const unsigned n = o->workers ? o->workers : processors();

	return client ? MIN(n, sign_client_channels(client) - 1) : n;
}

int pipeline_new(uv_loop_t *loop, const struct pipeline_options *o, struct pipeline **ret)
{
	const unsigned n = usable_workers(o);
	struct signer_ref *signer = signer_ref_new(o->signer);
	struct pipeline *p = calloc(1, sizeof(*p) + n * sizeof(p->workers[0]));

	if (p)
		p->leaves = malloc(PIPELINE_GROUP_MAX * BATCH_EVENTS_MAX * sizeof(*p->leaves));
	if (!p || !signer || !p->leaves) {
		if (signer)
			signer_unref(signer);
		if (p)
			free(p->leaves);
		free(p);
		o->sink->ops->close(o->sink);
		return -ENOMEM;
	}
	p->loop = loop;
	p->signer = signer;
	p->sink = o->sink;
	p->max_inflight = o->max_inflight ? o->max_inflight : PIPELINE_INFLIGHT_DEFAULT;
	p->on_progress = o->on_progress;
	p->on_full = o->on_full;
	p->on_durable = o->on_durable;
	p->line_overhead = line_overhead(o->signer);
	p->ctx = o->ctx;
	p->window = PIPELINE_WINDOW_MIN;
	p->youngest = &p->oldest;
	queue_init(&p->free_batches);
	queue_init(&p->to_sign);
	queue_init(&p->committed);
	uv_mutex_init(&p->lock);
	uv_cond_init(&p->work);
	uv_cond_init(&p->ready);
	uv_cond_init(&p->retry);
	uv_timer_init(loop, &p->batch_timer);
	uv_async_init(loop, &p->progress, on_progress);
	p->batch_timer.data = p->progress.data = p;
	if (!pipeline_threads_start(p, n)) {
		pipeline_free(p);
		return -EAGAIN;
	}
	*ret = p;
	return 0;
}

static void discard(struct batch *b)
{
	if (!b)
		return;
	run_deferred(b);
	batch_free(b);
}

static void free_queue(struct batch_queue *q)
{
	struct batch *b;

	while ((b = queue_take(q)))
		discard(b);
}

static void on_closed(uv_handle_t *handle)
{
	struct pipeline *p = handle->data;

	if (--p->closing_handles > 0)
		return;
	free(p->leaves);
	free(p);
}

int pipeline_free(struct pipeline *p)
{
	int r;

	if (!p)
		return 0;
	pipeline_threads_stop(p);
	discard(p->open);
	free_queue(&p->free_batches);
	free_queue(&p->to_sign);
	free_queue(&p->committed);
	while (p->signed_batches) {
		struct batch *b = p->signed_batches;

		p->signed_batches = b->next;
		discard(b);
	}
	/* Batches that never came back may hold references; the key is freed in any case. */
	signer_free(p->signer->signer);
	free(p->signer);
	r = p->sink->ops->close(p->sink);
	uv_cond_destroy(&p->retry);
	uv_cond_destroy(&p->ready);
	uv_cond_destroy(&p->work);
	uv_mutex_destroy(&p->lock);
	p->closing_handles = 2;
	uv_close((uv_handle_t *)&p->batch_timer, on_closed);
	uv_close((uv_handle_t *)&p->progress, on_closed);
	return r;
}
