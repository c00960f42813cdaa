/* SPDX-License-Identifier: MIT */
/*
 * What the daemon remembers of its cells over a restart: a file each, STATE/cells/<cell id>.json,
 * {"options":{the cell options as they were given},"streamId":".."}. An id has no '/', so the file
 * cannot be elsewhere. No state in memory; loop thread.
 */
#pragma once

#include <jansson.h>

#include "host-receiver/cell/options.h"
#include "host-receiver/event/uuid.h"

#define CELL_STATE_FILE_MAX (16u * 1024u)

/* Replace the cell's file, durably when it returns 0. */
int cell_state_store(int dir_fd, const char *id, const json_t *options,
		     const uint8_t stream_id[static UUID_SIZE]);
int cell_state_remove(int dir_fd, const char *id);

/* Many at once: stage each, commit all. */
int cell_state_stage(int dir_fd, const char *id, const json_t *options,
		     const uint8_t stream_id[static UUID_SIZE]);
int cell_state_sync(int dir_fd); /* before the first publish, and behind the last */
int cell_state_publish(int dir_fd, const char *id);

/*
 * Call fn with each cell's options, an object of strings, and its last stream; or with options NULL
 * and the reason when a file cannot be understood: it is left where it is. Returns 0 or a negative
 * errno when the folder cannot be read.
 */
int cell_state_each(int dir_fd,
		    void (*fn)(void *ctx, const char *file, const json_t *options,
			       const uint8_t stream_id[UUID_SIZE], const char *why),
		    void *ctx);

/* Set the options from an object of strings. 0, or -EINVAL with the reason in why. */
int cell_options_from_json(struct cell_options *o, const json_t *object, char why[CELL_WHY_MAX]);
