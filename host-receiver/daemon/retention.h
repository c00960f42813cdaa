/* SPDX-License-Identifier: MIT */
/*
 * Retention waits for the slowest reader. Once a second a worker of libuv reads the cursors in
 * state_dir/cursors, and the log gets the number of the oldest segment that a reader still needs.
 * If a cursor cannot be parsed, its reader may need any segment, so nothing is deleted. Loop thread
 * only.
 */
#pragma once

#include <uv.h>

#include "host-receiver/evidence/cursor.h"
#include "host-receiver/evidence/log.h"

struct retention {
	struct evidence_log *log; /* borrowed; NULL: closed */
	const char *state_dir;	  /* borrowed, for messages */
	int cursors_fd;		  /* owned */
	uv_work_t work;
	bool busy, complained;
	/* Only the worker uses these while busy is set. */
	uint64_t floor;
	int error;
	char bad[CURSOR_NAME_MAX];
};

/* Takes cursors_fd and reads the cursors at once, because nothing may be deleted before. */
void retention_start(struct retention *r, struct evidence_log *log, int cursors_fd,
		     const char *state_dir);
void retention_update(struct retention *r, uv_loop_t *loop);
/* Call it before the log is closed. A worker may still run. */
void retention_stop(struct retention *r);
/* After the loop. */
void retention_done(struct retention *r);
