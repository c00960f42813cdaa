/* SPDX-License-Identifier: MIT */
/*
 * A few threads for readings that may take their time, or never end: a file system that hangs, a
 * VMM that does not answer. A job that has run for POOL_GIVE_UP_MS is given up: its owner is told,
 * and another thread takes the place of the one that is stuck in it. Should it end after all, its
 * owner gets it back.
 *
 * All functions are for the loop thread, and so are the calls of done().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#define POOL_THREADS	 2u  /* as long as nobody waits */
#define POOL_THREADS_MAX 32u /* those that hang included */
#define POOL_GIVE_UP_MS	 2000u

struct pool;

enum pool_outcome {
	POOL_FINISHED, /* in time */
	POOL_GAVE_UP,  /* it runs still: the job stays the pool's */
	POOL_LATE,     /* it has ended, after POOL_GAVE_UP was told */
	POOL_REFUSED,  /* it never ran: all threads hang, or the pool ended */
};

struct pool_job {
	struct pool_job *next, *previous;  /* the pool's */
	void (*run)(struct pool_job *job); /* on a thread of the pool */
	void (*done)(struct pool_job *job, enum pool_outcome outcome);
	uint64_t started_ns;
	bool given_up;
};

/* 0 or a negative errno. */
int pool_new(uv_loop_t *loop, struct pool **ret);

/* Borrows the job until done() with another outcome than POOL_GAVE_UP. */
void pool_submit(struct pool *pool, struct pool_job *job);

/* Threads that are stuck. */
unsigned pool_hanging(const struct pool *pool);

/*
 * End the threads. Jobs that wait are refused; what is stuck keeps its thread and the pool's memory
 * until the process ends. The loop must run once more for the handles to close.
 */
void pool_free(struct pool *pool);
