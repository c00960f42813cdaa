/* SPDX-License-Identifier: MIT */
/*
 * The bounded queue between the probes and the channel: a ring of encoded frames, allocated once.
 * It numbers observations (seq), encodes them, and is the one place in the agent that drops. A
 * full ring drops the NEW event; its seq is burned, its reason counted, and a loss receipt
 * (telemetry.dropped) is due as soon as there is room again. It never blocks and never does I/O.
 *
 * Single-threaded, owned by the agent's loop. No allocation after event_queue_new().
 */
#pragma once

#include <sys/uio.h>

#include "common/wire.h"
#include "guest-agent/probes/probe.h"

struct event_queue;

enum drop_reason {
	DROP_QUEUE_FULL,     /* the ring had no room */
	DROP_TOO_LARGE,	     /* the body would exceed WIRE_BODY_SEND_MAX */
	DROP_CHANNEL,	     /* the connection broke inside this frame */
	DROP_KERNEL_OVERRUN, /* lost before the agent saw it: no seq */
	_DROP_REASON_MAX,
};

/* Totals since the agent started; what the heartbeat tells. */
struct event_queue_totals {
	uint64_t observed;
	uint64_t sent;
	uint64_t dropped[_DROP_REASON_MAX];
};

/*
 * What a probe calls for each thing it saw. Fill source, guest_pid, guest_comm,
 * guest_monotonic_ns and the details; the queue sets content_version and seq. d is borrowed for
 * the call; texts must be valid UTF-8 (observation.h makes them so).
 */
void event_queue_observe(struct event_queue *q, struct declaration *d);

/* n events of the family were lost in the kernel before any probe saw them. */
void event_queue_kernel_lost(struct event_queue *q, enum probe_family family, uint64_t n);

/* ---- for the agent's loop ---- */

#define EVENT_QUEUE_MIN		16u
#define EVENT_QUEUE_MAX		65536u
#define EVENT_QUEUE_DEFAULT	1024u
#define EVENT_QUEUE_BYTES_EVENT 512u   /* room for each event, on average: fuller is full too */
#define EVENT_QUEUE_RESERVE	16384u /* for telemetry frames, beside the events */
#define EVENT_QUEUE_RECEIPT_MS	100u   /* at most ten receipts a second */

/* What a receipt tells; all zero: nothing lost. */
struct event_loss {
	uint64_t count[_DROP_REASON_MAX];
	/* Of DROP_QUEUE_FULL and DROP_KERNEL_OVERRUN together. */
	uint64_t family[_PROBE_FAMILY_MAX];
	uint64_t first_seq, last_seq; /* 0: none of them had a number */
	uint64_t first_ns, last_ns;   /* CLOCK_MONOTONIC */
};

/* capacity: EVENT_QUEUE_MIN..EVENT_QUEUE_MAX observations. NULL when there is no memory. */
struct event_queue *event_queue_new(unsigned capacity, uint16_t content_version);
void event_queue_free(struct event_queue *q);

/*
 * Queue a telemetry frame behind the observations so far. The queue adds content_version and
 * next_seq. 0, or -ENOBUFS when the reserve is used up: such frames repeat, so nothing is lost.
 */
int event_queue_put_telemetry(struct event_queue *q, struct declaration *d);

/* A receipt is due when something was lost, there is room, and the last one is long enough ago. */
bool event_queue_receipt_due(const struct event_queue *q, uint64_t now_ns);
/* Something was lost that no receipt has told yet. */
bool event_queue_receipt_pending(const struct event_queue *q);
/* Move the pending loss into a receipt; d carries pid, comm and time of the agent. */
int event_queue_put_receipt(struct event_queue *q, struct declaration *d);

/* Unsent bytes from the front, whole frames but for a partly sent first one. Borrowed until the
 * next call that changes the queue. Returns the number of iov filled. */
size_t event_queue_peek(const struct event_queue *q, struct iovec *iov, size_t max);
/* The channel took this many bytes of what peek gave. */
void event_queue_sent(struct event_queue *q, size_t bytes);

/* The connection broke. A partly sent frame is lost: DROP_CHANNEL. */
void event_queue_connection_lost(struct event_queue *q);
/*
 * The next connection begins a new session: what is queued is numbered from 1 again, in order and
 * with its gaps; telemetry frames of the old session go, receipts among them become pending again.
 */
void event_queue_new_session(struct event_queue *q);

/* The number of the next observation on the wire: the oldest queued one, else the next at all. */
uint64_t event_queue_wire_seq(const struct event_queue *q);

bool event_queue_empty(const struct event_queue *q);
const struct event_queue_totals *event_queue_totals(const struct event_queue *q);
/* What the queue's peak was since the last call. */
uint64_t event_queue_take_peak(struct event_queue *q);
