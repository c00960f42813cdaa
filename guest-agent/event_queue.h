/* SPDX-License-Identifier: MIT */
/*
 * The bounded queue between the probes and the channel: a ring of encoded frames, allocated once.
 * It numbers observations and loss receipts (seq), folds repeated observations, encodes them, and
 * is the one place in the agent that drops. It is also the retransmit buffer: a numbered frame
 * stays until the host has settled its number (delivery.md section 1).
 *
 * A full ring drops the NEW event; its seq is burned, its reason counted, and a loss receipt
 * (telemetry.dropped) is due as soon as there is room again. Each family of sources has an eighth
 * of the events and of the bytes for itself, the rest is shared: a flood of one family cannot take
 * the place of another. It never blocks and never does I/O.
 *
 * Single-threaded, owned by the agent's loop. No allocation after event_queue_new().
 */
#pragma once

#include <sys/uio.h>

#include "guest-agent/event_loss.h"

struct event_queue;

/*
 * Totals since the agent started, as the heartbeat reports them. A folded observation counts as
 * often as it was observed. A frame that is sent again counts once.
 */
struct event_queue_totals {
	uint64_t observed;
	uint64_t sent;
	uint64_t dropped[_DROP_REASON_MAX];
};

/*
 * A probe calls it for each observation. Fill source, guest_pid, guest_comm, guest_monotonic_ns and
 * the details; the queue sets content_version and seq. d is borrowed for the call; texts must be
 * valid UTF-8 (observation.h makes them so).
 */
void event_queue_observe(struct event_queue *q, struct declaration *d);

/* n events of the family were lost in the kernel before any probe saw them. */
void event_queue_kernel_lost(struct event_queue *q, enum probe_family family, uint64_t n);

/* ---- for the agent's loop ---- */

#define EVENT_QUEUE_MIN	    16u
#define EVENT_QUEUE_MAX	    65536u
#define EVENT_QUEUE_DEFAULT 8192u
#define EVENT_QUEUE_BYTES_EVENT                                                                    \
	256u /* room for an event, on average; the queue is also full when the bytes are used */
#define EVENT_QUEUE_BYTES_MIN  16384u
#define EVENT_QUEUE_RESERVE    16384u /* for telemetry frames, beside the events */
#define EVENT_QUEUE_SLACK      8192u  /* for the gap at the end of the memory */
#define EVENT_QUEUE_SHARE      8u     /* a family has at least one of so many parts */
#define EVENT_QUEUE_RECEIPT_MS 100u   /* at most ten receipts a second */
_Static_assert(_PROBE_FAMILY_MAX <= EVENT_QUEUE_SHARE / 2, "half of the queue is shared");

/* capacity: EVENT_QUEUE_MIN..EVENT_QUEUE_MAX observations. NULL when there is no memory. */
struct event_queue *event_queue_new(unsigned capacity, uint16_t content_version);
void event_queue_free(struct event_queue *q);

/*
 * Queue a telemetry frame after the observations so far. The queue adds content_version and
 * next_seq. 0, or -ENOBUFS when the ring is full: such frames repeat, so nothing is lost.
 */
int event_queue_put_telemetry(struct event_queue *q, struct declaration *d);

/* A receipt is due: something was lost, there is room, and the last receipt was long enough ago. */
bool event_queue_receipt_due(const struct event_queue *q, uint64_t now_ns);
/* Something was lost and is not reported yet. */
bool event_queue_receipt_pending(const struct event_queue *q);
/* Move the pending loss into a receipt; d carries pid, comm and time of the agent. */
int event_queue_put_receipt(struct event_queue *q, struct declaration *d);

/* Queue the repeats whose second is over at now_ns; UINT64_MAX: all. */
void event_queue_flush_folded(struct event_queue *q, uint64_t now_ns);
/* CLOCK_MONOTONIC: when there will be some; 0: nothing is folded. */
uint64_t event_queue_folded_ns(const struct event_queue *q);

/* ---- for the channel ---- */

/*
 * The bytes to send next, whole frames but for a partly sent first one. Borrowed until the next
 * call that changes the queue. Returns the number of iov filled; 0: everything is sent.
 */
size_t event_queue_peek(const struct event_queue *q, struct iovec *iov, size_t max);
/* The channel took this many bytes of what peek gave. */
void event_queue_sent(struct event_queue *q, size_t bytes);

/* ---- for delivery ---- */

/* Whether sent frames are kept until they are settled; else a sent frame is settled. */
void event_queue_keep_sent(struct event_queue *q, bool keep);

/* The connection ended: the next one begins with the oldest frame that is not settled. */
void event_queue_rewind(struct event_queue *q);

/* Every number up to n is settled. Returns true if n is new. n: at most event_queue_accounted(). */
bool event_queue_settle(struct event_queue *q, uint64_t n);
uint64_t event_queue_highest_sent(const struct event_queue *q); /* in this session; 0: none */

/* A frame was sent, on this connection or an earlier one, and is not settled. */
bool event_queue_awaits_settling(const struct event_queue *q);
/* Drop the oldest such frame: DROP_CHANNEL. Call it between connections. False: there is none. */
bool event_queue_drop_oldest_sent(struct event_queue *q);

/* Send no number above this; UINT64_MAX: all. Neither telemetry frames then. */
void event_queue_limit(struct event_queue *q, uint64_t highest);

/*
 * Call it between connections: the next one begins a new session. Every number up to base was
 * settled in the old session; queued frames keep their order and their gaps and are numbered from
 * base + 1 = 1. Telemetry frames of the old session are dropped.
 */
void event_queue_new_session(struct event_queue *q, uint64_t base);
/* The highest number that is accounted for by frames sent so far: as sent, lost or announced. */
uint64_t event_queue_accounted(const struct event_queue *q);
/* A hello announces every number up to n. */
void event_queue_announce(struct event_queue *q, uint64_t n);
uint64_t event_queue_settled(const struct event_queue *q);

/* The first number that the next connection sends, and the one the next observation gets. */
uint64_t event_queue_first_seq(const struct event_queue *q);
uint64_t event_queue_next_seq(const struct event_queue *q);

bool event_queue_all_sent(const struct event_queue *q);
const struct event_queue_totals *event_queue_totals(const struct event_queue *q);
/* The peak of the queue since the last call. */
uint64_t event_queue_take_peak(struct event_queue *q);
