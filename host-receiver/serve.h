/* SPDX-License-Identifier: MIT */
/*
 * The daemon as its verb sees it: what runs (cmd_serve.c), and what it is asked on the control
 * socket (serve_control.c). All of it is the loop thread's.
 */
#pragma once

#include "host-receiver/cell/cell.h"
#include "host-receiver/config/config.h"
#include "host-receiver/control/server.h"
#include "host-receiver/metrics/http.h"

struct daemon {
	const char *config_path;
	struct config config;

	uv_loop_t loop;
	uv_signal_t signals[3];
	uv_timer_t second, stop_timer;
	struct evidence_log *log; /* the pipeline's sink: freed with it */
	struct pipeline *pipeline;
	struct cell_host host;
	struct control_server *control;
	struct metrics_server *metrics; /* NULL: off */
	void *cells;			/* tree of struct cell by id, tsearch(3) */
	int state_fd;			/* of state_dir/cells */
	uint64_t started_ns, watchdog_ms, watchdog_due_ns;
	int sink_error; /* as it was last told */
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
