/* SPDX-License-Identifier: MIT */
/*
 * The losses of the agent: how many events, for which reasons, of which families, and their numbers
 * and times. The event queue collects it, and a loss receipt (telemetry.dropped) carries it to
 * the host. Pure functions; single-threaded.
 */
#pragma once

#include "common/wire.h"
#include "guest-agent/probes/probe.h"

enum drop_reason {
	DROP_QUEUE_FULL,     /* the ring had no room */
	DROP_TOO_LARGE,	     /* the body would exceed WIRE_BODY_SEND_MAX */
	DROP_CHANNEL,	     /* was sent, but no host settled it */
	DROP_KERNEL_OVERRUN, /* lost before the agent saw it: no seq */
	_DROP_REASON_MAX,
};

/* The contents of a receipt; all zero: nothing was lost. */
struct event_loss {
	uint64_t count[_DROP_REASON_MAX];
	/* Of DROP_QUEUE_FULL and DROP_KERNEL_OVERRUN together. */
	uint64_t family[_PROBE_FAMILY_MAX];
	uint64_t first_seq, last_seq; /* 0: none of them had a number */
	uint64_t first_ns, last_ns;   /* CLOCK_MONOTONIC */
};

/* The family to which observations of this source belong. */
enum probe_family event_loss_family(enum wire_source source);

/* Extend the ranges of loss by those of `by`. A zero is neither a number nor a time. */
void event_loss_widen(struct event_loss *loss, const struct event_loss *by);
/* Add all of `more`: counts and ranges. */
void event_loss_add(struct event_loss *loss, const struct event_loss *more);

/* Write the details of a receipt. */
void event_loss_fill(struct declaration *d, const struct event_loss *loss);
