/* SPDX-License-Identifier: MIT */
/*
 * When probes are read. Every cell's set has its own place in the interval, so that readings are
 * spread over time; the nftables ruleset is read once a tick for all sets. Each reading is a job of
 * its own on the pool: none waits for another, and none delays the loop.
 *
 * All functions are for the loop thread, and so are the listener's calls.
 */
#pragma once

#include <uv.h>

#include "host-receiver/probes/probe.h"

struct probe_host;
struct probe_set;

struct probe_status {
	bool wanted, failing;
	uint64_t readings, failures;
	uint64_t last_ns; /* CLOCK_MONOTONIC of the last reading; 0: none yet */
	const char *why;  /* the last failure's, while failing */
};

struct probe_listener {
	/* Borrowed for the call. */
	void (*reading)(void *ctx, enum probe_kind kind, const struct probe_reading *reading);
	/*
	 * A reading failed, or something beside it (blind: nothing was read); changed: the one
	 * before did not.
	 */
	void (*failed)(void *ctx, enum probe_kind kind, const char *why, bool blind, bool changed);
	/* A reading was possible again. */
	void (*recovered)(void *ctx, enum probe_kind kind);
	/* Whether a reading may be told now. If not it waits for its next turn, but for the last.
	 */
	bool (*has_room)(void *ctx);
	/* After probe_set_finish(). */
	void (*finished)(void *ctx);
};

/* 0 or a negative errno. */
int probe_host_new(uv_loop_t *loop, struct probe_host **ret);
/* When there are no sets any more. The loop must run once more for the handles to close. */
void probe_host_free(struct probe_host *host);
/* Threads that hang in a reading. */
unsigned probe_host_stuck(const struct probe_host *host);

/*
 * Read what the options want from now on. *ret is NULL when that is nothing. The listener's table
 * is borrowed, the options are copied. Returns 0 or -ENOMEM.
 */
int probe_set_new(struct probe_host *host, const struct probe_options *options,
		  const struct probe_listener *listener, void *ctx, struct probe_set **ret);

/*
 * Read each probe once more, and call finished() when that is done, or POOL_GIVE_UP_MS later: what
 * happened last is often why a cell ends. Then free the set.
 */
void probe_set_finish(struct probe_set *set);

/* No more calls. NULL: nothing. */
void probe_set_free(struct probe_set *set);

/* set NULL: of no probes. */
struct probe_status probe_set_status(const struct probe_set *set, enum probe_kind kind);
