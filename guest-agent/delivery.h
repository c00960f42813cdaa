/* SPDX-License-Identifier: MIT */
/*
 * Delivery (delivery.md sections 1 and 3): the current session, the numbers that the host has
 * settled, and the consequences of an acknowledgement, of its absence, or of a reset. It takes
 * values and the time, and does no I/O; the agent's loop asks it what to send and when to
 * reconnect.
 *
 * Single-threaded, owned by the agent's loop.
 */
#pragma once

#include "guest-agent/event_queue.h"

/*
 * For how long a host may take bytes without an acknowledgement before it counts as a host that
 * never acknowledges. The first connection waits longer: a receiver may just be starting.
 */
#define DELIVERY_PATIENCE_MS	  30000u
#define DELIVERY_PATIENCE_NEXT_MS 5000u
/* The host's silence counts only while it takes bytes: at most so long after each time. */
#define DELIVERY_TAKING_MS     5000u
#define DELIVERY_FINISH_MS     5000u /* for the old session after a reset, without progress */
#define DELIVERY_FRUITLESS_MAX 5u    /* connections in a row that settled nothing */

enum delivery_mode {
	DELIVERY_WAITING,	 /* for a first acknowledgement; sent frames are kept */
	DELIVERY_ACKNOWLEDGED,	 /* sent frames are kept until they are settled */
	DELIVERY_UNACKNOWLEDGED, /* this host never acknowledges: what is sent is settled */
};

struct delivery {
	struct event_queue *queue; /* borrowed */
	enum delivery_mode mode;
	bool never;	/* version 1: nothing is ever acknowledged */
	bool connected; /* between delivery_connected() and delivery_lost() */
	bool finishing; /* this connection, and the next ones, finish the old session */
	bool progress;	/* the host settled something on this connection */
	unsigned fruitless;
	uint64_t finish_highest; /* the last number of the old session */
	uint64_t progress_ns;	 /* of this connection's start or its last progress */
	uint64_t taken_at_ns, silent_ns, patience_ns;
	char session[WIRE_SESSION_SIZE + 1];
};

/* The next step of the loop. */
enum delivery_verdict {
	DELIVERY_GO_ON,
	DELIVERY_PROGRESSED, /* something was settled */
	DELIVERY_SAY_SO,     /* the mode changed: send another hello of this session */
	DELIVERY_RECONNECT,  /* end the connection; the next one has another session */
};

void delivery_init(struct delivery *d, struct event_queue *q, uint16_t content_version);

/* The values of this connection's hello. */
struct delivery_greeting {
	const char *session;
	uint64_t next_seq, assigned;
	bool acks;
};

/* A connection is up. Returns the values of its hello. */
struct delivery_greeting delivery_connected(struct delivery *d, uint64_t now_ns);
/* The same for another hello of this connection. */
struct delivery_greeting delivery_greeting(const struct delivery *d);

/* The host took bytes. */
enum delivery_verdict delivery_taken(struct delivery *d, uint64_t now_ns);
/* The host acknowledged n. */
enum delivery_verdict delivery_settled(struct delivery *d, uint64_t n, uint64_t now_ns);
/* The time has come for something: for example, finishing the old session takes too long. */
enum delivery_verdict delivery_tick(struct delivery *d, uint64_t now_ns);
/* CLOCK_MONOTONIC: when delivery_tick() has something to do; 0: never. */
uint64_t delivery_deadline_ns(const struct delivery *d);

/* The connection ended; reset: as a snapshot ends it. */
void delivery_lost(struct delivery *d, bool reset);

/* At the end: whether to wait for another acknowledgement. */
bool delivery_awaits(const struct delivery *d);
