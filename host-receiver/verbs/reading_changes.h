/* SPDX-License-Identifier: MIT */
/*
 * Compares a probe's reading with the previous one of the same cell, for tail: people want to see
 * the changes and not the counters. It keeps the last reading of each cell and probe. One thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct reading_changes;

/* NULL: no memory. */
struct reading_changes *reading_changes_new(void);
void reading_changes_free(struct reading_changes *readings);

/*
 * Compare a reading (an event's data) with the previous one. print_change(name, text) is called for
 * each number ("+3") and each word ("up -> down") that changed; in a first reading, for each number
 * that is not 0. Returns false if nothing changed. data is borrowed for the call.
 */
bool reading_changes_print(struct reading_changes *readings, const json_t *data,
			   void (*print_change)(const char *name, const char *text));

/* The cell has ended: the next reading of this cell id is a first one. */
void reading_changes_forget(struct reading_changes *readings, const char *cell_id);
