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

/* The end of a stream. */
struct recalled_stream {
	uint8_t stream_id[UUID_SIZE];
	uint64_t sequence;
};

struct recall {
	void *cells;   /* tree of struct recalled */
	void *streams; /* tree of struct recalled_stream */
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
	tdestroy(r->streams, free);
	json_document_free(r->doc);
	free(r);
}

static int compare(const void *a, const void *b)
{
	const struct recalled *x = a, *y = b;

	return strcmp(x->cell_id, y->cell_id);
}

/*
 * The cell's entry, which is made if there is none. NULL: no memory, or the text is no cell's id.
 */
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

static int compare_streams(const void *a, const void *b)
{
	return memcmp(a, b, UUID_SIZE);
}

static int put_stream(struct recall *r, const struct recalled_stream *seen)
{
	struct recalled_stream *stream, **found = tfind(seen, &r->streams, compare_streams);

	if (found) {
		(*found)->sequence = MAX((*found)->sequence, seen->sequence);
		return 0;
	}
	stream = malloc(sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	*stream = *seen;
	if (tsearch(stream, &r->streams, compare_streams))
		return 0;
	free(stream);
	return -ENOMEM;
}

static bool read_stream_id(const char *text, size_t len, uint8_t ret[static UUID_SIZE])
{
	char copy[UUID_STRING_MAX];

	if (len < sizeof(copy) - 1)
		return false;
	memcpy(copy, text, sizeof(copy) - 1);
	copy[sizeof(copy) - 1] = '\0';
	return uuid_parse(copy, ret);
}

/*
 * Every line of a stream has these two members. They are found without reading the JSON: lines are
 * canonical, and a guest's text cannot contain them, because its quotes are escaped.
 */
static int note_sequence(struct recall *r, const char *line, size_t len)
{
	static const char id_key[] = "\"streamId\":\"", sequence_key[] = "\"sequence\":";
	const char *end = line + len, *id = line, *next,
		   *at = memmem(line, len, sequence_key, sizeof(sequence_key) - 1);
	struct recalled_stream seen = {0};

	/* Take the last one: a log.v1.sessions entry has those of other streams before its own. */
	while ((next = memmem(id, (size_t)(end - id), id_key, sizeof(id_key) - 1)))
		id = next + 1;
	if (id-- == line || !at ||
	    !read_stream_id(id + sizeof(id_key) - 1, (size_t)(end - id) - (sizeof(id_key) - 1),
			    seen.stream_id))
		return 0;
	for (at += sizeof(sequence_key) - 1; at < end && *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(seen.sequence, UINT64_C(10), &seen.sequence) ||
		    __builtin_add_overflow(seen.sequence, (uint64_t)(*at - '0'), &seen.sequence))
			return 0;
	return put_stream(r, &seen);
}

/* The next lines belong to a new connection, which begins without a session. */
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
		struct recalled_stream stream;
		struct recalled *cell;
		uint64_t next, connection;

		if (json_member_string(r->doc, node, "streamId", &id) &&
		    read_stream_id(id.data, id.len, stream.stream_id) &&
		    json_member_uint(r->doc, node, "sequence", &stream.sequence) &&
		    put_stream(r, &stream) < 0)
			*ret_error = -ENOMEM;
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

/* A gap, the end of a connection or the seal: every number below next is settled. */
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
	/* The hello after this line has the same numbers, and shows that the guest was set back. */
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
	int error = note_sequence(r, line, len);

	if (error < 0)
		return error;
	/* Most lines without a number of the guest do not concern the numbering. */
	if (!memmem(line, len, "\"seq\":", 6) && !memmem(line, len, "ession", 6))
		return 0;
	error = json_document_try(r->doc, line, len);
	if (error <= 0)
		return error;
	error = 0;
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

uint64_t recall_sequence(const struct recall *r, const uint8_t stream_id[static UUID_SIZE])
{
	struct recalled_stream key, **found;

	memcpy(key.stream_id, stream_id, UUID_SIZE);
	found = tfind(&key, (void *const *)&r->streams, compare_streams);
	return found ? (*found)->sequence : 0;
}

void recall_put_stream(struct json_writer *w, const uint8_t stream_id[static UUID_SIZE],
		       uint64_t sequence)
{
	char id[UUID_STRING_MAX];

	uuid_format(stream_id, id);
	json_put_begin_object(w);
	json_put_kv_uint(w, "sequence", sequence);
	json_put_kv_string(w, "streamId", id);
	json_put_end_object(w);
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
