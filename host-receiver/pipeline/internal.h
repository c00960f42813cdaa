/* SPDX-License-Identifier: MIT */
/*
 * The struct that the two halves of the pipeline share: pipeline.c runs on the loop thread,
 * threads.c signs and commits. Only these two files include it. Each field names its owner or the
 * lock that guards it.
 */
#pragma once

#include <stdatomic.h>
#include <uv.h>

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/pipeline/batch.h"
#include "host-receiver/pipeline/pipeline.h"

/* A signer that is freed with the last batch it signs. Counted on the loop thread only. */
struct signer_ref {
	struct signer *signer;
	unsigned refs;
};

struct batch_queue {
	struct batch *first, **end;
};

struct pipeline {
	/* Owned by the loop thread. */
	uv_loop_t *loop;
	uv_timer_t batch_timer;
	uv_async_t progress;
	struct batch *open;
	bool overdue;	    /* the open batch is due, but waits for earlier ones */
	struct event event; /* the event that is being filled */
	struct event_clock clock;
	size_t line_overhead;  /* bytes that signing adds to an event */
	size_t lines_inflight; /* bytes of all lines that are not committed */
	/* The time of the last commit, or of the first batch that was closed after it. */
	uint64_t progress_ns;
	uint64_t lately_bytes,
		lately_ns; /* bytes of lines that were committed lately, and the time they took */
	size_t window;
	struct pipeline_account *durable; /* list: accounts to report */
	struct batch_queue free_batches;
	size_t n_free;
	uint64_t next_number, n_outstanding;
	struct batch *oldest, **youngest; /* the outstanding ones, in order */
	struct signer_ref *signer;
	struct uuid_source uuids;
	bool dead; /* the loop thread's copy of fatal */
	size_t max_inflight;
	void (*on_progress)(void *ctx, int error, bool fatal);
	void (*on_full)(void *ctx);
	void (*on_durable)(void *ctx, struct pipeline_account *account);
	void *ctx;
	unsigned closing_handles;

	/* Shared; under the lock. */
	uv_mutex_t lock;
	uv_cond_t work, ready, retry;
	struct batch_queue to_sign;
	struct batch *signed_batches; /* in the order of their numbers */
	uint64_t commit_next;
	struct batch_queue committed; /* on their way back to the loop thread */
	bool stop, fatal;

	struct pipeline_stats stats;
	_Atomic uint64_t commit_began_ns; /* 0: the committer is not in the sink */
	_Atomic uint64_t commit_ns;	  /* the usual time of a commit */
	struct evidence_sink *sink;	  /* the committer's */
	struct tree_hash *leaves;	  /* the committer's: the leaves of a group; owned */
	bool has_committer;
	_Atomic unsigned next_channel;
	unsigned n_workers;
	uv_thread_t committer, workers[];
};

static inline void queue_init(struct batch_queue *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static inline void queue_put(struct batch_queue *q, struct batch *b)
{
	b->next = NULL;
	*q->end = b;
	q->end = &b->next;
}

static inline struct batch *queue_take(struct batch_queue *q)
{
	struct batch *b = q->first;

	if (!b)
		return NULL;
	q->first = b->next;
	if (!q->first)
		q->end = &q->first;
	return b;
}

/* End the process: the alternative is a hole in the evidence, in a stream that looks complete. */
static inline void pipeline_die(const char *what, int error)
{
	log_line(LOG_CRIT, "msg=\"%s: cannot go on without a hole in the evidence\" errno=%d", what,
		 -error);
	abort();
}

/* Charge the new size of a batch. Called by the thread that has the batch. */
static inline void measure_footprint(struct pipeline *p, struct batch *b)
{
	const size_t footprint = batch_footprint(b);

	atomic_fetch_add(&p->stats.inflight_bytes, footprint - b->cost);
	b->cost = footprint;
}
