/* SPDX-License-Identifier: MIT */
/*
 * Serves the cells of the last run again, in steps as in cells.c:
 *
 *	restart: all states staged | bound, opened ... in the log | all states on disk
 *
 * If the last daemon ended between two steps, the log is read to find the last step that was done.
 * All functions run on the loop thread, except those named work_*.
 */
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/evidence/reader.h"
#include "host-receiver/daemon/internal.h"

/* A stream that may or may not have begun. */
struct unsettled {
	char *id;
	uint8_t stream_id[UUID_SIZE];
	bool begun;
};

struct restart {
	struct daemon *d;
	struct unsettled *unsettled; /* sorted by stream id */
	size_t n;
	struct evidence_position since; /* where the oldest of them may begin in the log */
	int error;

	/* The cells that are served again: one uv_work_t for all. */
	uv_work_t work;
	char **ids;
	size_t n_ids;
};

static int grow(void *array, size_t n, size_t size)
{
	void **p = array, *grown;

	if ((n & (n - 1)) != 0)
		return 0;
	grown = reallocarray(*p, n ? n * 2 : 1, size);
	if (!grown)
		return -ENOMEM;
	*p = grown;
	return 0;
}

static void note_staged(void *ctx, const char *file, const char *id, const struct cell_state *s)
{
	struct restart *restart = ctx;
	struct daemon *d = restart->d;
	struct cell_options o;
	char why[CELL_WHY_MAX];

	(void)file;
	if (s->has_file && !s->why) {
		struct unsettled *u;

		if (grow(&restart->unsettled, restart->n, sizeof(*u)) < 0) {
			restart->error = -ENOMEM;
			return;
		}
		if (restart->n == 0 || s->since.segment < restart->since.segment ||
		    (s->since.segment == restart->since.segment &&
		     s->since.offset < restart->since.offset))
			restart->since = s->since;
		u = &restart->unsettled[restart->n++];
		*u = (struct unsettled){.id = strdup(id)};
		memcpy(u->stream_id, s->stream_id, UUID_SIZE);
		if (!u->id)
			restart->error = -ENOMEM;
		return;
	}
	/*
	 * The staged file has no use: the last daemon ended during an add that it never answered,
	 * or the file itself cannot be read.
	 */
	daemon_cell_defaults(d, &o);
	if (!s->has_file && !s->why && option_texts_apply(&s->options, &o, why) == 0) {
		cell_socket_remove_stale(&o, d->client);
		log_notice("msg=\"forgot a cell whose add was cut short\" cell=%s", id);
	}
	cell_state_discard(d->state_fd, id);
}

static int compare_unsettled(const void *a, const void *b)
{
	const struct unsettled *x = a, *y = b;

	return memcmp(x->stream_id, y->stream_id, UUID_SIZE);
}

/* A guest's text cannot contain this key: its quotes would be escaped. */
static void note_line(struct restart *restart, const char *line, size_t len)
{
	static const char key[] = "\"streamId\":\"";
	const char *at = memmem(line, len, key, sizeof(key) - 1);
	struct unsettled wanted, *found;
	char text[UUID_STRING_MAX];

	if (!at || len - (size_t)(at - line) < sizeof(key) - 1 + UUID_STRING_MAX)
		return;
	memcpy(text, at + sizeof(key) - 1, UUID_STRING_MAX - 1);
	text[UUID_STRING_MAX - 1] = '\0';
	if (!uuid_parse(text, wanted.stream_id))
		return;
	found = bsearch(&wanted, restart->unsettled, restart->n, sizeof(wanted), compare_unsettled);
	if (found)
		found->begun = true;
}

static int read_log(struct restart *restart)
{
	struct evidence_reader *reader;
	const char *line;
	size_t len;
	int r = evidence_reader_open(restart->d->config.evidence_dir, &restart->since, &reader);

	if (r < 0)
		return r;
	while ((r = evidence_reader_next(reader, &line, &len)) != 0) {
		if (r > 0)
			note_line(restart, line, len);
		else if (r != -EMSGSIZE && r != -ENODATA)
			break;
	}
	evidence_reader_close(reader);
	return r;
}

/*
 * Bring the state files into the form that they would have if the last daemon had completed its
 * steps.
 */
static int settle(struct restart *restart)
{
	struct daemon *d = restart->d;
	int r = cell_state_each(d->state_fd, true, note_staged, restart);

	if (r == 0)
		r = restart->error;
	if (r == 0 && restart->n > 0) {
		qsort(restart->unsettled, restart->n, sizeof(*restart->unsettled),
		      compare_unsettled);
		r = read_log(restart);
	}
	for (size_t i = 0; i < restart->n; i++) {
		const struct unsettled *u = &restart->unsettled[i];

		if (r == 0)
			r = u->begun ? cell_state_publish(d->state_fd, u->id)
				     : cell_state_discard(d->state_fd, u->id);
		free(u->id);
	}
	free(restart->unsettled);
	restart->unsettled = NULL;
	return r;
}

/*
 * Stage the new state of a cell of the last run, then give it its socket again and a new stream
 * that names the last one.
 */
static void stage_again(void *ctx, const char *file, const char *id, const struct cell_state *s)
{
	struct restart *restart = ctx;
	struct daemon *d = restart->d;
	const struct evidence_position since = evidence_log_end(d->log);
	_cleanup_free_ char *text = NULL;
	uint8_t stream_id[UUID_SIZE];
	int r;

	(void)file;
	if (s->why) {
		daemon_cell_unserved(d, id, s->why);
		return;
	}
	stream_id_generate(stream_id);
	r = cell_state_format(&s->options, stream_id, &since, &text);
	if (r == -E2BIG) {
		daemon_cell_unserved(d, id, "its options are too long to be remembered");
		return;
	}
	if (r == 0)
		r = cell_state_stage(d->state_fd, id, text);
	if (r < 0)
		restart->error = r;
}

static int remember_id(struct restart *restart, const char *id)
{
	if (grow(&restart->ids, restart->n_ids, sizeof(*restart->ids)) < 0 ||
	    !(restart->ids[restart->n_ids] = strdup(id)))
		return -ENOMEM;
	restart->n_ids++;
	return 0;
}

static void serve_again(struct restart *restart, const char *id, const struct cell_state *was,
			const uint8_t *stream_id)
{
	struct daemon *d = restart->d;
	struct stream_end previous;
	struct cell_options o;
	struct cell *cell;
	char why[CELL_WHY_MAX] = "no memory";
	int r = remember_id(restart, id);

	daemon_find_end(d, was->stream_id, &previous);
	daemon_cell_defaults(d, &o);
	if (r == 0)
		r = option_texts_apply(&was->options, &o, why);
	if (r == 0)
		r = daemon_check_descriptors(d, why);
	if (r == 0)
		r = cell_add(&d->registry, &o, true, stream_id,
			     daemon_was_lost(d, &previous) ? NULL : &previous, &cell, why);
	if (r == 0 && !cell_index_add(&d->cells, cell)) {
		cell_remove(cell, "removed");
		r = -ENOMEM;
	}
	if (r == 0) {
		daemon_give_sessions(d, cell);
		return;
	}
	daemon_cell_unserved(d, id, why);
	cell_state_discard(d->state_fd, id);
	if (r != -ENOMEM)
		free(restart->ids[--restart->n_ids]);
}

/* The staged file names the new stream, and the file itself the last one. */
static void serve_staged(void *ctx, const char *file, const char *id,
			 const struct cell_state *staged)
{
	struct restart *restart = ctx;
	struct cell_state was;

	(void)file;
	if (staged->why || !staged->has_file) {
		cell_state_discard(restart->d->state_fd, id);
		return;
	}
	cell_state_load(restart->d->state_fd, id, &was);
	if (was.why)
		daemon_cell_unserved(restart->d, id, was.why);
	else
		serve_again(restart, id, &was, staged->stream_id);
	cell_state_free(&was);
}

static void free_restart(struct restart *restart)
{
	for (size_t i = 0; i < restart->n_ids; i++)
		free(restart->ids[i]);
	free(restart->ids);
	free(restart);
}

static void work_publish(uv_work_t *work)
{
	struct restart *restart = work->data;
	const int fd = restart->d->state_fd;

	restart->error = 0;
	for (size_t i = 0; i < restart->n_ids; i++) {
		int r = cell_state_publish(fd, restart->ids[i]);

		if (r < 0)
			restart->error = r;
	}
	if (restart->error == 0)
		restart->error = cell_state_sync(fd);
}

static void on_published(uv_work_t *work, int status)
{
	struct restart *restart = work->data;
	struct daemon *d = restart->d;

	(void)status;
	if (restart->error < 0)
		log_error("msg=\"cannot remember the cells' new streams\" why=\"%s\"",
			  strerror(-restart->error));
	free_restart(restart);
	d->states_staged = false;
	daemon_resume_removals(d);
}

static void on_all_opened(void *arg)
{
	struct restart *restart = arg;

	if (restart->d->life.finished) {
		free_restart(restart);
		return;
	}
	restart->work.data = restart;
	if (uv_queue_work(&restart->d->life.loop, &restart->work, work_publish, on_published) < 0)
		abort();
}

static int fail_restart(struct restart *restart, const char *what, int error)
{
	log_error("msg=\"%s\" dir=%s/cells why=\"%s\"", what, restart->d->config.state_dir,
		  strerror(-error));
	free_restart(restart);
	return EXIT_FAILURE;
}

int daemon_readopt_cells(struct daemon *d)
{
	struct restart *restart = calloc(1, sizeof(*restart));
	int r;

	if (!restart)
		return EX_OSERR;
	restart->d = d;
	r = settle(restart);
	if (r < 0)
		return fail_restart(restart, "cannot read what the last daemon left", r);
	r = daemon_recall_sessions(d);
	if (r < 0)
		return fail_restart(restart, "cannot read back the guests' numbers", r);
	r = cell_state_each(d->state_fd, false, stage_again, restart);
	if (r == 0)
		r = restart->error;
	if (r == 0)
		r = cell_state_sync(d->state_fd);
	if (r == 0)
		r = cell_state_each(d->state_fd, true, serve_staged, restart);
	if (r < 0)
		return fail_restart(restart, "cannot remember the cells' new streams", r);
	if (restart->n_ids == 0) {
		free_restart(restart);
		return EX_OK;
	}
	log_notice("msg=\"serving the cells of the last run\" cells=%u", d->registry.stats.cells);
	d->states_staged = true;
	pipeline_defer(d->pipeline, on_all_opened, restart);
	pipeline_flush(d->pipeline);
	return EX_OK;
}
