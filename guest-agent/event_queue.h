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

#include "common/wire.h"

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
	uint64_t queue_peak; /* events, since the last heartbeat */
};

/*
 * What a probe calls for each thing it saw. Fill source, guest_pid, guest_comm,
 * guest_monotonic_ns and the details; the queue sets content_version and seq. d is borrowed for
 * the call; texts must be valid UTF-8 (observation.h makes them so).
 */
void event_queue_observe(struct event_queue *q, struct declaration *d);

/* n events were lost in the kernel before any probe saw them. */
void event_queue_kernel_lost(struct event_queue *q, uint64_t n);
