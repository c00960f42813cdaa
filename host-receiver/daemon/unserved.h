/* SPDX-License-Identifier: MIT */
/*
 * Cells of the last run that cannot be served: their state file cannot be read, or their socket
 * cannot be bound. They are kept here with the reason and tried again with a growing delay, until
 * it works or they are removed. Only a list: cells.c tries, the daemon reports. Loop thread only.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "host-receiver/cell/options.h"

#define UNSERVED_RETRY_MIN_MS 1000u
#define UNSERVED_RETRY_MAX_MS 60000u

struct unserved_cell {
	struct unserved_cell *next;
	char id[NAME_MAX + 1]; /* from the name of the state file, not from its content */
	/*
	 * The id for people and evidence: UTF-8 without control characters, even if the file's name
	 * is not.
	 */
	char shown[NAME_MAX + 1], why[CELL_WHY_MAX];
	uint64_t since_ns, next_try_ns;
	unsigned delay_ms;
};

/* Zero it before use. */
struct unserved {
	struct unserved_cell *first; /* in the order of the ids */
	unsigned n;
};

/*
 * Put a cell that could not be served into the list. Returns 1 if it is new or has another reason
 * than before, 0 if only the time of the next try has changed, or -ENOMEM.
 */
int unserved_put(struct unserved *u, const char *id, const char *why, uint64_t now_ns);
/* Remove the cell from the list, because it is served or removed. False: it was not in the list. */
bool unserved_remove(struct unserved *u, const char *id);
/* NULL: the cell is not in the list. */
const struct unserved_cell *unserved_find(const struct unserved *u, const char *id);
/*
 * A cell that is due, or NULL. The time of its next try is set now, for the case that this try
 * fails.
 */
const struct unserved_cell *unserved_due(struct unserved *u, uint64_t now_ns);
void unserved_free(struct unserved *u);
