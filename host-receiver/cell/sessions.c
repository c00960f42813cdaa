/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/sessions.h"

#include <assert.h>
#include <string.h>

#include "common/util.h"

struct session *sessions_find(struct sessions *s, struct wire_text name)
{
	for (size_t i = 0; i < SESSIONS_KEPT; i++)
		if (s->kept[i].id != 0 && name.len == WIRE_SESSION_SIZE &&
		    memcmp(s->kept[i].name, name.data, WIRE_SESSION_SIZE) == 0)
			return &s->kept[i];
	return NULL;
}

struct session *sessions_find_id(struct sessions *s, uint64_t id)
{
	for (size_t i = 0; i < SESSIONS_KEPT; i++)
		if (id != 0 && s->kept[i].id == id)
			return &s->kept[i];
	return NULL;
}

const struct session *sessions_newest(const struct sessions *s)
{
	return sessions_find_id((struct sessions *)(uintptr_t)s, s->last_id);
}

const struct session *sessions_by_age(const struct sessions *s, size_t i)
{
	const struct session *a = &s->kept[0], *b = &s->kept[1];

	_Static_assert(SESSIONS_KEPT == 2, "two are compared");
	if (a->id > b->id) {
		a = &s->kept[1];
		b = &s->kept[0];
	}
	/* With one session, or none, the first place is empty. */
	if (a->id == 0) {
		a = b;
		b = NULL;
	}
	if (i == 0)
		return a->id != 0 ? a : NULL;
	return i == 1 ? b : NULL;
}

struct session *sessions_add(struct sessions *s, struct wire_text name, uint64_t next)
{
	struct session *place = &s->kept[0];

	assert(name.len == WIRE_SESSION_SIZE);
	for (size_t i = 1; i < SESSIONS_KEPT; i++)
		if (s->kept[i].id < place->id)
			place = &s->kept[i];
	s->evicted += place->id != 0;
	*place = (struct session){.id = ++s->last_id, .next = next};
	memcpy(place->name, name.data, WIRE_SESSION_SIZE);
	return place;
}

void sessions_load(struct sessions *s, struct wire_text name, uint64_t next)
{
	struct session *session;

	if (name.len != WIRE_SESSION_SIZE || next == 0)
		return;
	session = sessions_find(s, name);
	if (!session)
		session = sessions_add(s, name, next);
	session->next = MAX(session->next, next);
	session->settled = session->next - 1;
}
