/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/lifecycle.h"

#include <signal.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/util.h"

#define OVERDUE_STEPS 10u

static void on_signal(uv_signal_t *handle, int number)
{
	struct lifecycle *l = handle->data;

	l->ops->on_signal(l->ctx, number);
}

/*
 * The loop sees its timers before what it waits for. So the time is counted in steps: while the
 * machine stands still, one of them passes, and what came meanwhile is seen before the next one.
 */
static void on_step(uv_timer_t *timer)
{
	struct lifecycle *l = timer->data;

	if (--l->steps > 0)
		return;
	uv_timer_stop(timer);
	l->ops->on_overdue(l->ctx);
}

/*
 * The handler of SIGABRT. libuv, libmicrohttpd and libnftables abort without a message if the
 * system refuses them memory, a thread or a descriptor. It calls only functions of
 * signal-safety(7).
 */
static void on_abort(int number)
{
	static const char text[] = "<2>msg=\"gave up: the system refused memory, a thread or a "
				   "descriptor; the next start goes on\"\n";

	(void)number;
	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(EX_OSERR);
}

static void work_nothing(uv_work_t *work)
{
	(void)work;
}

static void on_nothing(uv_work_t *work, int status)
{
	(void)work;
	(void)status;
}

static void close_handles(struct lifecycle *l)
{
	for (unsigned i = 0; i < l->n_signals; i++)
		uv_close((uv_handle_t *)&l->signals[i], NULL);
	uv_close((uv_handle_t *)&l->overdue, NULL);
	uv_close((uv_handle_t *)&l->before_sleep, NULL);
}

static void on_before_sleep(uv_prepare_t *handle)
{
	struct lifecycle *l = handle->data;

	if (l->finished || !l->ops->is_done(l->ctx))
		return;
	l->finished = true;
	l->ops->finish(l->ctx);
	close_handles(l);
}

static int watch_signals(struct lifecycle *l, const int *signals, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = uv_signal_init(&l->loop, &l->signals[i]);

		if (r < 0)
			return r;
		l->n_signals++;
		l->signals[i].data = l;
		r = uv_signal_start(&l->signals[i], on_signal, signals[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

int lifecycle_init(struct lifecycle *l, const struct lifecycle_ops *ops, const int *signals,
		   size_t n_signals, void *ctx)
{
	int r;

	*l = (struct lifecycle){.ops = ops, .ctx = ctx};
	signal(SIGABRT, on_abort);
	r = uv_loop_init(&l->loop);
	if (r < 0)
		return r;
	uv_timer_init(&l->loop, &l->overdue);
	uv_prepare_init(&l->loop, &l->before_sleep);
	l->overdue.data = l->before_sleep.data = l;
	r = watch_signals(l, signals, MIN(n_signals, (size_t)LIFECYCLE_SIGNALS_MAX));
	/*
	 * The first work starts libuv's threads. If they cannot be started, the process ends now,
	 * and not later while it serves cells.
	 */
	if (r == 0)
		r = uv_queue_work(&l->loop, &l->first_work, work_nothing, on_nothing);
	if (r < 0) {
		close_handles(l);
		lifecycle_run(l);
	}
	return r;
}

void lifecycle_stop(struct lifecycle *l, unsigned within_ms)
{
	const unsigned step_ms = MAX(within_ms / OVERDUE_STEPS, 1u);

	if (l->stopping)
		return;
	l->stopping = true;
	l->steps = OVERDUE_STEPS;
	uv_timer_start(&l->overdue, on_step, step_ms, step_ms);
	uv_prepare_start(&l->before_sleep, on_before_sleep);
}

void lifecycle_run(struct lifecycle *l)
{
	uv_run(&l->loop, UV_RUN_DEFAULT);
	uv_loop_close(&l->loop);
}

void lifecycle_report_shortage(bool begins, uint64_t refused)
{
	if (begins)
		log_error("msg=\"no file descriptor is left: new connections are closed; raise the "
			  "limit (RLIMIT_NOFILE)\"");
	else
		log_notice("msg=\"there are file descriptors again\" refused=%" PRIu64, refused);
}
