/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/walk.h"

#include "common/util.h"
#include "host-receiver/evidence/lines.h"
#include "host-receiver/forward/scan.h"

/* All origins so far; a folder has few logs. */
struct origin {
	struct origin *next;
	char name[];
};

struct walk {
	char *dir; /* owned */
	struct evidence_reader *reader;
	struct evidence_position end;
	struct json_document *doc;
	struct origin *origins; /* owned */
	const char *origin;	/* one of them, or "" */
	uint64_t index;
	bool index_known;
};

void walk_close(struct walk *walk)
{
	if (!walk)
		return;
	evidence_reader_close(walk->reader);
	json_document_free(walk->doc);
	while (walk->origins) {
		struct origin *origin = walk->origins;

		walk->origins = origin->next;
		free(origin);
	}
	free(walk->dir);
	free(walk);
}

static int set_origin(struct walk *walk, const char *name, size_t len)
{
	struct origin *origin;

	for (origin = walk->origins; origin; origin = origin->next)
		if (strlen(origin->name) == len && memcmp(origin->name, name, len) == 0)
			break;
	if (!origin) {
		origin = malloc(sizeof(*origin) + len + 1);
		if (!origin)
			return -ENOMEM;
		memcpy(origin->name, name, len);
		origin->name[len] = '\0';
		origin->next = walk->origins;
		walk->origins = origin;
	}
	walk->origin = origin->name;
	return 0;
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
	walk->origin = "";
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
	return set_origin(walk, origin, strlen(origin));
}

int walk_rewind(struct walk *walk)
{
	int r = reopen(walk, NULL);

	if (r < 0)
		return r;
	walk->index_known = false;
	walk->origin = "";
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
	line->kind = WALK_SEGMENT;
	return set_origin(walk, origin.data, origin.len);
}

/* Read an entry: an event, or a signed envelope with an event. */
static void read_entry(const struct walk *walk, const struct json_node *root,
		       struct scanned_line *facts)
{
	const struct json_node *inner =
		json_member(walk->doc, json_member(walk->doc, root, "data"), "event");

	if (inner)
		root = inner;
	json_member_string(walk->doc, root, "type", &facts->type);
	json_member_string(walk->doc, json_member(walk->doc, root, "data"), "cellId", &facts->cell);
}

/* Use the JSON reader for segment lines, and for lines that scan_line() cannot read. */
static int parse(struct walk *walk, struct walk_line *line, struct scanned_line *facts)
{
	const struct json_node *root;
	const char *why;
	size_t offset;
	int r;

	*facts = (struct scanned_line){0};
	r = json_document_read(walk->doc, line->text, line->len, &why, &offset);
	/* Without memory it is no fault of the line: the caller begins at its cursor again. */
	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	root = json_document_root(walk->doc);
	if (!json_member_string(walk->doc, root, "type", &facts->type) ||
	    !json_member_string(walk->doc, root, "id", &facts->id))
		return -EBADMSG;
	json_member_string(walk->doc, root, "time", &facts->time);
	switch (line_kind_of(walk->doc, root)) {
	case LINE_SEGMENT: return read_segment(walk, json_member(walk->doc, root, "data"), line);
	case LINE_CHECKPOINT: line->kind = WALK_CHECKPOINT; return 0;
	default:
		line->kind = WALK_ENTRY;
		read_entry(walk, root, facts);
		return 0;
	}
}

static int classify(struct walk *walk, struct walk_line *line)
{
	const enum line_kind kind = line_kind_of_canonical(line->text, line->len);
	struct scanned_line facts;
	int r = 0;

	if (kind == LINE_SEGMENT || !scan_line(line->text, line->len, &facts))
		r = parse(walk, line, &facts);
	else
		line->kind = kind == LINE_CHECKPOINT ? WALK_CHECKPOINT : WALK_ENTRY;
	if (r < 0)
		return r;
	if (!walk->index_known)
		return -EBADMSG;
	line->id = facts.id;
	line->type = facts.type;
	line->time = facts.time;
	line->cell = facts.cell;
	line->origin = walk->origin;
	line->index = walk->index;
	walk->index += line->kind == WALK_ENTRY;
	return 0;
}

int walk_next(struct walk *walk, struct walk_line *ret)
{
	struct walk_line line = {.start = evidence_reader_position(walk->reader)};
	int r = evidence_reader_next(walk->reader, &line.text, &line.len);

	if (r == -EMSGSIZE)
		return -EBADMSG;
	/* The index is unknown until the next segment line. */
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

int walk_leaf(const struct walk *walk, const struct evidence_position *at, struct tree_hash *ret)
{
	struct tree_hasher *hasher = tree_hasher_new();
	struct evidence_reader *reader = NULL;
	const char *text;
	size_t len;
	int r = hasher ? evidence_reader_open(walk->dir, at, &reader) : -ENOMEM;

	while (r == 0) {
		r = evidence_reader_next(reader, &text, &len);
		if (r <= 0)
			r = r == 0 ? -ENODATA : r;
		else if (line_kind_of_canonical(text, len) == LINE_ENTRY)
			r = tree_hash_leaf(hasher, text, len, ret) < 0 ? -EIO : 1;
		else
			r = 0;
	}
	evidence_reader_close(reader);
	tree_hasher_free(hasher);
	return MIN(r, 0);
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
