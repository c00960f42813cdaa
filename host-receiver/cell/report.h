/* SPDX-License-Identifier: MIT */
/*
 * What the receiver says of a cell, each as an event of the cell's stream (events.md section 3).
 * Only speaks: it decides nothing, and changes no more of the cell than its counts of what was
 * told. Loop thread only.
 */
#pragma once

#include "common/util.h"
#include "host-receiver/cell/connection.h"
#include "host-receiver/cell/gap.h"
#include "host-receiver/cell/witness.h"

struct cell;

/* Things that a guest can make happen as often as it likes: told at most once a second. */
enum limited_event {
	LIMITED_VERSION,
	LIMITED_SOURCE,
	LIMITED_RATE,
	LIMITED_SECOND_CONNECTION,
	LIMITED_PEER,
	LIMITED_VMM_COUNTS,
	_LIMITED_MAX,
};

static inline uint64_t age_ms(uint64_t since_ns, uint64_t now_ns)
{
	return now_ns > since_ns ? (now_ns - since_ns) / NSEC_PER_MSEC : 0;
}

/* previous: the stream of the same cell before a restart, or NULL. */
void tell_opened(struct cell *cell, const uint8_t *previous);
void tell_checkpoint(struct cell *cell, uint64_t now_ns);
/* reason is static. */
void tell_sealed(struct cell *cell, const char *reason);

void tell_connected(struct cell *cell, const struct connection *c);
void tell_disconnected(struct cell *cell, const struct connection *c, const char *reason);
void tell_silenced(struct cell *cell, uint64_t now_ns);
void tell_resumed(struct cell *cell, uint64_t silent_ms);
void tell_violation(struct cell *cell, const struct connection *c,
		    const struct wire_refusal *refusal);
void tell_gap(struct cell *cell, const struct gap *gap);
void tell_declaration(struct cell *cell, const struct connection *c, const struct declaration *d);

/* Each of its parts is an event. */
void tell_reading(struct cell *cell, enum probe_kind kind, const struct probe_reading *reading);
void tell_unwitnessed(struct cell *cell, const struct witness_verdict *verdict, uint64_t now_ns);

/* Count n; they are told now or with others later. */
void count_limited(struct cell *cell, enum limited_event kind, uint64_t n, uint64_t now_ns);
/* Tell what is due, or with force everything. */
void flush_limited(struct cell *cell, uint64_t now_ns, bool force);
