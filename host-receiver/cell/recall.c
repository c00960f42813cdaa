/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/recall.h"

#include <search.h>

#include "common/util.h"
#include "host-receiver/cell/gap.h"
#include "host-receiver/cell/options.h"
#include "host-receiver/event/event.h"
#include "host-receiver/event/json_document.h"

#define TYPE(name) EVENT_TYPE_PREFIX name

struct recalled {
	char cell_id[CELL_ID_MAX + 1];
	struct sessions sessions;
	uint64_t connection; /* of its newest line that has one */
	struct numbering numbering;
};

struct recall {
	void *cells; /* tree of struct recalled */
	struct json_document *doc;
};

struct recall *recall_new(void)
{
	struct recall *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->doc = json_document_new(JSON_DOCUMENT_MAX);
	if (!r->doc) {
		free(r);
		return NULL;
	}
	return r;
}

void recall_free(struct recall *r)
{
	if (!r)
		return;
	tdestroy(r->cells, free);
	json_document_free(r->doc);
	free(r);
}

static int compare(const void *a, const void *b)
{
	const struct recalled *x = a, *y = b;

	return strcmp(x->cell_id, y->cell_id);
}

/* The cell's memory, made when it is not there. NULL: no memory, or no cell's id. */
static struct recalled *cell_of(struct recall *r, struct wire_text id, int *ret_error)
{
	struct recalled key = {0}, *cell, **found;

	if (id.len == 0 || id.len > CELL_ID_MAX)
		return NULL;
	memcpy(key.cell_id, id.data, id.len);
	found = tfind(&key, &r->cells, compare);
	if (found)
		return *found;
	cell = malloc(sizeof(*cell));
	if (!cell) {
		*ret_error = -ENOMEM;
		return NULL;
	}
	*cell = key;
	if (!tsearch(cell, &r->cells, compare)) {
		free(cell);
		*ret_error = -ENOMEM;
		return NULL;
	}
	return cell;
}

/* Lines of another connection than the last one begin without a session. */
static void follow_connection(struct recalled *cell, uint64_t connection)
{
	if (connection == cell->connection)
		return;
	cell->connection = connection;
	cell->numbering = (struct numbering){0};
}

static void recall_entry(struct recall *r, const struct json_node *data, int *ret_error)
{
	const struct json_node *list = json_member(r->doc, data, "sessions"), *node;

	if (!list || list->type != JSON_ARRAY_NODE)
		return;
	for (node = json_child(r->doc, list); node; node = json_sibling(r->doc, node)) {
		struct wire_text id, session;
		struct recalled *cell;
		uint64_t next, connection;

		if (!json_member_string(r->doc, node, "cellId", &id) ||
		    !json_member_string(r->doc, node, "session", &session) ||
		    !json_member_uint(r->doc, node, "nextSeq", &next) ||
		    !json_member_uint(r->doc, node, "connection", &connection))
			continue;
		cell = cell_of(r, id, ret_error);
		if (!cell)
			continue;
		sessions_load(&cell->sessions, session, next);
		if (connection == 0)
			continue;
		follow_connection(cell, connection);
		cell->numbering.session = sessions_find(&cell->sessions, session);
	}
}

static void recall_hello(struct recall *r, struct recalled *cell, const struct json_node *data)
{
	const struct json_node *detail = json_member(r->doc, data, "detail");
	struct hello_numbers hello = {0};
	struct gap gap;

	if (!json_member_string(r->doc, detail, "session", &hello.session) ||
	    hello.session.len != WIRE_SESSION_SIZE)
		return;
	json_member_uint(r->doc, detail, "nextSeq", &hello.next_seq);
	json_member_uint(r->doc, detail, "assigned", &hello.assigned);
	numbering_hello(&cell->numbering, &cell->sessions, &hello, &gap);
}

/* A gap, the end of a connection or the seal: everything below next was accounted for. */
static void recall_next(struct recalled *cell, struct wire_text session, uint64_t next)
{
	struct session *s = sessions_find(&cell->sessions, session);

	if (s)
		s->next = MAX(s->next, next);
}

static void recall_event(struct recall *r, struct recalled *cell, struct wire_text type,
			 const struct json_node *data)
{
	struct wire_text session, reason;
	uint64_t number;
	struct gap gap;

	if (json_member_uint(r->doc, data, "connection", &number))
		follow_connection(cell, number);
	if (json_text_is(type, TYPE("guest.v1.telemetry_hello")))
		recall_hello(r, cell, data);
	else if (json_member_uint(r->doc, data, "seq", &number))
		numbering_frame(&cell->numbering, number, &gap);
	if (!json_member_string(r->doc, data, "session", &session))
		return;
	/* The hello after it says the same, and that the guest was set back. */
	if (json_member_string(r->doc, data, "reason", &reason) &&
	    json_text_is(reason, gap_reason_name(GAP_HOST_AHEAD)))
		return;
	if (json_member_uint(r->doc, data, "lastMissing", &number) && number < UINT64_MAX)
		recall_next(cell, session, number + 1);
	else if (json_member_uint(r->doc, data, "nextSeq", &number))
		recall_next(cell, session, number);
}

int recall_line(struct recall *r, const char *line, size_t len)
{
	const struct json_node *event, *data;
	struct wire_text type, id;
	struct recalled *cell;
	const char *why;
	size_t offset;
	int error = 0;

	/* Most lines without a number say nothing of numbers. */
	if (!memmem(line, len, "\"seq\":", 6) && !memmem(line, len, "ession", 6))
		return 0;
	if (json_document_read(r->doc, line, len, &why, &offset) < 0)
		return 0;
	event = json_document_root(r->doc);
	data = json_member(r->doc, event, "data");
	/* A signed envelope holds the event. */
	if (json_member(r->doc, data, "event")) {
		event = json_member(r->doc, data, "event");
		data = json_member(r->doc, event, "data");
	}
	if (!json_member_string(r->doc, event, "type", &type))
		return 0;
	if (json_text_is(type, event_type_name(EVENT_LOG_SESSIONS))) {
		recall_entry(r, data, &error);
		return error;
	}
	if (!json_member_string(r->doc, data, "cellId", &id))
		return 0;
	cell = cell_of(r, id, &error);
	if (cell)
		recall_event(r, cell, type, data);
	return error;
}

const struct sessions *recall_find(const struct recall *r, const char *cell_id)
{
	struct recalled key = {0}, **found;

	snprintf(key.cell_id, sizeof(key.cell_id), "%s", cell_id);
	found = tfind(&key, (void *const *)&r->cells, compare);
	return found ? &(*found)->sessions : NULL;
}

void recall_put(struct json_writer *w, const char *cell_id, uint64_t connection,
		const struct session *session)
{
	json_put_begin_object(w);
	json_put_kv_string(w, "cellId", cell_id);
	json_put_kv_uint(w, "connection", connection);
	json_put_kv_uint(w, "nextSeq", session->next);
	json_put_kv_string(w, "session", session->name);
	json_put_end_object(w);
}
