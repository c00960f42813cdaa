/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/walker.h"

#include "common/util.h"

struct walker {
	struct keyring *empty; /* owned, used if no ring was given */
	struct facts_reader *reader;
	struct input *input;
	char *path;
	char memory[FACTS_LINE_MAX + FACTS_ARENA_SPARE];
};

struct walker *walker_new(const struct keyring *ring)
{
	struct walker *walker = malloc(sizeof(*walker));

	if (!walker)
		return NULL;
	memset(walker, 0, offsetof(struct walker, memory));
	if (!ring)
		ring = walker->empty = keyring_new();
	if (ring)
		walker->reader = facts_reader_new(ring);
	if (!walker->reader) {
		walker_free(walker);
		return NULL;
	}
	return walker;
}

void walker_free(struct walker *walker)
{
	if (!walker)
		return;
	input_close(walker->input);
	facts_reader_free(walker->reader);
	keyring_free(walker->empty);
	free(walker->path);
	free(walker);
}

static int fail(const struct walker *walker, char *why, int r, const char *reason)
{
	snprintf(why, WALKER_WHY_MAX, "%.380s: %s", walker->path ? walker->path : "?", reason);
	return r;
}

int walker_open(struct walker *walker, const char *path, char why[WALKER_WHY_MAX])
{
	char reason[INPUT_WHY_MAX];
	int r;

	input_close(take_ptr(walker->input));
	free(walker->path);
	walker->path = strdup(path);
	if (!walker->path)
		return fail(walker, why, -ENOMEM, "no memory");
	r = input_open(path, &walker->input, reason);
	return r < 0 ? fail(walker, why, r, reason) : 0;
}

int walker_next(struct walker *walker, struct input_line *ret_line, struct line_facts *ret,
		char why[WALKER_WHY_MAX])
{
	struct facts_arena arena = {.data = walker->memory, .size = sizeof(walker->memory)};
	char reason[INPUT_WHY_MAX];
	int r = input_next(walker->input, ret_line, reason);

	if (r <= 0)
		return r < 0 ? fail(walker, why, r, reason) : 0;
	r = facts_read(walker->reader, ret_line->data, ret_line->len, &arena, ret);
	return r < 0 ? fail(walker, why, r, strerror(-r)) : 1;
}
