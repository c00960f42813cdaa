/* SPDX-License-Identifier: MIT */
#include "guest-agent/observation.h"

#include <string.h>

#include "common/utf8.h"
#include "common/util.h"

/* Sanitised bytes, at most max of them, in the observation's own room. */
static struct wire_text keep(struct observation *o, const char *data, size_t len, size_t max)
{
	const size_t room = MIN(max, sizeof(o->room) - o->used);
	const size_t n = utf8_sanitize(data, len, o->room + o->used, room);
	const struct wire_text text = {.data = o->room + o->used, .len = n};

	o->used += n;
	return text;
}

void observation_init(struct observation *o, enum wire_source source, pid_t pid, const char *comm,
		      size_t comm_len, uint64_t at_ns)
{
	o->used = 0;
	/* Only what is read before it is written: the rest of the struct is large. */
	o->d.source = source;
	o->d.guest_pid = (uint32_t)pid;
	o->d.guest_monotonic_ns = MIN(at_ns, WIRE_MONOTONIC_MAX);
	o->d.seq = 0;
	o->d.n_details = 0;
	o->d.guest_comm =
		comm ? keep(o, comm, strnlen(comm, comm_len), WIRE_COMM_MAX) : wire_text("");
}

void observation_add_name(struct observation *o, enum wire_key key, const char *name)
{
	declaration_add_text(&o->d, key, wire_text(name));
}

void observation_add_bytes(struct observation *o, enum wire_key key, const char *data, size_t len)
{
	declaration_add_text(&o->d, key, keep(o, data, len, WIRE_DETAIL_TEXT_MAX));
}
