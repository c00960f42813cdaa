/* SPDX-License-Identifier: MIT */
/*
 * Images of processes: see image_table.h.
 */
#include "guest-agent/probes/image_table.h"

#include "common/util.h"

#define NO_PATH UINT8_MAX

_Static_assert(IMAGE_PATHS_MAX < NO_PATH, "a path's number is a byte");
_Static_assert(IMAGES_MAX < UINT16_MAX, "an id is 16 bits");

struct image {
	uint16_t refs; /* 0: free */
	uint16_t next; /* of the free ones */
	uint8_t state, path;
};

struct path {
	uint16_t refs;
	uint16_t len;
	char data[IMAGE_PATH_MAX];
};

struct image_table {
	image_id free;	/* a list of ids that were used; 0: none */
	image_id fresh; /* the first id that never was; memory beyond it is untouched */
	struct image images[IMAGES_MAX];
	struct path paths[IMAGE_PATHS_MAX];
};

struct image_table *image_table_new(void)
{
	struct image_table *t = calloc(1, sizeof(*t));

	if (t)
		t->fresh = 1;
	return t;
}

void image_table_free(struct image_table *t)
{
	free(t);
}

image_id image_new(struct image_table *t)
{
	image_id id = t->free;

	if (id)
		t->free = t->images[id].next;
	else if (t->fresh < IMAGES_MAX)
		id = t->fresh++;
	else
		return 0;
	t->images[id] = (struct image){.refs = 1, .state = IMAGE_HELD, .path = NO_PATH};
	return id;
}

image_id image_ref(struct image_table *t, image_id id)
{
	if (id)
		t->images[id].refs++;
	return id;
}

void image_unref(struct image_table *t, image_id id)
{
	struct image *i = &t->images[id];

	if (!id || --i->refs > 0)
		return;
	if (i->path != NO_PATH)
		t->paths[i->path].refs--;
	i->next = t->free;
	t->free = id;
}

/* The number of the path, stored already or now; NO_PATH if there is no room. */
static uint8_t keep_path(struct image_table *t, const char *path, size_t len)
{
	struct path *free = NULL;

	for (size_t i = 0; i < IMAGE_PATHS_MAX; i++) {
		struct path *p = &t->paths[i];

		if (p->refs == 0)
			free = free ? free : p;
		else if (p->len == len && !memcmp(p->data, path, len))
			return (uint8_t)i;
	}
	if (!free)
		return NO_PATH;
	free->len = (uint16_t)len;
	memcpy(free->data, path, len);
	return (uint8_t)(free - t->paths);
}

void image_settle(struct image_table *t, image_id id, const char *path, size_t len)
{
	struct image *i = &t->images[id];

	if (!id || i->state != IMAGE_HELD)
		return;
	i->state = IMAGE_UNKNOWN;
	if (len == 0 || len > IMAGE_PATH_MAX)
		return;
	i->path = keep_path(t, path, len);
	if (i->path == NO_PATH)
		return;
	t->paths[i->path].refs++;
	i->state = IMAGE_KNOWN;
}

enum image_state image_state(const struct image_table *t, image_id id)
{
	return id ? (enum image_state)t->images[id].state : IMAGE_UNKNOWN;
}

const char *image_path(const struct image_table *t, image_id id, size_t *ret_len)
{
	const struct path *p = &t->paths[t->images[id].path];

	*ret_len = p->len;
	return p->data;
}
