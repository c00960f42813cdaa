/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/cell_index.h"

#include <search.h>

static int compare_ids(const void *a, const void *b)
{
	const struct cell *x = a, *y = b;

	return strcmp(x->options.cell_id, y->options.cell_id);
}

struct cell *cell_index_find(const struct cell_index *index, const char *id)
{
	const struct cell key = {.options.cell_id = id};
	struct cell *const *found = tfind(&key, &index->root, compare_ids);

	return found ? *found : NULL;
}

bool cell_index_add(struct cell_index *index, struct cell *cell)
{
	return tsearch(cell, &index->root, compare_ids) != NULL;
}

void cell_index_remove(struct cell_index *index, const struct cell *cell)
{
	tdelete(cell, &index->root, compare_ids);
}

struct visit {
	void (*fn)(const struct cell *cell, void *ctx);
	void *ctx;
};

static void visit_node(const void *node, VISIT which, void *arg)
{
	const struct cell *const *cell = node;
	const struct visit *visit = arg;

	if (which == postorder || which == leaf)
		visit->fn(*cell, visit->ctx);
}

void cell_index_each(const struct cell_index *index, void (*fn)(const struct cell *cell, void *ctx),
		     void *ctx)
{
	struct visit visit = {.fn = fn, .ctx = ctx};

	twalk_r(index->root, visit_node, &visit);
}
