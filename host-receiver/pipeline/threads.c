/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/threads.h"

#include "common/util.h"
#include "host-receiver/pipeline/internal.h"

static void measure(struct pipeline_histogram *h, uint64_t ns)
{
	const uint64_t us = ns / NSEC_PER_USEC;
	size_t i = 0;

	while (i < ARRAY_SIZE(pipeline_bucket_us) && us > pipeline_bucket_us[i])
		i++;
	atomic_fetch_add_explicit(&h->count[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_us, us, memory_order_relaxed);
}

/* ---- workers ---- */

static void put_signed(struct pipeline *p, struct batch *b)
{
	struct batch **at = &p->signed_batches;

	while (*at && (*at)->number < b->number)
		at = &(*at)->next;
	b->next = *at;
	*at = b;
	if (b->number == p->commit_next)
		uv_cond_signal(&p->ready);
}

static void worker_main(void *arg)
{
	struct pipeline *p = arg;
	struct batch_writer *writer = calloc(1, sizeof(*writer));

	if (!writer || !(writer->hasher = tree_hasher_new()))
		pipeline_die("no memory", -ENOMEM);
	writer->channel = 1 + atomic_fetch_add(&p->next_channel, 1);
	uv_mutex_lock(&p->lock);
	for (;;) {
		struct batch *b = queue_take(&p->to_sign);
		uint64_t began;

		if (!b) {
			if (p->stop)
				break;
			uv_cond_wait(&p->work, &p->lock);
			continue;
		}
		uv_mutex_unlock(&p->lock);
		began = monotonic_ns();
		b->error = batch_sign(b, b->signer->signer, writer);
		measure(&p->stats.sign, monotonic_ns() - began);
		measure_footprint(p, b);
		uv_mutex_lock(&p->lock);
		put_signed(p, b);
	}
	uv_mutex_unlock(&p->lock);
	tree_hasher_free(writer->hasher);
	free(writer);
}

/* ---- committer ---- */

/*
 * Take the next batches that are ready: all of one signer, and with no more entries than may stand
 * between two checkpoints. Called with the lock held.
 */
static size_t take_group(struct pipeline *p, struct batch *group[static PIPELINE_GROUP_MAX])
{
	size_t n = 0, bytes = 0;

	while (n < PIPELINE_GROUP_MAX && p->signed_batches &&
	       p->signed_batches->number == p->commit_next) {
		struct batch *b = p->signed_batches;

		if (n > 0 && (b->signer != group[0]->signer ||
			      bytes + b->lines->len > EVIDENCE_GROUP_BYTES_MAX))
			break;
		bytes += b->lines->len;
		group[n++] = b;
		p->signed_batches = b->next;
		p->commit_next++;
	}
	return n;
}

static void set_error(struct pipeline *p, int error)
{
	if (atomic_exchange(&p->stats.sink_error, error) != error)
		uv_async_send(&p->progress);
}

_Static_assert(PIPELINE_GROUP_MAX *BATCH_EVENTS_MAX <= EVIDENCE_GROUP_ENTRIES_MAX,
	       "no more entries than may stand between two checkpoints");

struct group_lines {
	struct iovec lines[PIPELINE_GROUP_MAX];
	struct evidence_group group;
	uint64_t bytes;
};

/* Collect the lines and leaves of a group. The leaves go to p->leaves, side by side. */
static void gather(struct pipeline *p, struct batch *const *group, size_t n,
		   struct group_lines *ret)
{
	struct evidence_group *g = &ret->group;

	*g = (struct evidence_group){
		.lines = ret->lines,
		.signer = signer_tree(group[0]->signer->signer),
	};
	ret->bytes = 0;
	for (size_t i = 0; i < n; i++) {
		const struct batch *b = group[i];

		if (b->error < 0)
			pipeline_die("a batch cannot be signed", b->error);
		/* A batch that only carries marks or deferred calls has no line. */
		if (b->n_events > 0)
			ret->lines[g->n++] = (struct iovec){.iov_base = b->lines->data,
							    .iov_len = b->lines->len};
		if (g->signer)
			memcpy(p->leaves + g->n_lines, b->leaves,
			       b->n_events * sizeof(b->leaves[0]));
		g->n_lines += b->n_events;
		ret->bytes += b->lines->len;
	}
	g->leaves = g->signer ? p->leaves : NULL;
}

/*
 * The usual time of a commit. A single slow commit has little weight, because it says little about
 * the disk.
 */
static void note_commit(struct pipeline *p, uint64_t ns)
{
	const uint64_t was = p->commit_ns;

	atomic_store(&p->commit_ns, ns < was ? was - (was - ns) / 4 : was + (ns - was) / 32);
}

/* The part of a checkpoint line that belongs to so many bytes of its group. */
static size_t share_of(size_t checkpoint_len, size_t bytes, uint64_t of_bytes)
{
	return of_bytes > 0 ? (size_t)(checkpoint_len * bytes / of_bytes) : 0;
}

/* Try until the group is written or the pipeline stops. Returns false if it stopped. */
static bool commit_group(struct pipeline *p, struct batch *const *group, size_t n)
{
	size_t checkpoint_len = 0;
	struct group_lines g;

	gather(p, group, n, &g);
	g.group.ret_checkpoint_len = &checkpoint_len;
	while (g.group.n > 0) {
		const uint64_t began = monotonic_ns();
		bool stop;
		int r;

		atomic_store(&p->commit_began_ns, began);
		r = p->sink->ops->commit(p->sink, &g.group);
		atomic_store(&p->commit_began_ns, 0);
		note_commit(p, monotonic_ns() - began);

		set_error(p, r);
		if (r == 0)
			break;
		uv_mutex_lock(&p->lock);
		if (r == -EPIPE)
			p->fatal = true;
		if (!p->stop && !p->fatal)
			uv_cond_timedwait(&p->retry, &p->lock, PIPELINE_RETRY_MS * NSEC_PER_MSEC);
		stop = p->stop || p->fatal;
		uv_mutex_unlock(&p->lock);
		if (stop)
			return false;
	}
	atomic_fetch_add(&p->stats.lines, g.group.n_lines);
	atomic_fetch_add(&p->stats.bytes, g.bytes);
	for (size_t i = 0; i < n; i++) {
		if (group[i]->n_events > 0)
			measure(&p->stats.commit, monotonic_ns() - group[i]->oldest_ns);
		group[i]->checkpoint_share =
			share_of(checkpoint_len, group[i]->lines->len, g.bytes);
	}
	return true;
}

static void committer_main(void *arg)
{
	struct pipeline *p = arg;

	uv_mutex_lock(&p->lock);
	for (;;) {
		struct batch *group[PIPELINE_GROUP_MAX];
		size_t n = take_group(p, group);
		bool ok;

		if (n == 0) {
			if (p->stop)
				break;
			uv_cond_wait(&p->ready, &p->lock);
			continue;
		}
		uv_mutex_unlock(&p->lock);
		ok = commit_group(p, group, n);
		uv_mutex_lock(&p->lock);
		for (size_t i = 0; i < n; i++) {
			group[i]->durable = ok;
			queue_put(&p->committed, group[i]);
		}
		uv_async_send(&p->progress);
		if (!ok)
			break;
	}
	uv_mutex_unlock(&p->lock);
}

/* ---- begin and end ---- */

bool pipeline_threads_start(struct pipeline *p, unsigned n)
{
	p->has_committer = uv_thread_create(&p->committer, committer_main, p) == 0;
	while (p->has_committer && p->n_workers < n &&
	       uv_thread_create(&p->workers[p->n_workers], worker_main, p) == 0)
		p->n_workers++;
	return p->n_workers > 0;
}

void pipeline_threads_stop(struct pipeline *p)
{
	uv_mutex_lock(&p->lock);
	p->stop = true;
	uv_cond_broadcast(&p->work);
	uv_cond_broadcast(&p->ready);
	uv_cond_broadcast(&p->retry);
	uv_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->n_workers; i++)
		uv_thread_join(&p->workers[i]);
	if (p->has_committer)
		uv_thread_join(&p->committer);
}
