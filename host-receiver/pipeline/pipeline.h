/* SPDX-License-Identifier: MIT */
/*
 * From stamped events to durable lines:
 *
 *   loop thread: pipeline_event() ... pipeline_submit() -> canonical bytes in the open batch
 *   workers:     hashes or signatures of a whole batch
 *   committer:   batches in their order, all that are ready as one group, to the sink
 *   loop thread: on_progress(), and the batch is used again
 *
 * A batch closes at BATCH_EVENTS_MAX events, at a part of the window, or after PIPELINE_BATCH_MS.
 * While the sink fails, or a whole group waits for the sink, the time does not close it: it would
 * not be committed any sooner.
 *
 * The memory of all events in flight is counted, at each submit with the real length of the line.
 * At max_inflight pipeline_full() turns true, and the loop must stop reading until on_progress()
 * finds it false again. Beside max_inflight there are only PIPELINE_FREE_MAX emptied batches for
 * reuse. No submitted event is ever dropped: when the sink fails, it gets the same group again each
 * second.
 *
 * An account counts the bytes of one stream that are in flight, and has its newest durable mark.
 *
 * All functions are for the loop thread.
 */
#pragma once

#include <stdatomic.h>

#include <uv.h>

#include "host-receiver/event/event.h"
#include "host-receiver/evidence/sink.h"
#include "host-receiver/sign/signer.h"

#define PIPELINE_BATCH_MS	  2u
#define PIPELINE_RETRY_MS	  1000u
#define PIPELINE_INFLIGHT_DEFAULT (64u * 1024u * 1024u)
#define PIPELINE_GROUP_MAX	  64u /* batches of one commit */
#define PIPELINE_FREE_MAX	  16u /* batches kept for reuse */
/*
 * The window: how many bytes cells with a backlog may have in flight together. New bytes wait for
 * all of them, so the window is only as large as needed to keep workers and disk busy: the bytes
 * that were lately committed in PIPELINE_WINDOW_MS plus the time of a commit, between these bounds.
 * A larger window makes commits longer, and longer commits make the window larger; the upper bound
 * stops this growth.
 */
#define PIPELINE_WINDOW_MS  2u
#define PIPELINE_WINDOW_MIN (256u * 1024u)
#define PIPELINE_WINDOW_MAX (1024u * 1024u)
/* A window has at least so many batches, for the workers and the committer to share. */
#define PIPELINE_WINDOW_BATCHES 4u
/*
 * A commit that takes longer than this hangs. The guests' buffers would overflow next, so the
 * window is opened: max_inflight and the share of each cell are then the only limits.
 */
#define PIPELINE_STALL_MS 1000u
#define PIPELINE_BUCKETS  16u /* of the histograms */

struct pipeline;

/* Upper bounds of the histograms' buckets, in microseconds; the last bucket has none. */
extern const uint64_t pipeline_bucket_us[PIPELINE_BUCKETS - 1];

struct pipeline_histogram {
	_Atomic uint64_t count[PIPELINE_BUCKETS];
	_Atomic uint64_t sum_us;
};

/* Any thread may read them at any time. */
struct pipeline_stats {
	_Atomic uint64_t events, lines, bytes; /* submitted; committed */
	_Atomic uint64_t inflight_bytes;
	_Atomic int sink_error;		  /* 0: the last commit was fine; else a negative errno */
	struct pipeline_histogram commit; /* first event of a batch stamped -> batch durable */
	struct pipeline_histogram sign;	  /* a batch's hashes or signatures */
};

/* A number of a session. It becomes durable with a commit. */
struct pipeline_mark {
	uint64_t session, seq;
};

/*
 * The account of one stream. Zero it before its first use. It must live until everything that was
 * submitted for it is committed (pipeline_defer()).
 */
struct pipeline_account {
	void *owner;	 /* for on_durable(); NULL: no more reports */
	size_t inflight; /* bytes of lines that are not committed */
	uint64_t bytes; /* of lines, submitted since it began, and its shares of checkpoint lines */
	struct pipeline_mark durable; /* the newest mark that is durable */
	/*
	 * Used by the pipeline only: the account's share of the open batch, and its place in a
	 * list.
	 */
	unsigned share;
	bool listed;
	struct pipeline_account *next;
};

struct pipeline_options {
	struct signer *signer;	    /* taken */
	struct evidence_sink *sink; /* taken */
	unsigned workers;	    /* 0: one for each processor */
	size_t max_inflight;	    /* bytes; 0: the default */
	/*
	 * On the loop thread, after batches were committed or the sink's state changed. error: 0 or
	 * a negative errno of the last commit; fatal: nothing will be committed any more.
	 */
	void (*on_progress)(void *ctx, int error, bool fatal);
	/*
	 * Before on_progress(), once for each account whose events or marks were committed; it may
	 * submit. Optional.
	 */
	void (*on_durable)(void *ctx, struct pipeline_account *account);
	/*
	 * Called in each pipeline_submit() after which pipeline_full() is true. It may not submit.
	 * Optional.
	 */
	void (*on_full)(void *ctx);
	void *ctx;
};

/* Returns 0 or a negative errno; the signer and the sink are taken in both cases. */
int pipeline_new(uv_loop_t *loop, const struct pipeline_options *options, struct pipeline **ret);

/*
 * A new event of this stream, stamped now. The caller gives the sequence. Fill it and submit it
 * before the next one. Never NULL: without memory the process ends, because evidence must not have
 * holes.
 */
struct event *pipeline_event(struct pipeline *p, enum event_type type,
			     const struct stream_identity *stream, uint64_t sequence);
/* A copy that lives as long as the open batch, for a text that ends before the submit. */
struct wire_text pipeline_copy(struct pipeline *p, struct wire_text text);
/* Afterwards the event's texts and details are not used any more. */
void pipeline_submit(struct pipeline *p, struct event *e);
/* The same for an account. Returns the bytes of the line. */
size_t pipeline_submit_for(struct pipeline *p, struct event *e, struct pipeline_account *account);
/* Set a mark, which becomes durable when everything submitted so far is committed. */
void pipeline_mark(struct pipeline *p, struct pipeline_account *account, struct pipeline_mark mark);

/*
 * Call fn(arg) on the loop thread when everything submitted so far is committed, or in
 * pipeline_free() at the latest. Then memory that the events borrow may be freed.
 */
void pipeline_defer(struct pipeline *p, void (*fn)(void *arg), void *arg);

/* True while the loop must not read any more. */
bool pipeline_full(const struct pipeline *p);

/* Whether streams with a backlog may submit more: see PIPELINE_WINDOW_MS. */
bool pipeline_window_open(const struct pipeline *p);
/* The bytes that one account may have in flight: one eighth of the free part of max_inflight. */
size_t pipeline_share_max(const struct pipeline *p);

/* This signer signs from the next event on. Takes it. Returns 0 or -ENOMEM (then it is freed). */
int pipeline_set_signer(struct pipeline *p, struct signer *signer);

/* When the oldest event that is not committed was stamped (CLOCK_MONOTONIC); 0: none is left. */
uint64_t pipeline_oldest_ns(const struct pipeline *p);

/*
 * True after a fatal error of the sink: it will never take another line, and lines in flight stay
 * in flight.
 */
bool pipeline_dead(const struct pipeline *p);

/* True if everything that was submitted is committed. */
bool pipeline_idle(const struct pipeline *p);
/* Close the open batch now. */
void pipeline_flush(struct pipeline *p);

const struct pipeline_stats *pipeline_stats(const struct pipeline *p);

/*
 * Stop the threads and free everything. Call it when idle: lines that are not committed by then are
 * lost, and on_progress() has reported them. The loop must run once more for the handles to close.
 * Returns the result of the sink's close().
 */
int pipeline_free(struct pipeline *p);
