/* SPDX-License-Identifier: MIT */
/*
 * The daemon as its verb sees it: what runs (verbs/serve.c), what it is asked on the control socket
 * (answers.c), how cells come and go (cells.c) and come again (restart.c). All of
 * it is the loop thread's.
 */
#pragma once

#include "host-receiver/cell/cell.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/server.h"
#include "host-receiver/evidence/cursor.h"
#include "host-receiver/metrics/http.h"

/* So long an add or a removal waits for the log; then its client is told. */
#define DAEMON_TASK_MS 10000u

struct cell_task;

struct daemon {
	const char *config_path;
	struct config config;

	uv_loop_t loop;
	uv_signal_t signals[3];
	uv_timer_t second, stop_timer;
	struct evidence_log *log; /* the pipeline's sink: freed with it */
	struct pipeline *pipeline;
	const struct signer *signer; /* that signs now: the pipeline's */
	struct cell_host host;
	struct control_server *control;
	struct metrics_server *metrics; /* NULL: off */
	void *cells;			/* tree of struct cell by id, tsearch(3) */
	struct cell_task *tasks;	/* adds and removals under way */
	bool states_staged;		/* the cells of before wait for their opened */
	int state_fd;			/* of state_dir/cells */
	int cursors_fd;			/* of state_dir/cursors */
	uv_work_t floor_work;		/* reads the cursors */
	bool floor_busy, floor_told;
	uint64_t floor; /* the worker's while busy */
	int floor_error;
	char floor_bad[CURSOR_NAME_MAX];
	uint64_t started_ns, watchdog_ms, watchdog_due_ns;
	int sink_error;	       /* as it was last told */
	char status_line[128]; /* as it was last told */
	bool stopping, finished;
	int status;
};

/* Answers the control socket; ctx is the daemon. */
json_t *daemon_answer(void *ctx, const json_t *request);

/* The cell of this id, or NULL. */
struct cell *daemon_find_cell(struct daemon *d, const char *id);
/* False: no memory. */
bool daemon_index_cell(struct daemon *d, struct cell *cell);
void daemon_forget_cell(struct daemon *d, struct cell *cell);

/* What a cell has when its options do not say. */
void daemon_cell_defaults(const struct daemon *d, struct cell_options *o);

/* The refusal that there is no such cell; id may be NULL. */
json_t *daemon_no_cell(const char *id);

/* Answers to add and remove: a refusal, or NULL and it comes later. */
json_t *daemon_add_cell(struct daemon *d, const json_t *request);
json_t *daemon_remove_cell(struct daemon *d, const json_t *request);
/* Each second: whose client has waited long enough. */
void daemon_check_tasks(struct daemon *d);
/* This cell is about to be removed by somebody else. */
void daemon_forget_added(struct daemon *d, const struct cell *cell);

/* Those that waited for the cells of before (states_staged). */
void daemon_resume_removals(struct daemon *d);

/* Serve the cells of before again. Returns an exit status, EX_OK or after a message. */
int daemon_readopt_cells(struct daemon *d);

/* When it is stopping and nothing is under way any more, the end. */
void daemon_finish_if_done(struct daemon *d);
