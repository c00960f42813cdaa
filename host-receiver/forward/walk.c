/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/walk.h"

#include "common/util.h"
#include "host-receiver/evidence/lines.h"

struct walk {
	char *dir; /* owned */
	struct evidence_reader *reader;
	struct evidence_position end;
	struct json_document *doc;
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t index;
	bool index_known;
};

void walk_close(struct walk *walk)
{
	if (!walk)
		return;
	evidence_reader_close(walk->reader);
	json_document_free(walk->doc);
	free(walk->dir);
	free(walk);
}

static int reopen(struct walk *walk, const struct evidence_position *at)
{
	struct evidence_reader *reader;
	int r = evidence_reader_open(walk->dir, at, &reader);

	if (r < 0)
		return r;
	evidence_reader_set_end(reader, &walk->end);
	evidence_reader_close(walk->reader);
	walk->reader = reader;
	return 0;
}

int walk_open(const char *dir, struct walk **ret)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	int r = -ENOMEM;

	if (!walk)
		return -ENOMEM;
	walk->dir = strdup(dir);
	walk->doc = json_document_new(EVIDENCE_LINE_MAX);
	if (walk->dir && walk->doc)
		r = walk_rewind(walk);
	if (r < 0) {
		walk_close(walk);
		return r;
	}
	*ret = walk;
	return 0;
}

int walk_seek(struct walk *walk, const struct evidence_position *at, uint64_t index,
	      const char *origin)
{
	int r = reopen(walk, at);

	if (r < 0)
		return r;
	walk->index = index;
	walk->index_known = true;
	snprintf(walk->origin, sizeof(walk->origin), "%s", origin);
	return 0;
}

int walk_rewind(struct walk *walk)
{
	int r = reopen(walk, NULL);

	if (r < 0)
		return r;
	walk->index_known = false;
	walk->origin[0] = '\0';
	return 0;
}

void walk_set_end(struct walk *walk, const struct evidence_position *end)
{
	walk->end = *end;
	evidence_reader_set_end(walk->reader, end);
}

static int read_segment(struct walk *walk, const struct json_node *data, struct walk_line *line)
{
	struct wire_text origin;

	if (!json_member_string(walk->doc, data, "origin", &origin) ||
	    !note_origin_valid(origin.data, origin.len) ||
	    !json_member_uint(walk->doc, data, "firstIndex", &walk->index))
		return -EBADMSG;
	walk->index_known = true;
	snprintf(walk->origin, sizeof(walk->origin), "%.*s", (int)origin.len, origin.data);
	line->kind = WALK_SEGMENT;
	line->index = walk->index;
	return 0;
}

/* An entry is an event, or an event in its signed envelope. */
static void read_entry(struct walk *walk, const struct json_node *root,
		       const struct json_node *data, struct walk_line *line)
{
	const struct json_node *inner = json_member(walk->doc, data, "event");

	if (inner)
		root = inner;
	json_member_string(walk->doc, root, "type", &line->type);
	json_member_string(walk->doc, json_member(walk->doc, root, "data"), "cellId", &line->cell);
	line->kind = WALK_ENTRY;
	line->index = walk->index++;
}

static int classify(struct walk *walk, struct walk_line *line)
{
	const struct json_node *root, *data;
	enum line_kind kind;
	const char *why;
	size_t offset;

	if (json_document_read(walk->doc, line->text, line->len, &why, &offset) < 0)
		return -EBADMSG;
	root = json_document_root(walk->doc);
	data = json_member(walk->doc, root, "data");
	if (!json_member_string(walk->doc, root, "type", &line->type) ||
	    !json_member_string(walk->doc, root, "id", &line->id))
		return -EBADMSG;
	json_member_string(walk->doc, root, "time", &line->time);
	kind = line_kind_of(walk->doc, root);
	if (kind == LINE_SEGMENT)
		return read_segment(walk, data, line);
	if (!walk->index_known)
		return -EBADMSG;
	if (kind == LINE_CHECKPOINT) {
		line->kind = WALK_CHECKPOINT;
		line->index = walk->index;
		return 0;
	}
	read_entry(walk, root, data, line);
	return 0;
}

int walk_next(struct walk *walk, struct walk_line *ret)
{
	struct walk_line line = {.start = evidence_reader_position(walk->reader)};
	int r = evidence_reader_next(walk->reader, &line.text, &line.len);

	if (r == -EMSGSIZE)
		return -EBADMSG;
	/* The next segment line says the index again. */
	if (r == -ENODATA)
		walk->index_known = false;
	if (r <= 0)
		return r;
	r = classify(walk, &line);
	if (r < 0)
		return r;
	*ret = line;
	return 1;
}

struct evidence_position walk_position(const struct walk *walk)
{
	return evidence_reader_position(walk->reader);
}

bool walk_index(const struct walk *walk, uint64_t *ret)
{
	*ret = walk->index;
	return walk->index_known;
}

const char *walk_origin(const struct walk *walk)
{
	return walk->origin;
}
