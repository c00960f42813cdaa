/* SPDX-License-Identifier: MIT */
/*
 * Adds and removes cells in steps. Between two steps the loop serves the other cells. A worker of
 * libuv reads and writes files, because a disk may be slow. Some steps wait until the stream's
 * first or last record is in the log.
 *
 *	add:     state staged | bound, opened ... in the log | state on disk | answered
 *	retry:   state read | as an add, but without an answer
 *	remove:  sealed ... in the log | state gone | answered
 *	         (unserved: state found | socket gone) | state gone | answered
 *
 * So the state on disk always names the last stream that is in the log. After a crash between two
 * steps, restart.c finds the last step that was done. All functions run on the loop thread, except
 * those named work_*.
 */
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/daemon/internal.h"

enum task_step {
	TASK_STAGING, /* the worker has it */
	TASK_LOGGING, /* the record opened or sealed is being committed */
	TASK_WAITING, /* for the states of the restart */
	TASK_STORING, /* the worker has it */
};

struct cell_task {
	struct cell_task *next, **link;
	struct daemon *d;
	uv_work_t work;
	bool adds; /* false: it removes */
	enum task_step step;
	struct control_reply *reply; /* NULL: it was answered, or nobody asked */
	uint64_t due_ns;
	char id[NAME_MAX + 1];
	/* Of an add: */
	struct option_texts given;   /* owned */
	struct cell_options options; /* its texts are borrowed from given */
	uint8_t stream_id[UUID_SIZE];
	bool retries;	   /* the task is for an unserved cell: no client waits for an answer */
	bool left_socket;  /* an earlier state says that the socket at the path is ours */
	bool has_previous; /* that state also names the cell's last stream: */
	struct stream_end previous;
	struct cell *cell; /* NULL: not made yet, or given up */
	json_t *refusal;   /* owned; sent after the state is removed */
	/* Only the worker uses these while it has the task. */
	char *state;
	int error;
	char why[CELL_WHY_MAX]; /* of a bad option */
};

json_t *daemon_no_cell(const char *id)
{
	return id ? control_refusal(EXIT_FAILURE, "%.128s: no such cell", id)
		  : control_refusal(EX_USAGE, "cell: expected a cell's id");
}

void daemon_cell_defaults(const struct daemon *d, struct cell_options *o)
{
	cell_options_defaults(o);
	o->keepalive_ms = (unsigned)d->config.keepalive_ms;
	o->connect_within_ms = (unsigned)d->config.connect_within_ms;
}

/* ---- tasks ---- */

static struct cell_task *find_task(struct daemon *d, const char *id)
{
	for (struct cell_task *t = d->tasks; t; t = t->next)
		if (strcmp(t->id, id) == 0)
			return t;
	return NULL;
}

static struct cell_task *new_task(struct daemon *d, const char *id)
{
	struct cell_task *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->d = d;
	t->work.data = t;
	t->due_ns = monotonic_ns() + DAEMON_TASK_MS * NSEC_PER_MSEC;
	snprintf(t->id, sizeof(t->id), "%s", id);
	t->next = d->tasks;
	t->link = &d->tasks;
	if (t->next)
		t->next->link = &t->next;
	d->tasks = t;
	return t;
}

/* Takes answer. */
static void answer(struct cell_task *t, json_t *answer)
{
	if (t->reply)
		control_answer(take_ptr(t->reply), answer);
	else
		json_decref(answer);
}

static void end_task(struct cell_task *t)
{
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	if (t->reply)
		answer(t, NULL);
	option_texts_free(&t->given);
	free(t->state);
	free(t);
}

/* A task for the client that is asking. NULL: no memory. */
static struct cell_task *new_request(struct daemon *d, const char *id)
{
	struct cell_task *t = new_task(d, id);

	if (t && !(t->reply = control_defer(d->control))) {
		end_task(t);
		return NULL;
	}
	return t;
}

static void give_to_worker(struct cell_task *t, enum task_step step, uv_work_cb work,
			   uv_after_work_cb done)
{
	t->step = step;
	/* uv_queue_work() fails only without a callback. */
	if (uv_queue_work(&t->d->life.loop, &t->work, work, done) < 0)
		abort();
}

/* Call fn(t) when everything that was submitted so far is in the log. */
static void wait_for_log(struct cell_task *t, void (*fn)(void *task))
{
	t->step = TASK_LOGGING;
	pipeline_defer(t->d->pipeline, fn, t);
	pipeline_flush(t->d->pipeline);
}

static const char *why_log(const struct daemon *d)
{
	const int error = pipeline_stats(d->pipeline)->sink_error;

	return error ? strerror(-error) : "the disk is slow";
}

/* ---- cells that cannot be served ---- */

void daemon_cell_unserved(struct daemon *d, const char *id, const char *why)
{
	char shown_id[2 * NAME_MAX], shown[2 * CELL_WHY_MAX];
	const struct unserved_cell *cell;
	int r = unserved_put(&d->unserved, id, why, monotonic_ns());

	if (r == 0)
		return;
	log_error(
		"msg=\"a cell of the last run cannot be served; it is tried again\" cell=%s why=%s",
		log_escape(shown_id, sizeof(shown_id), id, strlen(id)),
		log_escape(shown, sizeof(shown), why, strlen(why)));
	cell = unserved_find(&d->unserved, id);
	if (cell)
		log_stream_cell_unserved(d->log_stream, cell->shown, cell->why);
}

static void cell_served(struct daemon *d, const char *id)
{
	if (!unserved_remove(&d->unserved, id))
		return;
	log_notice("msg=\"a cell of the last run is served again\" cell=%s", id);
	log_stream_cell_served(d->log_stream, id);
}

/* ---- add ---- */

static void work_discard(uv_work_t *work)
{
	struct cell_task *t = work->data;

	cell_state_discard(t->d->state_fd, t->id);
}

static void on_discarded(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;

	(void)status;
	answer(t, take_ptr(t->refusal));
	end_task(t);
}

/* The answer is sent last: after it the client can add the cell again. Takes refusal. */
static void refuse(struct cell_task *t, json_t *refusal)
{
	t->refusal = refusal;
	give_to_worker(t, TASK_STORING, work_discard, on_discarded);
}

static void give_up_cell(struct cell_task *t)
{
	if (!t->cell)
		return;
	cell_remove(take_ptr(t->cell), "removed");
	pipeline_flush(t->d->pipeline);
}

static void work_commit(uv_work_t *work)
{
	struct cell_task *t = work->data;

	t->error = cell_state_commit(t->d->state_fd, t->id);
}

/* The daemon may have begun to stop in these steps; then it has removed the cell. */
static json_t *stopping(void)
{
	return control_refusal(EXIT_FAILURE, "the daemon is stopping");
}

static void on_committed(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;
	struct daemon *d = t->d;
	int r = t->error;

	(void)status;
	if (r == 0 && t->cell && !cell_index_add(&d->cells, t->cell))
		r = -ENOMEM;
	if (r == 0 && t->cell) {
		cell_served(d, t->id);
		log_info("msg=\"cell added\" cell=%s socket=\"%s_%u\"", t->id, t->cell->uds_base,
			 WIRE_VSOCK_PORT);
		answer(t, json_pack("{s:b,s:o}", "ok", 1, "socket",
				    json_sprintf("%s_%u", t->cell->uds_base, WIRE_VSOCK_PORT)));
		end_task(t);
		return;
	}
	if (r < 0)
		log_error("msg=\"cannot remember the cell\" cell=%s why=\"%s\"", t->id,
			  strerror(-r));
	give_up_cell(t);
	if (!t->retries)
		cell_state_remove(d->state_fd, t->id);
	refuse(t,
	       r < 0 ? control_refusal(EXIT_FAILURE, "cannot remember the cell: %s", strerror(-r))
		     : stopping());
}

static void on_opened(void *task)
{
	struct cell_task *t = task;

	if (t->d->life.finished) {
		end_task(t);
		return;
	}
	if (!t->cell) {
		refuse(t, stopping());
		return;
	}
	give_to_worker(t, TASK_STORING, work_commit, on_committed);
}

static void on_staged(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;
	struct daemon *d = t->d;
	char why[CELL_WHY_MAX] = "no memory";
	int r;

	(void)status;
	if (t->error < 0) {
		answer(t, *t->why ? control_refusal(EX_USAGE, "%s", t->why)
				  : control_refusal(EXIT_FAILURE, "cannot remember the cell: %s",
						    strerror(-t->error)));
		if (t->retries)
			daemon_cell_unserved(d, t->id, *t->why ? t->why : strerror(-t->error));
		end_task(t);
		return;
	}
	if (d->life.stopping) {
		refuse(t, stopping());
		return;
	}
	if (t->has_previous)
		daemon_find_end(d, t->previous.stream_id, &t->previous);
	r = daemon_check_descriptors(d, why);
	if (r == 0)
		r = cell_add(&d->registry, &t->options, t->left_socket, t->stream_id,
			     t->has_previous ? &t->previous : NULL, &t->cell, why);
	if (r == 0 && t->has_previous)
		daemon_give_sessions(d, t->cell);
	if (r < 0) {
		if (t->retries)
			daemon_cell_unserved(d, t->id, why);
		refuse(t, control_refusal(r == -EPERM || r == -EACCES ? EX_NOPERM : EX_CANTCREAT,
					  "%s", why));
		return;
	}
	wait_for_log(t, on_opened);
}

static void work_stage(uv_work_t *work)
{
	struct cell_task *t = work->data;
	struct cell_state left;
	const char *uds;

	cell_state_load(t->d->state_fd, t->id, &left);
	uds = option_texts_get(&left.options, "uds");
	t->left_socket = uds && strcmp(uds, t->options.uds_base) == 0;
	t->has_previous = !left.why;
	memcpy(t->previous.stream_id, left.stream_id, UUID_SIZE);
	cell_state_free(&left);
	t->error = cell_options_look(&t->options, t->why);
	if (t->error == 0)
		t->error = cell_state_stage(t->d->state_fd, t->id, t->state);
}

static unsigned cells_and_those_to_come(const struct daemon *d)
{
	unsigned n = d->registry.stats.cells;

	for (const struct cell_task *t = d->tasks; t; t = t->next)
		n += t->adds && t->step == TASK_STAGING;
	return n;
}

static json_t *refuse_add(struct daemon *d, const struct cell_options *o)
{
	const int error = pipeline_stats(d->pipeline)->sink_error;

	if (*o->uds_base != '/')
		return control_refusal(EX_USAGE, "--uds %.100s: expected an absolute path",
				       o->uds_base);
	if (d->life.stopping)
		return stopping();
	if (cell_index_find(&d->cells, o->cell_id))
		return control_refusal(EX_CANTCREAT, "cell %s exists already", o->cell_id);
	if (find_task(d, o->cell_id))
		return control_refusal(EX_CANTCREAT, "cell %s is being added or removed",
				       o->cell_id);
	if (cells_and_those_to_come(d) >= d->config.max_cells)
		return control_refusal(EX_CANTCREAT,
				       "there are max_cells = %" PRIu64 " cells already",
				       d->config.max_cells);
	if (error < 0)
		return control_refusal(EXIT_FAILURE, "the evidence log cannot be written: %s",
				       strerror(-error));
	return NULL;
}

/* The request's options as texts: 0 or -EINVAL with a sentence in why. */
static int read_given(const json_t *object, struct option_texts *ret, char why[CELL_WHY_MAX])
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, name, value)
	{
		const struct wire_text text = {
			.data = json_string_value(value),
			.len = json_string_length(value),
		};
		int r;

		if (!json_is_string(value)) {
			snprintf(why, CELL_WHY_MAX, "%.64s: expected a string", name);
			return -EINVAL;
		}
		r = option_texts_add(ret, wire_text(name), text, why);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Takes what is given if there is no refusal. NULL and no task: no memory. */
static json_t *begin_add(struct daemon *d, struct option_texts *given)
{
	struct evidence_position since = evidence_log_end(d->log);
	char why[CELL_WHY_MAX] = "no memory", *state;
	uint8_t stream_id[UUID_SIZE];
	struct cell_options o;
	struct cell_task *t;
	json_t *refusal;
	int r;

	daemon_cell_defaults(d, &o);
	if (option_texts_apply(given, &o, why) < 0)
		return control_refusal(EX_USAGE, "%s", why);
	refusal = refuse_add(d, &o);
	if (refusal)
		return refusal;
	stream_id_generate(stream_id);
	r = cell_state_format(given, stream_id, &since, &state);
	if (r < 0)
		return r == -E2BIG ? control_refusal(EX_USAGE,
						     "the options are too long to be remembered: "
						     "expected at most %u bytes",
						     CELL_STATE_FILE_MAX)
				   : NULL;
	t = new_request(d, o.cell_id);
	if (!t) {
		free(state);
		return NULL;
	}
	t->adds = true;
	t->options = o;
	t->given = *given;
	given->n = 0;
	t->state = state;
	memcpy(t->stream_id, stream_id, UUID_SIZE);
	give_to_worker(t, TASK_STAGING, work_stage, on_staged);
	return NULL;
}

json_t *daemon_add_cell(struct daemon *d, const json_t *request)
{
	const json_t *object = json_object_get(request, "options");
	struct option_texts given = {0};
	char why[CELL_WHY_MAX];
	json_t *refusal;

	if (!json_is_object(object))
		return control_refusal(EX_USAGE, "options: expected an object of strings");
	refusal = read_given(object, &given, why) < 0 ? control_refusal(EX_USAGE, "%s", why)
						      : begin_add(d, &given);
	option_texts_free(&given);
	return refusal;
}

/* ---- remove ---- */

static void work_remove(uv_work_t *work)
{
	struct cell_task *t = work->data;

	t->error = cell_state_remove(t->d->state_fd, t->id);
}

static void on_removed(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;

	(void)status;
	if (t->error < 0 && t->error != -ENOENT) {
		log_error("msg=\"cannot forget the cell; it will be served again after a restart\" "
			  "cell=%s why=\"%s\"",
			  t->id, strerror(-t->error));
		answer(t, control_refusal(EXIT_FAILURE, "cannot forget the cell: %s",
					  strerror(-t->error)));
	} else {
		log_info("msg=\"cell removed\" cell=%s", t->id);
		unserved_remove(&t->d->unserved, t->id);
		answer(t, json_pack("{s:b}", "ok", 1));
	}
	end_task(t);
}

static void on_sealed(void *task)
{
	struct cell_task *t = task;

	if (t->d->life.finished)
		end_task(t);
	else if (t->d->states_staged)
		t->step = TASK_WAITING;
	else
		give_to_worker(t, TASK_STORING, work_remove, on_removed);
}

static void on_seal_told(void *task)
{
	wait_for_log(task, on_sealed);
}

/* An unserved cell has a state file, and maybe a socket that a dead daemon left. */
static void work_find_left(uv_work_t *work)
{
	struct cell_task *t = work->data;
	struct cell_state left;

	cell_state_load(t->d->state_fd, t->id, &left);
	t->error = left.has_file ? 0 : -ENOENT;
	t->given = left.options;
}

static void on_left_found(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;
	struct cell_options o;
	char why[CELL_WHY_MAX];

	(void)status;
	if (t->error < 0) {
		answer(t, daemon_no_cell(t->id));
		end_task(t);
		return;
	}
	daemon_cell_defaults(t->d, &o);
	if (option_texts_apply(&t->given, &o, why) == 0)
		cell_socket_remove_stale(&o, t->d->client);
	give_to_worker(t, TASK_STORING, work_remove, on_removed);
}

static json_t *refuse_remove(struct daemon *d, const char *id)
{
	struct cell_options o;
	char why[CELL_WHY_MAX];

	/* A valid id cannot name a file outside the folder of the cells. */
	if (!id || cell_options_set(&o, "cell-id", id, why) < 0)
		return daemon_no_cell(id);
	if (find_task(d, id))
		return control_refusal(EXIT_FAILURE, "cell %s is being added or removed", id);
	return d->life.stopping ? stopping() : NULL;
}

void daemon_resume_removals(struct daemon *d)
{
	for (struct cell_task *t = d->tasks; t; t = t->next)
		if (t->step == TASK_WAITING)
			give_to_worker(t, TASK_STORING, work_remove, on_removed);
}

json_t *daemon_remove_cell(struct daemon *d, const json_t *request)
{
	const char *id = json_string_value(json_object_get(request, "cell"));
	struct cell *cell = id ? cell_index_find(&d->cells, id) : NULL;
	json_t *refusal = cell ? NULL : refuse_remove(d, id);
	struct cell_task *t;

	if (refusal)
		return refusal;
	t = new_request(d, id);
	if (!t)
		return NULL;
	if (!cell) {
		give_to_worker(t, TASK_STORING, work_find_left, on_left_found);
		return NULL;
	}
	cell_index_remove(&d->cells, cell);
	t->step = TASK_LOGGING;
	cell->on_sealed = on_seal_told;
	cell->sealed_ctx = t;
	cell_remove(cell, "removed");
	return NULL;
}

/* ---- unserved cells are tried again ---- */

static void end_retry(struct cell_task *t, const char *why)
{
	daemon_cell_unserved(t->d, t->id, why);
	end_task(t);
}

/* The state file was read: the next steps are those of an add. */
static void on_retry_read(uv_work_t *work, int status)
{
	struct cell_task *t = work->data;
	struct daemon *d = t->d;
	const struct evidence_position since = evidence_log_end(d->log);
	char why[CELL_WHY_MAX] = "no memory";

	(void)status;
	if (t->error == -ENOENT) {
		unserved_remove(&d->unserved, t->id);
		end_task(t);
		return;
	}
	if (t->error < 0) {
		end_retry(t, t->why);
		return;
	}
	daemon_cell_defaults(d, &t->options);
	stream_id_generate(t->stream_id);
	if (option_texts_apply(&t->given, &t->options, why) < 0 ||
	    cell_state_format(&t->given, t->stream_id, &since, &t->state) < 0)
		end_retry(t, why);
	else
		give_to_worker(t, TASK_STAGING, work_stage, on_staged);
}

static void work_read_unserved(uv_work_t *work)
{
	struct cell_task *t = work->data;
	struct cell_state left;

	cell_state_load(t->d->state_fd, t->id, &left);
	t->error = !left.has_file ? -ENOENT : left.why ? -EINVAL : 0;
	snprintf(t->why, sizeof(t->why), "%s", left.why ? left.why : "");
	t->given = left.options;
}

void daemon_retry_unserved(struct daemon *d)
{
	const struct unserved_cell *cell = unserved_due(&d->unserved, monotonic_ns());
	struct cell_task *t;

	if (!cell || d->life.stopping || d->states_staged || find_task(d, cell->id) ||
	    pipeline_stats(d->pipeline)->sink_error < 0)
		return;
	t = new_task(d, cell->id);
	if (!t)
		return;
	t->adds = t->retries = true;
	give_to_worker(t, TASK_STAGING, work_read_unserved, on_retry_read);
}

/* ---- when it takes too long, and at the end ---- */

void daemon_check_tasks(struct daemon *d)
{
	const uint64_t now_ns = monotonic_ns();

	for (struct cell_task *t = d->tasks; t; t = t->next) {
		if (!t->reply || now_ns < t->due_ns || t->step != TASK_LOGGING)
			continue;
		if (t->adds) {
			/* The answer is sent after this, so the client finds the socket removed. */
			give_up_cell(t);
			answer(t, control_refusal(EXIT_FAILURE,
						  "the evidence log does not take it: %s",
						  why_log(d)));
		} else {
			answer(t, control_refusal(EXIT_FAILURE,
						  "the cell is closed, but its seal is not in the "
						  "log yet: %s",
						  why_log(d)));
		}
	}
}

void daemon_forget_added(struct daemon *d, const struct cell *cell)
{
	for (struct cell_task *t = d->tasks; t; t = t->next)
		if (t->cell == cell)
			t->cell = NULL;
}
