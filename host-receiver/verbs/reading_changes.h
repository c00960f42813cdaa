/* SPDX-License-Identifier: MIT */
/*
 * Readings of host probes as tail prints them: what is different from the reading before. Remembers
 * the last of each cell and probe. One thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct reading_changes;

/* NULL: no memory. */
struct reading_changes *reading_changes_new(void);
void reading_changes_free(struct reading_changes *readings);

/*
 * What the reading, an event's data, changed: calls print_change(name, text) for each number ("+3")
 * and each word ("up -> down") that is another than before, or for each that is not 0 the first
 * time. False: nothing. Borrows for the call.
 */
bool reading_changes_print(struct reading_changes *readings, const json_t *data,
			   void (*print_change)(const char *name, const char *text));

/* The cell has ended: the next of this name begins anew. */
void reading_changes_forget(struct reading_changes *readings, const char *cell_id);
