/* SPDX-License-Identifier: MIT */
/*
 * The state of the cells that survives a restart of the daemon: for each cell a file
 * STATE/cells/<cell id>.json, {"options":{the cell options as they were
 * given},"since":[segment,offset],"streamId":".."}. An id has no '/', so the path cannot leave the
 * folder. json_document.h reads it. No state in memory; any thread.
 *
 * The file names the last stream of the cell whose first record is in the log, so that the next
 * stream can name it as its predecessor. Before that record is written, the next content is staged
 * in a second file:
 *
 *	stage ... the record is durable ... publish or commit
 *
 * After a crash in between, the log from `since` on shows whether the staged stream began. A staged
 * file without the first file belongs to a cell whose add was never answered.
 */
#pragma once

#include "host-receiver/cell/option_texts.h"
#include "host-receiver/event/uuid.h"
#include "host-receiver/evidence/log.h"

#define CELL_STATE_FILE_MAX (16u * 1024u) /* bytes */

/*
 * The file's text, to be freed. Returns 0, -ENOMEM, or -E2BIG: it is too long to be read again, now
 * or with a later position.
 */
int cell_state_format(const struct option_texts *options, const uint8_t stream_id[static UUID_SIZE],
		      const struct evidence_position *since, char **ret);

/* Each returns 0 or a negative errno. */
int cell_state_stage(int dir_fd, const char *id, const char *text);
/* The staged file replaces the file; durable when it returns 0. */
int cell_state_commit(int dir_fd, const char *id);
/* The same for many files: durable after the next cell_state_sync(). */
int cell_state_publish(int dir_fd, const char *id);
/* Remove the staged file, or the file; the removal of the file is durable when it returns 0. */
int cell_state_discard(int dir_fd, const char *id);
int cell_state_remove(int dir_fd, const char *id);
int cell_state_sync(int dir_fd);

/* Zero it before use; the options are owned. */
struct cell_state {
	bool has_file;	 /* the file itself exists, not only a staged one */
	const char *why; /* static; not NULL: the file cannot be used, and nothing below is set */
	struct option_texts options;
	uint8_t stream_id[UUID_SIZE];
	struct evidence_position since;
};

/*
 * Call fn with each file, or with each staged file: its name and the id in the name. All is
 * borrowed for the call. Returns 0 or a negative errno when the folder cannot be read.
 */
typedef void cell_state_fn(void *ctx, const char *file, const char *id,
			   const struct cell_state *state);
int cell_state_each(int dir_fd, bool staged, cell_state_fn *fn, void *ctx);

/* The file of one cell. Free it in any case. */
void cell_state_load(int dir_fd, const char *id, struct cell_state *ret);
void cell_state_free(struct cell_state *state);
