/* SPDX-License-Identifier: MIT */
/*
 * The numbering of an agent's frames (delivery.md section 2): for the newest two sessions of a
 * cell, the next expected number, and the number up to which everything is durable. It outlives
 * connections, and can be loaded from the log after a restart. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/wire.h"

#define SESSIONS_KEPT 2u

struct session {
	char name[WIRE_SESSION_SIZE + 1]; /* hex digits */
	uint64_t id;			  /* of this process, from 1; 0: the place is empty */
	uint64_t next;			  /* the next expected number, from 1 */
	uint64_t settled;		  /* every number up to it is durable; below next */
};

struct sessions {
	struct session kept[SESSIONS_KEPT];
	uint64_t last_id;
	uint64_t evicted; /* sessions whose place a newer one took */
};

/* Find a session by its exact name. NULL: it is not known. */
struct session *sessions_find(struct sessions *s, struct wire_text name);
struct session *sessions_find_id(struct sessions *s, uint64_t id);
/* The newest; NULL: none. */
const struct session *sessions_newest(const struct sessions *s);

/* The i-th of SESSIONS_KEPT, the oldest first; NULL: there are fewer. */
const struct session *sessions_by_age(const struct sessions *s, size_t i);

/*
 * Add a session that is not known yet. It takes the place of the oldest one; pointers to that one
 * now point to the new one. name has WIRE_SESSION_SIZE bytes (wire_decode() checked them).
 */
struct session *sessions_add(struct sessions *s, struct wire_text name, uint64_t next);

/*
 * Load a session from the log: every number below next is durable. A known session only moves
 * forward.
 */
void sessions_load(struct sessions *s, struct wire_text name, uint64_t next);
