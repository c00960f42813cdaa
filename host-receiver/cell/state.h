/* SPDX-License-Identifier: MIT */
/*
 * What the daemon remembers of its cells over a restart: a file each, STATE/cells/<cell id>.json,
 * {"options":{the cell options as they were given},"since":[segment,offset],"streamId":".."}. An id
 * has no '/', so the file cannot be elsewhere. No state in memory; any thread.
 *
 * The file names the last stream of the cell that has its first record in the log, so that the next
 * one can be linked to it. What it will say is staged beside it before that record is written:
 *
 *	stage ... the record is durable ... publish or commit
 *
 * After a crash in between, whether the staged stream ever began is found in the log, from since
 * on. What is staged and has no file beside it is a cell whose add was never answered.
 */
#pragma once

#include <jansson.h>

#include "host-receiver/cell/options.h"
#include "host-receiver/event/uuid.h"
#include "host-receiver/evidence/log.h"

#define CELL_STATE_FILE_MAX (16u * 1024u)

/* The file's text; to be freed. NULL: no memory. */
char *cell_state_format(const json_t *options, const uint8_t stream_id[static UUID_SIZE],
			const struct evidence_position *since);

/* Each returns 0 or a negative errno. */
int cell_state_stage(int dir_fd, const char *id, const char *text);
int cell_state_commit(int dir_fd, const char *id);  /* what is staged; durable when it returns 0 */
int cell_state_publish(int dir_fd, const char *id); /* the same between two cell_state_sync() */
int cell_state_discard(int dir_fd, const char *id); /* what is staged */
int cell_state_remove(int dir_fd, const char *id);  /* for good when it returns 0 */
int cell_state_sync(int dir_fd);

struct cell_state {
	const char *file, *id;
	bool has_file; /* besides what may be staged */
	/* NULL and the reason when the file cannot be understood. */
	const json_t *options;
	const char *why;
	uint8_t stream_id[UUID_SIZE];
	struct evidence_position since;
};

/*
 * Call fn with each file, or with each that is staged; all is borrowed for the call. Returns 0 or a
 * negative errno when the folder cannot be read.
 */
int cell_state_each(int dir_fd, bool staged, void (*fn)(void *ctx, const struct cell_state *state),
		    void *ctx);

/* The file of one cell into *ret, which borrows from what is returned; NULL: there is none, or it
 * cannot be understood. */
json_t *cell_state_load(int dir_fd, const char *id, struct cell_state *ret);

/* Set the options from an object of strings. 0, or -EINVAL with the reason in why. */
int cell_options_from_json(struct cell_options *o, const json_t *object, char why[CELL_WHY_MAX]);
