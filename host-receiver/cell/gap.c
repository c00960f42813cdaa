/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/gap.h"

#include "common/utf8.h"
#include "common/util.h"

static const struct wire_detail *find(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return &d->details[i];
	return NULL;
}

/* A session that is not the last one begins with its own numbers. */
static void enter_session(struct gap_tracker *t, struct wire_text session)
{
	/* What a hostile guest calls its session is kept as far as it is text. */
	const size_t len = strnlen(session.data, utf8_cut(session.data, session.len, SESSION_MAX));

	if (strlen(t->session) == len && memcmp(t->session, session.data, len) == 0)
		return;
	memcpy(t->session, session.data, len);
	t->session[len] = '\0';
	t->expected = 0;
}

/* Everything below next has been numbered. */
static bool reach(struct gap_tracker *t, uint64_t next, struct gap *ret)
{
	const uint64_t expected = t->expected;

	if (next <= expected)
		return false;
	t->expected = next;
	if (expected == 0)
		return false;
	*ret = (struct gap){.first = expected, .last = next - 1};
	return true;
}

bool gap_tracker_frame(struct gap_tracker *t, const struct declaration *d, struct gap *ret)
{
	const struct wire_detail *next, *session;
	bool missing;

	if (wire_source_is_numbered(d->source)) {
		if (d->seq == 0)
			return false;
		missing = reach(t, d->seq, ret);
		if (d->seq == t->expected && d->seq < UINT64_MAX)
			t->expected++;
		return missing;
	}
	session = d->source == WIRE_TELEMETRY_HELLO ? find(d, WIRE_KEY_SESSION) : NULL;
	if (session)
		enter_session(t, session->text);
	next = find(d, WIRE_KEY_NEXT_SEQ);
	return next ? reach(t, next->uint, ret) : false;
}
