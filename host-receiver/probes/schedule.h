/* SPDX-License-Identifier: MIT */
/*
 * When probes are read. Each cell has a set of probes. Every set has its own place in the interval,
 * so that readings are spread over time. The nftables ruleset is read once for all sets that are
 * due. Each reading is a job on a pool of threads, so no reading delays another one or the loop.
 *
 * All functions are for the loop thread, and the callbacks are called on it.
 */
#pragma once

#include <uv.h>

#include "host-receiver/probes/host_probe.h"

struct probe_scheduler;
struct probe_set;

struct probe_status {
	bool wanted, failing;
	uint64_t readings, failures;
	uint64_t last_ns; /* CLOCK_MONOTONIC of the last reading; 0: none yet */
	const char *why;  /* the last failure's, while failing */
};

struct probe_set_callbacks {
	/* A reading; borrowed for the call. */
	void (*reading)(void *ctx, enum probe_kind kind, const struct probe_reading *reading);
	/*
	 * A reading failed, or a part of it did (blind: nothing was read). changed: the previous
	 * reading succeeded.
	 */
	void (*failed)(void *ctx, enum probe_kind kind, const char *why, bool blind, bool changed);
	/* A reading succeeded after failures. */
	void (*recovered)(void *ctx, enum probe_kind kind);
	/* Returns false if no reading may start now. Called before each reading except the last. */
	bool (*has_room)(void *ctx);
	/* The readings that probe_set_finish() started have ended. */
	void (*finished)(void *ctx);
};

/* 0 or a negative errno. */
int probe_scheduler_new(uv_loop_t *loop, struct probe_scheduler **ret);
/* Call it when no set is left. The loop must run once more for the handles to close. */
void probe_scheduler_free(struct probe_scheduler *scheduler);
/* The number of threads that hang in a reading. */
unsigned probe_scheduler_hanging(const struct probe_scheduler *scheduler);

/*
 * Start to read what the options name. *ret is NULL if they name nothing. callbacks is borrowed,
 * the options are copied. Returns 0 or -ENOMEM.
 */
int probe_set_new(struct probe_scheduler *scheduler, const struct probe_options *options,
		  const struct probe_set_callbacks *callbacks, void *ctx, struct probe_set **ret);

/*
 * Read each probe once more, because the last events often show why a cell ended. finished() is
 * called when that is done, at most POOL_GIVE_UP_MS later. Then the caller frees the set.
 */
void probe_set_finish(struct probe_set *set);

/* Free the set; no callback is called any more. NULL: does nothing. */
void probe_set_free(struct probe_set *set);

/* set may be NULL: no probes. */
struct probe_status probe_set_status(const struct probe_set *set, enum probe_kind kind);
