/* SPDX-License-Identifier: MIT */
/*
 * The order in which cells are read. Cells that have something to read wait in a queue (fair.h),
 * which is served before the loop sleeps. A quiet cell gets one small read at once. Cells with a
 * backlog are read in turns, while the window of the pipeline is open (pipeline_window_open()).
 * Loop thread.
 */
#pragma once

#include <uv.h>

#include "host-receiver/cell/fair.h"
#include "host-receiver/pipeline/pipeline.h"

/*
 * The most reads of quiet cells, and of cells with a backlog, in one turn of the loop. Then it
 * polls for other events. A quiet cell whose bytes arrive meanwhile waits for these reads.
 */
#define TURNS_QUIET_READS 64u
#define TURNS_READS	  4u
/* The bytes of one read: a small number, because their cost is known only after the read. */
#define TURNS_READ_SIZE (4u * 1024u)

struct turns;

struct turns_ops {
	/* Read once, at most TURNS_READ_SIZE bytes, and call fair_served(). */
	void (*read)(struct turns *t, struct fair_flow *f);
	/* The window is closed: the flow waits for a commit, and needs no poll until then. */
	void (*parked)(struct fair_flow *f);
};

struct turns {
	struct pipeline *pipeline;   /* borrowed */
	const struct turns_ops *ops; /* borrowed */
	struct fair_queue queue;
	bool started; /* the prepare handle: while the queue is not empty */
	bool closed;  /* the window is closed, and the flows were parked */
	uv_prepare_t prepare;
	uv_idle_t spin;	  /* started: the loop does not sleep */
	uv_timer_t timer; /* while the window is closed: a stall opens it */
};

/* These handles do not keep the loop alive. */
void turns_init(struct turns *t, uv_loop_t *loop, struct pipeline *pipeline,
		const struct turns_ops *ops);
void turns_close(struct turns *t);

/* little: see fair_add(). */
void turns_add(struct turns *t, struct fair_flow *f, bool little);

static inline void turns_remove(struct turns *t, struct fair_flow *f)
{
	fair_remove(&t->queue, f);
}

/* The flow waits for the window. */
static inline bool turns_parked(const struct turns *t, const struct fair_flow *f)
{
	return t->closed && fair_in_backlog(&t->queue, f);
}
