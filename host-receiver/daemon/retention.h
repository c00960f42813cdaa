/* SPDX-License-Identifier: MIT */
/*
 * Retention waits for the slowest reader: the cursors in state_dir/cursors are read once a second
 * by a worker (libuv's), and the log is told the oldest segment that one of them still needs. A
 * cursor that cannot be understood may be anywhere: then nothing is deleted. Loop thread only.
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
	/* The worker's while busy. */
	uint64_t floor;
	int error;
	char bad[CURSOR_NAME_MAX];
};

/* Takes cursors_fd and reads the cursors at once: nothing may be deleted before. */
void retention_start(struct retention *r, struct evidence_log *log, int cursors_fd,
		     const char *state_dir);
void retention_update(struct retention *r, uv_loop_t *loop);
/* Before the log is closed. A worker may be busy still. */
void retention_stop(struct retention *r);
/* After the loop. */
void retention_done(struct retention *r);
