/* SPDX-License-Identifier: MIT */
/* The daemon's cells by their id. Borrows the cells. Loop thread only. */
#pragma once

#include <stdbool.h>

#include "host-receiver/cell/cell.h"

struct cell_index {
	void *root; /* tree of struct cell, tsearch(3) */
};

/* NULL: there is none. */
struct cell *cell_index_find(const struct cell_index *index, const char *id);
/* False: no memory. */
bool cell_index_add(struct cell_index *index, struct cell *cell);
void cell_index_remove(struct cell_index *index, const struct cell *cell);
/* In the order of the ids. fn must not change the index. */
void cell_index_each(const struct cell_index *index, void (*fn)(const struct cell *cell, void *ctx),
		     void *ctx);
