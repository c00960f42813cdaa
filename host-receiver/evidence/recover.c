/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/recover.h"

#include <fcntl.h>
#include <limits.h>

#include "common/util.h"
#include "host-receiver/evidence/line_scan.h"
#include "host-receiver/evidence/own_mark.h"
#include "host-receiver/evidence/sink.h"
#include "host-receiver/evidence/tail.h"

/*
 * So much of the newest segment's end is read at first. If it does not hold the last two
 * checkpoints, more is read, up to the most that can stand between them.
 */
#define TAIL_MIN    (256u * 1024u)
#define TAIL_MAX    (2u * EVIDENCE_GROUP_BYTES_MAX)
#define TAIL_FACTOR 4u

/* ---- the log's own stream ---- */

struct own {
	bool found, closed;
	uint8_t uuid[UUID_SIZE];
	uint64_t sequence;
};

/* Note a record of the log's own stream. Any other line is passed over. */
static int read_own(struct json_document *doc, const char *line, size_t len, struct own *own)
{
	static const char mark[] = "\"source\":\"" LINE_SOURCE_LOG "\"";
	static const char closed[] = ".log.v1.closed";
	const struct json_node *root, *event, *data;
	struct wire_text id, type;
	struct own found = {.found = true};
	char text[UUID_STRING_MAX];
	int r;

	if (!memmem(line, len, mark, sizeof(mark) - 1))
		return 0;
	r = json_document_try(doc, line, len);
	if (r <= 0)
		return r;
	root = json_document_root(doc);
	event = json_member(doc, json_member(doc, root, "data"), "event");
	if (!event)
		event = root;
	data = json_member(doc, event, "data");
	if (!json_member_string(doc, data, "streamId", &id) || id.len != UUID_STRING_MAX - 1 ||
	    !json_member_uint(doc, data, "sequence", &found.sequence) ||
	    !json_member_string(doc, event, "type", &type))
		return 0;
	memcpy(text, id.data, id.len);
	text[id.len] = '\0';
	if (!uuid_parse(text, found.uuid))
		return 0;
	found.closed = type.len >= sizeof(closed) - 1 &&
		       memcmp(type.data + type.len - (sizeof(closed) - 1), closed,
			      sizeof(closed) - 1) == 0;
	*own = found;
	return 0;
}

/* ---- reading ---- */

struct reading {
	const struct folder *folder;
	struct recover_point *points;
	struct recovered *ret;
	struct tree_hasher *hasher;
	struct json_document *doc;
	struct line_scan scan;
	struct tail tail;
	struct line_segment *first; /* on the heap, because it is large */
	struct line_checkpoint *checkpoint;

	struct tree_frontier frontier;
	struct own own;
	uint64_t lines; /* lines after the newest checkpoint */
	size_t n_leaves, size_leaves;
	bool collecting;
	bool cut; /* data are missing from here on: no line after it is evidence */
};

static int damaged(struct reading *r, const char *why)
{
	r->ret->damaged = true;
	r->ret->why = why;
	return 0;
}

static int check_points(struct reading *r)
{
	for (size_t i = 0; i < RECOVER_POINTS; i++) {
		struct recover_point *p = &r->points[i];
		struct tree_hash root;
		int error;

		if (p->size != r->frontier.size || strcmp(p->origin, r->ret->origin) != 0)
			continue;
		error = tree_frontier_root(r->hasher, &r->frontier, &root);
		if (error < 0)
			return error;
		p->matches = tree_hash_equal(&root, &p->root);
		if (p->matches) {
			r->ret->leaves_from = p->size;
			r->n_leaves = 0;
			r->collecting = true;
		}
	}
	return 0;
}

static int keep_leaf(struct reading *r, const struct tree_hash *leaf)
{
	if (!r->collecting)
		return 0;
	if (r->n_leaves == RECOVER_LEAVES_MAX) {
		for (size_t i = 0; i < RECOVER_POINTS; i++)
			if (r->points[i].size == r->ret->leaves_from)
				r->points[i].matches = false;
		r->collecting = false;
		return 0;
	}
	if (r->n_leaves == r->size_leaves) {
		const size_t n = MAX(r->size_leaves * 2, (size_t)1024);
		struct tree_hash *p = reallocarray(r->ret->leaves, n, sizeof(*p));

		if (!p)
			return -ENOMEM;
		r->ret->leaves = p;
		r->size_leaves = n;
	}
	r->ret->leaves[r->n_leaves++] = *leaf;
	return 0;
}

/* The log is evidence up to here. */
static void settle(struct reading *r, const struct tree_hash *root, uint64_t end)
{
	struct recovered *ret = r->ret;

	ret->frontier = r->frontier;
	ret->root = *root;
	ret->end = end;
	ret->n_leaves = r->n_leaves;
	ret->own = r->own.found;
	ret->own_closed = r->own.closed;
	ret->own_sequence = r->own.sequence;
	if (ret->own)
		memcpy(ret->uuid, r->own.uuid, UUID_SIZE);
	r->lines = 0;
}

static int settle_note(struct reading *r, const char *text, size_t len, const struct note *note,
		       uint64_t end)
{
	struct tree_hash root;
	int error = tree_frontier_root(r->hasher, &r->frontier, &root);

	if (error < 0)
		return error;
	if (note->checkpoint.size != r->frontier.size ||
	    strcmp(note->checkpoint.origin, r->ret->origin) != 0 ||
	    !tree_hash_equal(&note->checkpoint.root, &root) || len >= LINE_NOTE_MAX)
		return damaged(r, "the tree over its lines is not the one that was signed");
	memcpy(r->ret->note, text, len);
	r->ret->note[len] = '\0';
	r->ret->note_len = len;
	settle(r, &root, end);
	return 0;
}

static int read_segment_line(struct reading *r, const struct scan_line *line)
{
	struct line_segment *first = r->first;
	struct tree_hash root;
	const char *why;
	int error = json_document_try(r->doc, line->data, line->len);

	if (error < 0)
		return error;
	if (error == 0 || line_read_segment(r->doc, json_document_root(r->doc), first, &why) < 0)
		return damaged(r, "a segment's first line is malformed");
	if (strcmp(first->origin, r->ret->origin) != 0) {
		/* Another log begins. */
		memcpy(r->ret->origin, first->origin, sizeof(first->origin));
		r->own.found = false;
		r->n_leaves = 0;
		r->collecting = false;
	} else if (first->frontier.size != r->frontier.size) {
		return damaged(r, "a segment does not begin where the one before it ends");
	}
	r->frontier = first->frontier;
	error = check_points(r);
	if (error < 0)
		return error;
	if (first->note_len > 0)
		return settle_note(r, first->note_text, first->note_len, &first->note, line->end);
	r->ret->note_len = 0;
	error = tree_frontier_root(r->hasher, &r->frontier, &root);
	if (error == 0)
		settle(r, &root, line->end);
	return error;
}

static int read_checkpoint(struct reading *r, const struct scan_line *line)
{
	struct line_checkpoint *c = r->checkpoint;
	const char *why;
	int error = json_document_try(r->doc, line->data, line->len);

	if (error < 0)
		return error;
	if (error == 0 || line_read_checkpoint(r->doc, json_document_root(r->doc), c, &why) < 0)
		return damaged(r, "a checkpoint line is malformed");
	return settle_note(r, c->note_text, c->note_len, &c->note, line->end);
}

static int read_entry(struct reading *r, const struct scan_line *line)
{
	struct tree_hash leaf;
	int error = tree_hash_leaf(r->hasher, line->data, line->len, &leaf);

	if (error == 0)
		error = tree_frontier_append(r->hasher, &r->frontier, &leaf);
	if (error == 0)
		error = keep_leaf(r, &leaf);
	if (error == 0)
		error = check_points(r);
	if (error == 0)
		error = read_own(r->doc, line->data, line->len, &r->own);
	r->lines++;
	return error;
}

static int read_tree_line(struct reading *r, const struct scan_line *line, bool first)
{
	enum line_kind kind;

	r->cut = r->cut || !line->whole || line->nul;
	if (r->cut) {
		r->lines++;
		return 0;
	}
	kind = line_kind_of_canonical(line->data, line->len);
	if ((kind == LINE_SEGMENT) != first)
		return damaged(r, "a segment line stands elsewhere than first");
	if (line->too_long)
		return read_entry(r, &(struct scan_line){.data = line->data, .len = 0});
	switch (kind) {
	case LINE_SEGMENT: return read_segment_line(r, line);
	case LINE_CHECKPOINT: return read_checkpoint(r, line);
	default: return read_entry(r, line);
	}
}

static int read_tree_segment(struct reading *r, const struct folder_segment *s)
{
	struct scan_line line;
	bool first = true;
	int error = line_scan_open(&r->scan, r->folder, s->number);

	if (error < 0)
		return error;
	if (r->cut)
		damaged(r, "data are missing in a segment before the newest one");
	while (!r->ret->damaged && (error = line_scan_next(&r->scan, &line)) > 0) {
		error = read_tree_line(r, &line, first);
		if (error < 0)
			break;
		first = false;
	}
	line_scan_close(&r->scan);
	return error;
}

/* Without a tree all whole lines are evidence, up to the first place where data are missing. */
static int read_plain_segment(struct reading *r, const struct folder_segment *s)
{
	const struct tree_hash no_root = {0};
	struct scan_line line;
	bool cut = false;
	int error = line_scan_open(&r->scan, r->folder, s->number);

	if (error < 0)
		return error;
	r->ret->end = 0;
	while ((error = line_scan_next(&r->scan, &line)) > 0) {
		cut = cut || !line.whole || line.nul;
		if (cut) {
			r->lines++;
			continue;
		}
		error = line.too_long ? 0 : read_own(r->doc, line.data, line.len, &r->own);
		if (error < 0)
			break;
		settle(r, &no_root, line.end);
	}
	line_scan_close(&r->scan);
	return error;
}

/* ---- the end of the newest segment ---- */

/* The newest checkpoint line before `at`. */
static bool checkpoint_before(const struct reading *r, size_t at, struct tail_line *ret)
{
	while (tail_line_before(&r->tail, at, ret)) {
		if (line_kind_of_canonical(r->tail.buf + ret->begin, ret->end - ret->begin) ==
		    LINE_CHECKPOINT)
			return true;
		at = ret->begin;
	}
	return false;
}

/* The line is the checkpoint of this tree, byte for byte as the signer signed it. */
static bool is_point(struct reading *r, const struct tail_line *at, const struct recover_point *p)
{
	const char *line = r->tail.buf + at->begin, *why;

	return p->note_len > 0 && json_document_try(r->doc, line, at->end - at->begin) > 0 &&
	       line_read_checkpoint(r->doc, json_document_root(r->doc), r->checkpoint, &why) >= 0 &&
	       r->checkpoint->note_len == p->note_len &&
	       memcmp(r->checkpoint->note_text, p->note, p->note_len) == 0;
}

/* The lines between the two checkpoints make the one tree of the other. */
static int check_group(struct reading *r, const struct tail_line *from, const struct tail_line *to,
		       bool *ret)
{
	const struct recover_point *last = &r->points[RECOVER_LAST];
	struct tree_frontier frontier = r->points[RECOVER_BEFORE].frontier;
	struct tail_line at;
	struct tree_hash root;
	int error = 0;

	for (size_t next = from->end + 1; error == 0 && next < to->begin; next = at.end + 1) {
		struct tree_hash leaf;

		tail_line_after(&r->tail, next, &at);
		error = tree_hash_leaf(r->hasher, r->tail.buf + at.begin, at.end - at.begin, &leaf);
		if (error == 0)
			error = tree_frontier_append(r->hasher, &frontier, &leaf);
	}
	if (error == 0)
		error = tree_frontier_root(r->hasher, &frontier, &root);
	*ret = error == 0 && frontier.size == last->size && tree_hash_equal(&root, &last->root);
	return error;
}

/* The log ends at the signer's last tree: what that is the signer knows. */
static int take_last(struct reading *r, const struct folder_segment *s, const struct tail_line *at)
{
	struct recover_point *last = &r->points[RECOVER_LAST];
	const struct tail *t = &r->tail;
	struct tail_line line;
	int error = 0;

	memcpy(r->ret->origin, last->origin, sizeof(last->origin));
	memcpy(r->ret->note, last->note, last->note_len + 1);
	r->ret->note_len = last->note_len;
	r->ret->leaves_from = last->size;
	last->matches = true;
	r->frontier = last->frontier;
	for (size_t next = t->first; error == 0 && next < at->begin; next = line.end + 1) {
		tail_line_after(t, next, &line);
		if (line.end - line.begin < LINE_SCAN_MAX)
			error = read_own(r->doc, t->buf + line.begin, line.end - line.begin,
					 &r->own);
	}
	settle(r, &last->root, s->size - (t->len - (at->end + 1)));
	for (size_t next = at->end + 1; next < t->len; next = line.end + 1, r->lines++)
		if (!tail_line_after(t, next, &line))
			line.end = t->len;
	return error;
}

/*
 * True in *ret: the newest checkpoint is the signer's last one, and the last group is whole. Then
 * nothing else of the segment is read.
 */
static int read_tail(struct reading *r, size_t newest, bool *ret)
{
	const struct folder_segment *s = &r->folder->segments[newest];
	const struct recover_point *p = r->points;
	struct tail_line last, before;
	bool known = strcmp(p[RECOVER_LAST].origin, s->origin) == 0, whole = false;
	int error = 0;

	if (!known || s->size <= TAIL_MIN)
		return 0;
	error = line_scan_open(&r->scan, r->folder, s->number);
	for (size_t size = TAIL_MIN; error == 0 && known && size <= TAIL_MAX; size *= TAIL_FACTOR) {
		error = tail_read(&r->tail, r->scan.fd, s->size, size);
		if (error < 0)
			break;
		known = checkpoint_before(r, r->tail.len, &last)
				? is_point(r, &last, &p[RECOVER_LAST])
				: !r->tail.whole;
		if (!known || !checkpoint_before(r, last.begin, &before))
			continue;
		known = false;
		if (is_point(r, &before, &p[RECOVER_BEFORE]))
			error = check_group(r, &before, &last, &whole);
	}
	line_scan_close(&r->scan);
	if (error == 0 && whole)
		error = take_last(r, s, &last);
	*ret = whole;
	return error;
}

/* ---- the log's own stream ---- */

bool recover_uuid(const char *origin, uint8_t ret[static UUID_SIZE])
{
	const char *uuid = strrchr(origin, '/');

	return uuid && uuid_parse(uuid + 1, ret);
}

/* The newest own record of a segment, from an offset on, as far as the segment is evidence. */
static int scan_own(struct reading *r, const struct folder_segment *s, uint64_t offset,
		    struct own *own)
{
	struct scan_line line;
	int error = line_scan_open(&r->scan, r->folder, s->number);

	if (error < 0)
		return error;
	r->scan.offset = offset;
	while (error >= 0 && (error = line_scan_next(&r->scan, &line)) > 0) {
		if (s->number == r->ret->segment && line.end > r->ret->end)
			break;
		if (line.whole && !line.too_long)
			error = read_own(r->doc, line.data, line.len, own);
	}
	line_scan_close(&r->scan);
	return MIN(error, 0);
}

/*
 * The position from which on own records are to be read, and what is known before it. False: there
 * is no mark for this log.
 */
static bool start_of_own(const struct reading *r, size_t before, struct own_mark *ret)
{
	const struct folder_segment *s = r->folder->segments;
	const size_t newest = r->folder->n - 1;

	return before > 0 && own_mark_read(r->folder->fd, ret) &&
	       strcmp(ret->origin, r->ret->origin) == 0 && ret->segment >= s[0].number &&
	       ret->segment <= s[newest].number &&
	       (ret->segment != r->ret->segment || ret->offset <= r->ret->end) &&
	       recover_uuid(ret->origin, r->ret->uuid);
}

/* In the newest segment before `before` that has a record of it. */
static int find_own(struct reading *r, size_t before)
{
	struct recovered *ret = r->ret;
	struct own own = {0};
	struct own_mark mark = {0};
	const bool marked = !ret->own && ret->tree && start_of_own(r, before, &mark);

	if (!marked)
		mark = (struct own_mark){0};
	while (!ret->own && !own.found && before-- > 0) {
		const struct folder_segment *s = &r->folder->segments[before];
		int error;

		if (strcmp(s->origin, ret->origin) != 0 || s->number < mark.segment)
			break;
		error = scan_own(r, s, s->number == mark.segment ? mark.offset : 0, &own);
		if (error < 0)
			return error;
	}
	if (ret->own)
		return 0;
	if (!own.found && marked) {
		own = (struct own){.found = true, .sequence = mark.sequence};
		recover_uuid(mark.origin, own.uuid);
	}
	ret->own = own.found;
	ret->own_closed = own.closed;
	ret->own_sequence = own.sequence;
	memcpy(ret->uuid, own.uuid, UUID_SIZE);
	return 0;
}

/* ---- where to begin ---- */

/* After a crash during a rotation the newest segment may not have its first line yet. */
static int lacks_first_line(struct reading *r, const struct folder_segment *s, bool *ret)
{
	struct scan_line line = {0};
	int error = line_scan_open(&r->scan, r->folder, s->number);

	if (error < 0)
		return error;
	error = line_scan_next(&r->scan, &line);
	*ret = error == 0 || (error > 0 && (!line.whole || line.len == 0 || line.data[0] != '{'));
	line_scan_close(&r->scan);
	return MIN(error, 0);
}

/*
 * The first segment of a log that the signer does not know, and no checkpoint in it: the process
 * or the power ended before the first signature. So no log has begun.
 */
static int is_unsigned(struct reading *r, const struct folder_segment *s, bool *ret)
{
	struct scan_line line;
	bool is_signed = false;
	int error;

	*ret = false;
	if (!*s->origin || s->first_index > 0 ||
	    strcmp(s->origin, r->points[RECOVER_LAST].origin) == 0)
		return 0;
	error = line_scan_open(&r->scan, r->folder, s->number);
	while (error >= 0 && !is_signed && (error = line_scan_next(&r->scan, &line)) > 0)
		is_signed = line.whole && !line.too_long &&
			    line_kind_of_canonical(line.data, line.len) == LINE_CHECKPOINT;
	line_scan_close(&r->scan);
	*ret = !is_signed;
	return MIN(error, 0);
}

/* The oldest segment that must be read so that all points lie in the segments that are read. */
static size_t first_needed(const struct reading *r, size_t newest)
{
	const struct folder_segment *s = r->folder->segments;
	uint64_t size = UINT64_MAX;
	size_t first = newest;

	for (size_t i = 0; i < RECOVER_POINTS; i++)
		if (strcmp(r->points[i].origin, s[newest].origin) == 0)
			size = MIN(size, r->points[i].size);
	while (first > 0 && s[first].first_index > size &&
	       strcmp(s[first - 1].origin, s[newest].origin) == 0)
		first--;
	return first;
}

static int read_folder(struct reading *r)
{
	const struct folder *folder = r->folder;
	struct recovered *ret = r->ret;
	size_t newest = folder->n - 1, first;
	bool done = false;
	int error = lacks_first_line(r, &folder->segments[newest], &ret->no_first_line);

	if (error == 0 && !ret->no_first_line)
		error = is_unsigned(r, &folder->segments[newest], &ret->no_first_line);
	if (error < 0)
		return error;
	if (ret->no_first_line && newest == 0) {
		ret->segment = folder->segments[0].number;
		ret->cut_bytes = folder->segments[0].size;
		ret->cut_lines = ret->cut_bytes > 0;
		return 0;
	}
	newest -= ret->no_first_line;
	ret->any = true;
	ret->segment = folder->segments[newest].number;
	ret->tree = *folder->segments[newest].origin != '\0';
	first = ret->tree ? first_needed(r, newest) : newest;
	if (ret->tree)
		error = read_tail(r, newest, &done);
	for (size_t i = first; error == 0 && !done && !ret->damaged && i <= newest; i++)
		error = ret->tree ? read_tree_segment(r, &folder->segments[i])
				  : read_plain_segment(r, &folder->segments[i]);
	if (error == 0 && !ret->damaged)
		error = find_own(r, done ? newest + 1 : first);
	ret->cut_bytes =
		folder->segments[newest].size - MIN(ret->end, folder->segments[newest].size);
	if (ret->no_first_line)
		ret->cut_bytes += folder->segments[newest + 1].size;
	ret->cut_lines = r->lines;
	return error;
}

int recover_read(const struct folder *folder, struct recover_point points[static RECOVER_POINTS],
		 struct recovered *ret)
{
	struct reading r = {
		.folder = folder,
		.points = points,
		.ret = ret,
		.hasher = tree_hasher_new(),
		.doc = json_document_new(LINE_SCAN_MAX),
		.first = malloc(sizeof(*r.first)),
		.checkpoint = malloc(sizeof(*r.checkpoint)),
	};
	int error = line_scan_init(&r.scan);

	*ret = (struct recovered){0};
	if (!r.hasher || !r.doc || !r.first || !r.checkpoint)
		error = -ENOMEM;
	if (error == 0 && folder->n > 0)
		error = read_folder(&r);
	tree_hasher_free(r.hasher);
	json_document_free(r.doc);
	line_scan_done(&r.scan);
	tail_free(&r.tail);
	free(r.first);
	free(r.checkpoint);
	return error;
}

void recovered_free(struct recovered *r)
{
	free(take_ptr(r->leaves));
}

int recover_end_of_segment(const struct folder *folder, uint64_t number, uint64_t *ret)
{
	struct line_scan scan;
	struct json_document *doc = json_document_new(LINE_SCAN_MAX);
	struct scan_line line;
	int r = line_scan_init(&scan);

	if (r == 0)
		r = doc ? line_scan_open(&scan, folder, number) : -ENOMEM;
	while (r >= 0 && (r = line_scan_next(&scan, &line)) > 0) {
		if (!line.whole || line.too_long ||
		    line_kind_of_canonical(line.data, line.len) != LINE_CHECKPOINT)
			continue;
		r = json_document_try(doc, line.data, line.len);
		if (r <= 0)
			continue;
		json_member_uint(doc, json_member(doc, json_document_root(doc), "data"), "size",
				 ret);
	}
	line_scan_done(&scan);
	json_document_free(doc);
	return r;
}
