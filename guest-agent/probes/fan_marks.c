/* SPDX-License-Identifier: MIT */
/*
 * Marked objects: see fan_marks.h. A fixed array, hashed into chains.
 */
#include "guest-agent/probes/fan_marks.h"

#include "common/util.h"

#define NOWHERE UINT16_MAX

_Static_assert((FAN_MARKS_MAX & (FAN_MARKS_MAX - 1)) == 0, "a power of two");

static uint16_t *head_of(struct fan_marks *m, const struct fan_object *o)
{
	uint32_t hash = UINT32_C(2166136261) ^ (uint32_t)o->fsid[0];

	for (uint32_t i = 0; i < o->len; i++)
		hash = (hash ^ o->bytes[i]) * UINT32_C(16777619);
	return &m->heads[hash & (FAN_MARKS_MAX - 1)];
}

bool fan_same_object(const struct fan_object *a, const struct fan_object *b)
{
	return a->len == b->len && a->type == b->type && a->fsid[0] == b->fsid[0] &&
	       a->fsid[1] == b->fsid[1] && !memcmp(a->bytes, b->bytes, a->len);
}

void fan_marks_init(struct fan_marks *m)
{
	m->n = 0;
	m->free = NOWHERE;
	m->fresh = 0;
	for (size_t i = 0; i < FAN_MARKS_MAX; i++)
		m->heads[i] = NOWHERE;
}

struct fan_mark *fan_marks_add(struct fan_marks *m, const struct fan_object *object, unsigned watch,
			       enum fan_role role)
{
	uint16_t place = m->free, *head = head_of(m, object);

	if (place != NOWHERE)
		m->free = m->marks[place].chain;
	else if (m->fresh < FAN_MARKS_MAX)
		place = m->fresh++;
	else
		return NULL;
	m->marks[place] = (struct fan_mark){
		.watch = (uint8_t)watch, .role = (uint8_t)role, .chain = *head, .object = *object};
	*head = place;
	m->n++;
	return &m->marks[place];
}

void fan_marks_remove(struct fan_marks *m, struct fan_mark *mark)
{
	const uint16_t place = (uint16_t)(mark - m->marks);
	uint16_t *link = head_of(m, &mark->object);

	while (*link != place)
		link = &m->marks[*link].chain;
	*link = mark->chain;
	mark->watch = FAN_WATCH_NONE;
	mark->chain = m->free;
	m->free = place;
	m->n--;
}

static struct fan_mark *same_from(struct fan_marks *m, uint16_t place,
				  const struct fan_object *object)
{
	for (; place != NOWHERE; place = m->marks[place].chain)
		if (m->marks[place].watch != FAN_WATCH_STALE &&
		    fan_same_object(&m->marks[place].object, object))
			return &m->marks[place];
	return NULL;
}

struct fan_mark *fan_marks_find(struct fan_marks *m, const struct fan_object *object)
{
	return same_from(m, *head_of(m, object), object);
}

struct fan_mark *fan_marks_next(struct fan_marks *m, const struct fan_mark *mark)
{
	return same_from(m, mark->chain, &mark->object);
}

struct fan_mark *fan_marks_walk(struct fan_marks *m, size_t *place)
{
	while (*place < m->fresh) {
		struct fan_mark *mark = &m->marks[(*place)++];

		if (mark->watch != FAN_WATCH_NONE)
			return mark;
	}
	return NULL;
}
