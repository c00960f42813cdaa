/* SPDX-License-Identifier: MIT */
/*
 * The life of a verb that serves cells: its loop, its signals, and its end. `serve` and `receive`
 * share it. Loop thread only.
 *
 *	running  -- lifecycle_stop() --> stopping  -- is_done() --> finished
 *	                                 stopping  -- the time is over --> on_overdue()
 *
 * While it is stopping, is_done() is called before each sleep of the loop. So the last completion
 * ends the process, and no code has to know which one is the last.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#define LIFECYCLE_SIGNALS_MAX 3u

struct lifecycle_ops {
	void (*on_signal)(void *ctx, int number);
	bool (*is_done)(void *ctx);
	/* Called once: close every handle, free what the loop does not need. */
	void (*finish)(void *ctx);
	/* The end takes too long. Called once; it may end the process. */
	void (*on_overdue)(void *ctx);
};

struct lifecycle {
	uv_loop_t loop;
	uv_signal_t signals[LIFECYCLE_SIGNALS_MAX];
	unsigned n_signals;
	uv_timer_t overdue;
	uv_prepare_t before_sleep;
	uv_work_t first_work;
	const struct lifecycle_ops *ops;
	void *ctx;
	unsigned steps; /* of the time that is left to stop */
	bool stopping, finished;
};

/*
 * ops is static, ctx is borrowed until lifecycle_run() has returned. Returns 0 or a negative errno;
 * after an error nothing is left to be closed.
 */
int lifecycle_init(struct lifecycle *l, const struct lifecycle_ops *ops, const int *signals,
		   size_t n_signals, void *ctx);

/* Begin the end. The second call and those after it do nothing. */
void lifecycle_stop(struct lifecycle *l, unsigned within_ms);

/* Run the loop until all handles are closed, then free it. */
void lifecycle_run(struct lifecycle *l);

/* For struct spare_fd: logs that connections are closed because no descriptor is free. */
void lifecycle_report_shortage(bool begins, uint64_t refused);
