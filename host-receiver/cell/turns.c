/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/turns.h"

#include "common/util.h"

/* These two handles only keep the loop from sleeping, or wake it; on_prepare() does the work. */
static void on_spin(uv_idle_t *idle)
{
	(void)idle;
}

static void on_timer(uv_timer_t *timer)
{
	(void)timer;
}

/* What happens next: another turn at once, a commit that opens the window, or nothing. */
static void plan(struct turns *t)
{
	const bool quiet = fair_quiet(&t->queue) != NULL;

	if (!quiet && !t->queue.backlog.first) {
		uv_prepare_stop(&t->prepare);
		uv_idle_stop(&t->spin);
		uv_timer_stop(&t->timer);
		t->started = t->closed = false;
		return;
	}
	if (quiet || pipeline_window_open(t->pipeline)) {
		uv_idle_start(&t->spin, on_spin);
		return;
	}
	uv_idle_stop(&t->spin);
	if (t->closed)
		return;
	t->closed = true;
	/* No cell adds to the open batch before the next commit, so close it now. */
	pipeline_flush(t->pipeline);
	/* If no commit comes in time, the sink hangs, and the window is opened. */
	uv_timer_start(&t->timer, on_timer, PIPELINE_STALL_MS, PIPELINE_STALL_MS);
	for (struct fair_flow *f = t->queue.backlog.first, *next; f; f = next) {
		next = f->next;
		t->ops->parked(f);
	}
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct turns *t = prepare->data;
	struct fair_flow *f;

	for (unsigned i = 0; i < TURNS_QUIET_READS && (f = fair_quiet(&t->queue)); i++)
		t->ops->read(t, f);
	if (pipeline_window_open(t->pipeline))
		t->closed = false;
	for (unsigned i = 0;
	     i < TURNS_READS && pipeline_window_open(t->pipeline) && (f = fair_turn(&t->queue));
	     i++)
		t->ops->read(t, f);
	plan(t);
}

void turns_init(struct turns *t, uv_loop_t *loop, struct pipeline *pipeline,
		const struct turns_ops *ops)
{
	*t = (struct turns){.pipeline = pipeline, .ops = ops};
	uv_prepare_init(loop, &t->prepare);
	uv_idle_init(loop, &t->spin);
	uv_timer_init(loop, &t->timer);
	t->prepare.data = t;
	uv_unref((uv_handle_t *)&t->prepare);
	uv_unref((uv_handle_t *)&t->spin);
	uv_unref((uv_handle_t *)&t->timer);
}

void turns_close(struct turns *t)
{
	uv_close((uv_handle_t *)&t->prepare, NULL);
	uv_close((uv_handle_t *)&t->spin, NULL);
	uv_close((uv_handle_t *)&t->timer, NULL);
}

void turns_add(struct turns *t, struct fair_flow *f, bool little)
{
	fair_add(&t->queue, f, little);
	if (t->started)
		return;
	t->started = true;
	uv_prepare_start(&t->prepare, on_prepare);
}
