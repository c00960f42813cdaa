/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/unserved.h"

#include "common/util.h"

/* The place of the cell in the list, or the place where it would be. */
static struct unserved_cell **place_of(const struct unserved *u, const char *id)
{
	struct unserved_cell **at = (struct unserved_cell **)(uintptr_t)&u->first;

	while (*at && strcmp((*at)->id, id) < 0)
		at = &(*at)->next;
	return at;
}

static bool is_at(struct unserved_cell *const *at, const char *id)
{
	return *at && strcmp((*at)->id, id) == 0;
}

static void make_showable(char *out, size_t size, const char *text)
{
	size_t len = 0;

	for (; *text && len + 1 < size; text++)
		out[len++] = *text >= ' ' && *text < 0x7f ? *text : '?';
	out[len] = '\0';
}

static void delay(struct unserved_cell *cell, uint64_t now_ns)
{
	cell->delay_ms = cell->delay_ms ? MIN(cell->delay_ms * 2, UNSERVED_RETRY_MAX_MS)
					: UNSERVED_RETRY_MIN_MS;
	cell->next_try_ns = now_ns + cell->delay_ms * NSEC_PER_MSEC;
}

int unserved_put(struct unserved *u, const char *id, const char *why, uint64_t now_ns)
{
	struct unserved_cell **at = place_of(u, id), *cell = *at;

	if (is_at(at, id)) {
		char shown[CELL_WHY_MAX];

		make_showable(shown, sizeof(shown), why);
		if (strcmp(cell->why, shown) == 0)
			return 0;
	} else {
		cell = calloc(1, sizeof(*cell));
		if (!cell)
			return -ENOMEM;
		snprintf(cell->id, sizeof(cell->id), "%s", id);
		make_showable(cell->shown, sizeof(cell->shown), id);
		cell->since_ns = now_ns;
		delay(cell, now_ns);
		cell->next = *at;
		*at = cell;
		u->n++;
	}
	make_showable(cell->why, sizeof(cell->why), why);
	return 1;
}

bool unserved_remove(struct unserved *u, const char *id)
{
	struct unserved_cell **at = place_of(u, id), *cell = *at;

	if (!is_at(at, id))
		return false;
	*at = cell->next;
	free(cell);
	u->n--;
	return true;
}

const struct unserved_cell *unserved_find(const struct unserved *u, const char *id)
{
	struct unserved_cell *const *at = place_of(u, id);

	return is_at(at, id) ? *at : NULL;
}

const struct unserved_cell *unserved_due(struct unserved *u, uint64_t now_ns)
{
	for (struct unserved_cell *cell = u->first; cell; cell = cell->next)
		if (now_ns >= cell->next_try_ns) {
			delay(cell, now_ns);
			return cell;
		}
	return NULL;
}

void unserved_free(struct unserved *u)
{
	while (u->first)
		unserved_remove(u, u->first->id);
}
