/* SPDX-License-Identifier: MIT */
/*
 * Changes the mode of signing (evidence-log.md section 2): each cell's stream is sealed under the
 * old signer, and another stream begins under the new one. As at a start (state.h), the cells'
 * files that name the new streams are staged first, and published when the streams' first records
 * are durable.
 */
#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/daemon/internal.h"

#define SEALED_REASON "signing_changed"

struct successor {
	struct cell *cell; /* while the change is under way */
	char id[CELL_ID_MAX + 1];
	uint8_t stream_id[UUID_SIZE];
	struct stream_end end;
};

struct stream_change {
	uv_work_t work;
	struct daemon *d;
	int error;
	size_t n;
	struct successor successors[];
};

static int stage(struct daemon *d, const struct successor *s, const struct evidence_position *since)
{
	_cleanup_free_ char *text = NULL;
	struct cell_state was;
	int r;

	cell_state_load(d->state_fd, s->id, &was);
	r = !was.why ? cell_state_format(&was.options, s->stream_id, since, &text) : -ENOENT;
	cell_state_free(&was);
	return r < 0 ? r : cell_state_stage(d->state_fd, s->id, text);
}

void daemon_discard_streams(struct stream_change *change)
{
	for (size_t i = 0; change && i < change->n; i++)
		cell_state_discard(change->d->state_fd, change->successors[i].id);
	free(change);
}

int daemon_stage_streams(struct daemon *d, struct stream_change **ret)
{
	const struct evidence_position since = evidence_log_end(d->log);
	struct stream_change *change;
	int r = 0;

	/* The files of some cells are being written. */
	if (d->tasks || d->states_staged)
		return -EBUSY;
	change = calloc(1,
			sizeof(*change) + d->registry.stats.cells * sizeof(change->successors[0]));
	if (!change)
		return -ENOMEM;
	change->d = d;
	for (struct cell *cell = d->registry.cells; cell && r == 0; cell = cell->next) {
		struct successor *s = &change->successors[change->n++];

		s->cell = cell;
		snprintf(s->id, sizeof(s->id), "%s", cell->options.cell_id);
		stream_id_generate(s->stream_id);
		r = stage(d, s, &since);
	}
	if (r == 0)
		r = cell_state_sync(d->state_fd);
	if (r < 0)
		daemon_discard_streams(change);
	else
		*ret = change;
	return r;
}

void daemon_seal_streams(struct stream_change *change)
{
	for (size_t i = 0; i < change->n; i++) {
		struct successor *s = &change->successors[i];

		if (cell_seal_stream(s->cell, SEALED_REASON, s->stream_id, &s->end) < 0)
			abort();
	}
}

static void work_publish(uv_work_t *work)
{
	struct stream_change *change = work->data;

	for (size_t i = 0; i < change->n; i++) {
		int r = cell_state_publish(change->d->state_fd, change->successors[i].id);

		if (r < 0)
			change->error = r;
	}
	if (change->error == 0)
		change->error = cell_state_sync(change->d->state_fd);
}

static void on_published(uv_work_t *work, int status)
{
	struct stream_change *change = work->data;
	struct daemon *d = change->d;

	(void)status;
	if (change->error < 0)
		log_error("msg=\"cannot remember the cells' new streams\" why=\"%s\"",
			  strerror(-change->error));
	free(change);
	d->states_staged = false;
	daemon_resume_removals(d);
}

static void on_all_opened(void *arg)
{
	struct stream_change *change = arg;

	if (change->d->life.finished) {
		free(change);
		return;
	}
	change->work.data = change;
	if (uv_queue_work(&change->d->life.loop, &change->work, work_publish, on_published) < 0)
		abort();
}

void daemon_open_streams(struct stream_change *change)
{
	struct daemon *d = change->d;

	for (size_t i = 0; i < change->n; i++)
		cell_open_stream(change->successors[i].cell, &change->successors[i].end);
	d->states_staged = true;
	pipeline_defer(d->pipeline, on_all_opened, change);
	pipeline_flush(d->pipeline);
}
