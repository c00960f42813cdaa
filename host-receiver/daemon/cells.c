/* SPDX-License-Identifier: MIT */
/*
 * Cells that come and go, each in steps between which the loop serves the others: what a disk may
 * delay is done by a worker (libuv's), and a stream's first and last record are waited for.
 *
 *	add:     state staged | bound, opened ... in the log | state on disk | answered
 *	remove:  sealed ... in the log | state gone | answered
 *	         (not served: state found | socket gone) | state gone | answered
 *
 * So the state on disk always names the last stream that is in the log; after a crash within these
 * steps the restart (restart.c) finds out how far they came. All is the loop thread's but the
 * functions that are called work_*.
 */
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/daemon/internal.h"

enum task_step {
	TASK_STAGING, /* the worker has it */
	TASK_LOGGING, /* opened or sealed is on its way */
	TASK_WAITING, /* for the states of the restart */
	TASK_STORING, /* the worker has it */
};

struct cell_task {
	struct cell_task *next, **link;
	struct daemon *d;
	uv_work_t work;
	bool adds; /* or removes */
	enum task_step step;
	struct control_reply *reply; /* NULL: it had its answer */
	uint64_t due_ns;
	char id[CELL_ID_MAX + 1];
	/* Of an add: */
	struct cell_options options;
	json_t *json; /* owned; the options' texts are its */
	uint8_t stream_id[UUID_SIZE];
	bool left_socket;  /* a state of before says that the socket at the path is ours */
	struct cell *cell; /* NULL: not yet, or it was given up */
	json_t *refusal;   /* owned; told when the state is gone */
	/* The worker's while it has the task. */
	char *state;
	int error;
	char why[CELL_WHY_MAX]; /* of a bad option */
};

void daemon_cell_defaults(const struct daemon *d, struct cell_options *o)
{
	cell_options_defaults(o);
	o->keepalive_ms = (unsigned)d->config.keepalive_ms;
	o->connect_within_ms = (unsigned)d->config.connect_within_ms;
	o->rate = (unsigned)d->config.rate;
}

/* ---- tasks --------------------------------------------------------------------------------------
 */

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

	if (!t || !(t->reply = control_defer(d->control))) {
		free(t);
		return NULL;
	}
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
	json_decref(t->json);
	free(t->state);
	free(t);
}

static void give_to_worker(struct cell_task *t, enum task_step step, uv_work_cb work,
			   uv_after_work_cb done)
{
	t->step = step;
	/* It fails for a missing callback only. */
	if (uv_queue_work(&t->d->life.loop, &t->work, work, done) < 0)
		abort();
}

/* fn(t) once all that was submitted so far is in the log. */
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

/* ---- add ----------------------------------------------------------------------------------------
 */

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

/* The answer is the last: who has it can add the cell again. Takes refusal. */
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

/* In these steps the daemon may have begun to stop, and then has removed the cell. */
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
		log_info("msg=\"cell added\" cell=%s socket=%s_%u", t->id, t->cell->uds_base,
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
		end_task(t);
		return;
	}
	if (d->life.stopping) {
		refuse(t, stopping());
		return;
	}
	r = cell_add(&d->host, &t->options, t->left_socket, t->stream_id, NULL, &t->cell, why);
	if (r < 0) {
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
	json_t *json = cell_state_load(t->d->state_fd, t->id, &left);
	const char *uds = json_string_value(json_object_get(left.options, "uds"));

	t->left_socket = uds && strcmp(uds, t->options.uds_base) == 0;
	json_decref(json);
	t->error = cell_options_look(&t->options, t->why);
	if (t->error == 0)
		t->error = cell_state_stage(t->d->state_fd, t->id, t->state);
}

static unsigned cells_and_those_to_come(const struct daemon *d)
{
	unsigned n = d->host.stats.cells;

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

json_t *daemon_add_cell(struct daemon *d, const json_t *request)
{
	json_t *json = json_object_get(request, "options"), *refusal;
	char why[CELL_WHY_MAX] = "no memory";
	struct evidence_position since;
	struct cell_options o;
	struct cell_task *t;

	if (!json_is_object(json))
		return control_refusal(EX_USAGE, "options: expected an object of strings");
	daemon_cell_defaults(d, &o);
	if (cell_options_from_json(&o, json, why) < 0)
		return control_refusal(EX_USAGE, "%s", why);
	refusal = refuse_add(d, &o);
	if (refusal)
		return refusal;
	t = new_task(d, o.cell_id);
	if (!t)
		return NULL;
	t->adds = true;
	t->options = o;
	t->json = json_incref(json);
	cell_stream_id(t->stream_id);
	since = evidence_log_end(d->log);
	t->state = cell_state_format(json, t->stream_id, &since);
	if (!t->state) {
		end_task(t);
		return NULL;
	}
	give_to_worker(t, TASK_STAGING, work_stage, on_staged);
	return NULL;
}

/* ---- remove -------------------------------------------------------------------------------------
 */

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

/* A cell that could not be served again after a restart: there is its state, and maybe its socket.
 */
static void work_find_left(uv_work_t *work)
{
	struct cell_task *t = work->data;
	struct cell_state left;

	t->json = cell_state_load(t->d->state_fd, t->id, &left);
	t->error = left.has_file ? 0 : -ENOENT;
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
	if (cell_options_from_json(&o, json_object_get(t->json, "options"), why) == 0)
		cell_socket_remove_stale(&o);
	give_to_worker(t, TASK_STORING, work_remove, on_removed);
}

static json_t *refuse_remove(struct daemon *d, const char *id)
{
	struct cell_options o;
	char why[CELL_WHY_MAX];

	/* Only what is a cell's id names a file of a cell's. */
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
	t = new_task(d, id);
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

/* ---- when it takes too long, and at the end -----------------------------------------------------
 */

void daemon_check_tasks(struct daemon *d)
{
	const uint64_t now_ns = monotonic_ns();

	for (struct cell_task *t = d->tasks; t; t = t->next) {
		if (!t->reply || now_ns < t->due_ns || t->step != TASK_LOGGING)
			continue;
		if (t->adds) {
			/* First: with the answer its socket is gone. */
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
