/* SPDX-License-Identifier: MIT */
/*
 * The registry of a receiver's cells (struct cell_registry, in cell.h): it begins and ends with the
 * receiver, and pauses and resumes the reading of all cells together. Cells join and leave it by
 * cell_add() and cell_remove(). Loop thread only.
 */
#pragma once

#include "host-receiver/cell/cell.h"

/* 0 or -ENOMEM. */
int cell_registry_init(struct cell_registry *registry, uv_loop_t *loop, struct pipeline *pipeline,
		       unsigned checkpoint_ms);
/* Call it when no cell is left: its handles close as the loop runs. */
void cell_registry_close(struct cell_registry *registry);
/* After the loop has ended. */
void cell_registry_done(struct cell_registry *registry);

/* Change the ceilings of all cells that have none of their own. */
void cell_registry_set_rates(struct cell_registry *registry, const struct ceiling_rates *rates);

/*
 * For the pipeline's on_full() and on_progress(): the first stops the reading of all cells because
 * too much is in flight, the second starts it again when there is room.
 */
void cell_registry_full(struct cell_registry *registry);
void cell_registry_progress(struct cell_registry *registry);
