/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/lines.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/base64.h"

#define ID_SEGMENT    "urn:cellos:segment:"
#define ID_CHECKPOINT "urn:cellos:checkpoint:"
#define CONTENT_TYPE  "application/json"
#define BASE64	      sodium_base64_VARIANT_ORIGINAL
#define ID_MAX	      128u

/* ---- writing ---- */

/* The log's uuid is the part of its origin after the last '/'. */
static void format_id(const char *prefix, const char *origin, uint64_t number,
		      char ret[static ID_MAX])
{
	const char *slash = strrchr(origin, '/');

	snprintf(ret, ID_MAX, "%s%.64s:%" PRIu64, prefix, slash ? slash + 1 : origin, number);
}

static void format_time(uint64_t realtime_ms, char ret[static 32])
{
	const time_t second = (time_t)(realtime_ms / MSEC_PER_SEC);
	struct tm tm;
	size_t len;

	gmtime_r(&second, &tm);
	len = strftime(ret, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + len, 32 - len, ".%03uZ", (unsigned)(realtime_ms % MSEC_PER_SEC));
}

static int end_line(struct json_writer *w, const char *prefix, const char *origin, uint64_t number,
		    uint64_t realtime_ms, const char *type)
{
	char id[ID_MAX], text[32];
	size_t len;

	format_id(prefix, origin, number, id);
	format_time(realtime_ms, text);
	json_put_kv_string(w, "datacontenttype", CONTENT_TYPE);
	json_put_kv_string(w, "id", id);
	json_put_kv_string(w, "source", LINE_SOURCE_LOG);
	json_put_kv_string(w, "specversion", "1.0");
	json_put_kv_string(w, "time", text);
	json_put_kv_string(w, "type", type);
	json_put_end_object(w);
	if (json_writer_done(w, &len) < 0 || len >= w->size)
		return -ENOBUFS;
	w->buf[len++] = '\n';
	return (int)len;
}

static void put_hash(struct json_writer *w, const struct tree_hash *hash)
{
	char text[sodium_base64_ENCODED_LEN(TREE_HASH_SIZE, BASE64)];

	sodium_bin2base64(text, sizeof(text), hash->bytes, TREE_HASH_SIZE, BASE64);
	json_put_string(w, text, strlen(text));
}

int line_write_segment(const char *origin, const struct tree_frontier *frontier, const char *note,
		       size_t note_len, uint64_t realtime_ms, char ret[static LINE_OWN_MAX])
{
	struct json_writer w;

	json_writer_init(&w, ret, LINE_OWN_MAX);
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	json_put_begin_object(&w);
	if (note)
		json_put_kv_text(&w, "checkpoint", (struct wire_text){note, note_len});
	else
		json_put_kv_null(&w, "checkpoint");
	json_put_kv_uint(&w, "firstIndex", frontier->size);
	json_put_key(&w, "frontier");
	json_put_begin_array(&w);
	for (unsigned i = 0; i < tree_frontier_count(frontier->size); i++)
		put_hash(&w, &frontier->hashes[i]);
	json_put_end_array(&w);
	json_put_kv_string(&w, "origin", origin);
	json_put_end_object(&w);
	return end_line(&w, ID_SEGMENT, origin, frontier->size, realtime_ms, LINE_TYPE_SEGMENT);
}

int line_write_checkpoint(const char *origin, uint64_t size, const char *kid, const char *note,
			  size_t note_len, uint64_t realtime_ms, char ret[static LINE_OWN_MAX])
{
	struct json_writer w;

	json_writer_init(&w, ret, LINE_OWN_MAX);
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	json_put_begin_object(&w);
	json_put_kv_text(&w, "checkpoint", (struct wire_text){note, note_len});
	json_put_kv_string(&w, "origin", origin);
	json_put_kv_string(&w, "signerKid", kid);
	json_put_kv_uint(&w, "size", size);
	json_put_end_object(&w);
	return end_line(&w, ID_CHECKPOINT, origin, size, realtime_ms, LINE_TYPE_CHECKPOINT);
}

/* ---- which kind ---- */

static bool text_is(struct wire_text text, const char *s)
{
	return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}

enum line_kind line_kind_of(const struct json_document *doc, const struct json_node *root)
{
	struct wire_text type;

	if (!json_member_string(doc, root, "type", &type))
		return LINE_ENTRY;
	if (text_is(type, LINE_TYPE_SEGMENT))
		return LINE_SEGMENT;
	return text_is(type, LINE_TYPE_CHECKPOINT) ? LINE_CHECKPOINT : LINE_ENTRY;
}

static bool ends_with(const char *line, size_t len, const char *end, size_t end_len)
{
	return len >= end_len && memcmp(line + len - end_len, end, end_len) == 0;
}

enum line_kind line_kind_of_canonical(const char *line, size_t len)
{
	static const char segment[] = ",\"type\":\"" LINE_TYPE_SEGMENT "\"}";
	static const char checkpoint[] = ",\"type\":\"" LINE_TYPE_CHECKPOINT "\"}";

	if (ends_with(line, len, segment, sizeof(segment) - 1))
		return LINE_SEGMENT;
	return ends_with(line, len, checkpoint, sizeof(checkpoint) - 1) ? LINE_CHECKPOINT
									: LINE_ENTRY;
}

/* ---- reading ---- */

static int fail(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EBADMSG;
}

static size_t count_members(const struct json_document *doc, const struct json_node *node)
{
	size_t n = 0;

	for (const struct json_node *at = json_child(doc, node); at; at = json_sibling(doc, at))
		n++;
	return n;
}

static bool member_is(const struct json_document *doc, const struct json_node *root,
		      const char *key, const char *want)
{
	struct wire_text text;

	return json_member_string(doc, root, key, &text) && text_is(text, want);
}

/* Check the attributes that both kinds have. */
static bool frame_is(const struct json_document *doc, const struct json_node *root,
		     const char *id_prefix, const char *origin, uint64_t number)
{
	struct wire_text text;
	char id[ID_MAX];

	format_id(id_prefix, origin, number, id);
	return count_members(doc, root) == 7 &&
	       member_is(doc, root, "datacontenttype", CONTENT_TYPE) &&
	       member_is(doc, root, "specversion", "1.0") &&
	       member_is(doc, root, "source", LINE_SOURCE_LOG) && member_is(doc, root, "id", id) &&
	       json_member_string(doc, root, "time", &text);
}

static int copy_note(struct wire_text text, char ret[static NOTE_TEXT_MAX], size_t *ret_len,
		     struct note *ret_note, const char **ret_why)
{
	if (text.len >= NOTE_TEXT_MAX)
		return fail(ret_why, "a checkpoint that is too long");
	memcpy(ret, text.data, text.len);
	ret[text.len] = '\0';
	*ret_len = text.len;
	return note_parse(ret, text.len, ret_note, ret_why);
}

static int read_frontier(const struct json_document *doc, const struct json_node *array,
			 struct tree_frontier *frontier)
{
	const unsigned want = tree_frontier_count(frontier->size);
	const struct json_node *at;
	unsigned n = 0;

	if (!array || array->type != JSON_ARRAY_NODE)
		return -EBADMSG;
	for (at = json_child(doc, array); at; at = json_sibling(doc, at), n++) {
		size_t len;

		if (n >= want || at->type != JSON_STRING_NODE ||
		    !base64_decode(at->text.data, at->text.len, sodium_base64_VARIANT_ORIGINAL,
				   frontier->hashes[n].bytes, TREE_HASH_SIZE, &len) ||
		    len != TREE_HASH_SIZE)
			return -EBADMSG;
	}
	return n == want ? 0 : -EBADMSG;
}

int line_read_segment(const struct json_document *doc, const struct json_node *root,
		      struct line_segment *ret, const char **ret_why)
{
	const struct json_node *data = json_member(doc, root, "data");
	const struct json_node *checkpoint = json_member(doc, data, "checkpoint");
	struct wire_text origin, note;

	ret->note_len = 0;
	if (count_members(doc, data) != 4 || !json_member_string(doc, data, "origin", &origin) ||
	    !json_member_uint(doc, data, "firstIndex", &ret->frontier.size) || !checkpoint ||
	    ret->frontier.size > TREE_SIZE_MAX || !note_origin_valid(origin.data, origin.len))
		return fail(ret_why, "a segment line without its members");
	memcpy(ret->origin, origin.data, origin.len);
	ret->origin[origin.len] = '\0';
	if (read_frontier(doc, json_member(doc, data, "frontier"), &ret->frontier) < 0)
		return fail(ret_why, "a segment line whose frontier is malformed");
	if (!frame_is(doc, root, ID_SEGMENT, ret->origin, ret->frontier.size))
		return fail(ret_why, "a segment line whose attributes are wrong");
	if (checkpoint->type == JSON_NULL_NODE)
		return ret->frontier.size == 0
			       ? 0
			       : fail(ret_why, "a segment line without its checkpoint");
	if (!json_member_string(doc, data, "checkpoint", &note))
		return fail(ret_why, "a segment line without its checkpoint");
	if (copy_note(note, ret->note_text, &ret->note_len, &ret->note, ret_why) < 0)
		return -EBADMSG;
	if (strcmp(ret->note.checkpoint.origin, ret->origin) != 0 ||
	    ret->note.checkpoint.size != ret->frontier.size || ret->frontier.size == 0)
		return fail(ret_why, "a segment line that disagrees with its checkpoint");
	return 0;
}

int line_read_checkpoint(const struct json_document *doc, const struct json_node *root,
			 struct line_checkpoint *ret, const char **ret_why)
{
	const struct json_node *data = json_member(doc, root, "data");
	const struct note_checkpoint *c = &ret->note.checkpoint;
	struct wire_text origin, note, kid;
	uint64_t size;

	if (count_members(doc, data) != 4 || !json_member_string(doc, data, "origin", &origin) ||
	    !json_member_string(doc, data, "checkpoint", &note) ||
	    !json_member_string(doc, data, "signerKid", &kid) || kid.len > LINE_KID_MAX ||
	    !json_member_uint(doc, data, "size", &size))
		return fail(ret_why, "a checkpoint line without its members");
	if (copy_note(note, ret->note_text, &ret->note_len, &ret->note, ret_why) < 0)
		return -EBADMSG;
	if (!text_is(origin, c->origin) || size != c->size)
		return fail(ret_why, "a checkpoint line that disagrees with its checkpoint");
	if (!frame_is(doc, root, ID_CHECKPOINT, c->origin, size))
		return fail(ret_why, "a checkpoint line whose attributes are wrong");
	memcpy(ret->kid, kid.data, kid.len);
	ret->kid[kid.len] = '\0';
	return 0;
}
