/* SPDX-License-Identifier: MIT */
/*
 * Find the entry of a cursor in the log: see walk_find.h.
 */
#include "host-receiver/forward/walk_find.h"

#include "common/util.h"

struct finding {
	struct walk *walk;
	struct tree_hasher *hasher;
	const struct forward_cursor *cursor;
};

static bool is_found(const struct finding *f, const struct walk_line *line)
{
	struct tree_hash leaf;

	return line->kind == WALK_ENTRY && line->index + 1 == f->cursor->index &&
	       strcmp(line->origin, f->cursor->origin) == 0 &&
	       tree_hash_leaf(f->hasher, line->text, line->len, &leaf) == 0 &&
	       tree_hash_equal(&leaf, &f->cursor->before);
}

/* Returns 1 if the walk is after the entry that the cursor names. */
static int seek_directly(const struct finding *f)
{
	struct walk_line line;
	int r = walk_seek(f->walk, &f->cursor->at, f->cursor->index - 1, f->cursor->origin);

	while (r == 0) {
		r = walk_next(f->walk, &line);
		if (r != 1)
			return r == -ENODATA || r == -EBADMSG ? 0 : r;
		if (line.kind == WALK_ENTRY)
			return is_found(f, &line);
		r = 0; /* The position may be the end of the previous segment. */
	}
	return r;
}

/* The same, by reading from the oldest segment on. */
static int seek_by_index(const struct finding *f)
{
	struct walk_line line;
	int r = walk_rewind(f->walk);

	if (r < 0)
		return r;
	while ((r = walk_next(f->walk, &line)) != 0) {
		if (r < 0 && r != -ENODATA && r != -EBADMSG)
			return r;
		if (r == 1 && is_found(f, &line))
			return 1;
	}
	return 0;
}

int walk_find(struct walk *walk, struct tree_hasher *hasher, const struct forward_cursor *cursor)
{
	const struct finding f = {.walk = walk, .hasher = hasher, .cursor = cursor};
	const int r = seek_directly(&f);

	return r == 0 ? seek_by_index(&f) : r;
}
