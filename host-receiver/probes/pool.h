/* SPDX-License-Identifier: MIT */
/*
 * A few threads for readings that are slow or never end: a file system that hangs, a VMM that does
 * not answer. A job that has run for POOL_GIVE_UP_MS is given up: done() reports that to its owner,
 * and another thread replaces the one that hangs. If the job ends later, its owner gets it back.
 *
 * All functions are for the loop thread, and so are the calls of done().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#define POOL_THREADS	 2u  /* threads while no job has to wait */
#define POOL_THREADS_MAX 32u /* threads, with those that hang */
#define POOL_GIVE_UP_MS	 2000u

struct pool;

enum pool_outcome {
	POOL_FINISHED, /* it ended in time */
	POOL_GAVE_UP,  /* it still runs: the pool keeps the job */
	POOL_LATE,     /* it has ended, after POOL_GAVE_UP */
	POOL_REFUSED,  /* it never ran: all threads hang, or the pool ended */
};

struct pool_job {
	struct pool_job *next, *previous;  /* the pool's */
	void (*run)(struct pool_job *job); /* on a thread of the pool */
	void (*done)(struct pool_job *job, enum pool_outcome outcome);
	uint64_t started_ns;
	unsigned checks; /* while it ran: it is not given up for a time in which there were none */
	bool given_up;
};

/* 0 or a negative errno. */
int pool_new(uv_loop_t *loop, struct pool **ret);

/* Borrows the job until done() with another outcome than POOL_GAVE_UP. */
void pool_submit(struct pool *pool, struct pool_job *job);

/* The number of threads that hang. */
unsigned pool_hanging(const struct pool *pool);

/*
 * End the threads. Jobs that wait are refused. A job that hangs keeps its thread and the pool's
 * memory until the process ends. The loop must run once more for the handles to close.
 */
void pool_free(struct pool *pool);
