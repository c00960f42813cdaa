/* SPDX-License-Identifier: MIT */
/* The log's own lines: read as they were written, told from entries, each damage refused. */
#include "host-receiver/evidence/lines.h"

#include "common/util.h"
#include "tests/unit/unit.h"

#define UUID   "0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11"
#define ORIGIN "example.org/host-7/" UUID
#define SIZE   22u

static struct json_document *doc;
static struct line_segment segment;
static struct line_checkpoint checkpoint;
static char line[LINE_OWN_MAX], note[NOTE_TEXT_MAX];
static size_t len;

static void setup(void)
{
	struct note_checkpoint c = {.origin = ORIGIN, .size = SIZE};
	const struct note_signature signature = {.key_id = "key", .bytes = "signature"};

	doc = json_document_new(LINE_OWN_MAX);
	ck_assert_ptr_nonnull(doc);
	memset(c.root.bytes, 3, TREE_HASH_SIZE);
	ck_assert_int_gt(note_format(&c, &signature, 1, note, sizeof(note)), 0);
}

static void teardown(void)
{
	json_document_free(doc);
}

/* The newline is no part of what the readers get. */
static void take(int written)
{
	ck_assert_int_gt(written, 1);
	len = (size_t)written - 1;
	ck_assert_int_eq(line[len], '\n');
	line[len] = '\0';
}

static void write_segment(uint64_t first)
{
	struct tree_frontier frontier = {.size = first};

	for (unsigned i = 0; i < tree_frontier_count(first); i++)
		memset(frontier.hashes[i].bytes, (int)i + 1, TREE_HASH_SIZE);
	take(line_write_segment(ORIGIN, &frontier, first ? note : NULL, strlen(note), 1002, line));
}

static void write_checkpoint(void)
{
	take(line_write_checkpoint(ORIGIN, SIZE, "kid", note, strlen(note), 1002, line));
}

static enum line_kind parsed_kind(void)
{
	const char *why;
	size_t offset;

	ck_assert_msg(json_document_read(doc, line, len, &why, &offset) == 0, "%s at %zu", why,
		      offset);
	return line_kind_of(doc, json_document_root(doc));
}

static void kind_is(enum line_kind kind)
{
	ck_assert_int_eq(line_kind_of_canonical(line, len), kind);
	ck_assert_int_eq(parsed_kind(), kind);
}

UNIT_TEST(a_segment_line_is_read_as_it_was_written)
{
	static const uint64_t firsts[] = {0, SIZE};
	const char *why = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(firsts); i++) {
		write_segment(firsts[i]);
		kind_is(LINE_SEGMENT);
		ck_assert_msg(line_read_segment(doc, json_document_root(doc), &segment, &why) == 0,
			      "%s", why);
		ck_assert_str_eq(segment.origin, ORIGIN);
		ck_assert_uint_eq(segment.frontier.size, firsts[i]);
		ck_assert_uint_eq(segment.note_len, firsts[i] ? strlen(note) : 0);
		for (unsigned h = 0; h < tree_frontier_count(firsts[i]); h++)
			ck_assert_uint_eq(segment.frontier.hashes[h].bytes[31], h + 1);
	}
	ck_assert_mem_eq(segment.note_text, note, strlen(note));
	ck_assert_uint_eq(segment.note.checkpoint.size, SIZE);
}

UNIT_TEST(a_checkpoint_line_is_read_as_it_was_written)
{
	const char *why = NULL;

	write_checkpoint();
	kind_is(LINE_CHECKPOINT);
	ck_assert_msg(line_read_checkpoint(doc, json_document_root(doc), &checkpoint, &why) == 0,
		      "%s", why);
	ck_assert_str_eq(checkpoint.kid, "kid");
	ck_assert_mem_eq(checkpoint.note_text, note, strlen(note));
	ck_assert_uint_eq(checkpoint.note.checkpoint.size, SIZE);
}

UNIT_TEST(an_entry_cannot_imitate_them)
{
	static const char *const entries[] = {
		"{}",
		"{\"type\":\"" LINE_TYPE_SEGMENT "x\"}",
		"{\"a\":1,\"type\":\"x" LINE_TYPE_SEGMENT "\"}",
		"{\"data\":{\"type\":\"" LINE_TYPE_SEGMENT "\"}}",
		"{\"data\":\",\\\"type\\\":\\\"" LINE_TYPE_CHECKPOINT "\\\"}\"}",
		"{\"a\":1,\"type\":\"dev.cellos.events.cell.observability.guest.v1.net\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		len = (size_t)snprintf(line, sizeof(line), "%s", entries[i]);
		kind_is(LINE_ENTRY);
	}
	/* Part of a line. */
	write_segment(0);
	for (size_t n = 0; n < len; n++)
		ck_assert_int_eq(line_kind_of_canonical(line, n), LINE_ENTRY);
	ck_assert_int_eq(line_kind_of(doc, NULL), LINE_ENTRY);
}

/* One part of the written line is replaced. */
static void damage(const char *old, const char *new)
{
	static char copy[LINE_OWN_MAX];
	const char *at = strstr(line, old);

	ck_assert_msg(at != NULL, "%s is not in %s", old, line);
	len = (size_t)snprintf(copy, sizeof(copy), "%.*s%s%s", (int)(at - line), line, new,
			       at + strlen(old));
	ck_assert_uint_lt(len, sizeof(copy));
	memcpy(line, copy, len + 1);
	parsed_kind();
}

struct harm {
	const char *old, *new, *why;
};

static const struct harm frame_harms[] = {
	{"application/json", "text/plain", "attributes"},
	{"\"specversion\":\"1.0\"", "\"specversion\":\"1.1\"", "attributes"},
	{"\"source\":\"cellos", "\"source\":\"dellos", "attributes"},
	{"urn:cellos:", "urn:dellos:", "attributes"},
	{UUID ":", "0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a12:", "attributes"},
	{"\"time\":\"1970-01-01T00:00:01.002Z\"", "\"time\":7", "attributes"},
	{"\"specversion\"", "\"more\":1,\"specversion\"", "attributes"},
	{"\"data\":{", "\"data\":{\"a\":1,", "without its members"},
	{"\"origin\":", "\"prigin\":", "without its members"},
};

static const struct harm segment_harms[] = {
	{"\"firstIndex\":22", "\"firstIndex\":\"22\"", "without its members"},
	{"\"firstIndex\":22", "\"firstIndex\":23", "frontier is malformed"},
	{"\"firstIndex\":22", "\"firstIndex\":19", "attributes"}, /* three hashes as well */
	{"\"frontier\":[", "\"frontier\":[1,", "frontier is malformed"},
	{"\"frontier\":[\"AQEB", "\"frontier\":[\"AQ==", "frontier is malformed"},
	{"\"checkpoint\":\"example.org", "\"checkpoint\":\"example.net", "disagrees"},
	{"\\n22\\n", "\\n21\\n", "disagrees"},
};

static const struct harm checkpoint_harms[] = {
	{"\"size\":22", "\"size\":21", "disagrees"},
	{"\\n22\\n", "\\n21\\n", "disagrees"},
	{"\"signerKid\":\"kid\"", "\"signerKid\":7", "without its members"},
	{"\"checkpoint\":\"example.org", "\"checkpoint\":\"example.net", "disagrees"},
	{"\"origin\":\"example.org", "\"origin\":\"example.net", "disagrees"},
};

static void segment_is_refused(const struct harm *harm)
{
	const char *why = "";

	write_segment(SIZE);
	damage(harm->old, harm->new);
	ck_assert_int_eq(line_read_segment(doc, json_document_root(doc), &segment, &why), -EBADMSG);
	ck_assert_msg(strstr(why, harm->why) != NULL, "%s -> %s: %s", harm->old, harm->new, why);
}

static void checkpoint_is_refused(const struct harm *harm)
{
	const char *why = "";

	write_checkpoint();
	damage(harm->old, harm->new);
	ck_assert_int_eq(line_read_checkpoint(doc, json_document_root(doc), &checkpoint, &why),
			 -EBADMSG);
	ck_assert_msg(strstr(why, harm->why) != NULL, "%s -> %s: %s", harm->old, harm->new, why);
}

UNIT_TEST(each_damage_is_refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(frame_harms); i++) {
		segment_is_refused(&frame_harms[i]);
		checkpoint_is_refused(&frame_harms[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(segment_harms); i++)
		segment_is_refused(&segment_harms[i]);
	for (size_t i = 0; i < ARRAY_SIZE(checkpoint_harms); i++)
		checkpoint_is_refused(&checkpoint_harms[i]);
}

/* Only the first segment has no checkpoint, and it has none. */
UNIT_TEST(a_checkpoint_stands_in_every_segment_but_the_first)
{
	struct tree_frontier frontier = {.size = SIZE};
	const char *why = "";

	take(line_write_segment(ORIGIN, &frontier, NULL, 0, 1002, line));
	parsed_kind();
	ck_assert_int_eq(line_read_segment(doc, json_document_root(doc), &segment, &why), -EBADMSG);
	ck_assert_msg(strstr(why, "without its checkpoint") != NULL, "%s", why);
	frontier.size = 0;
	take(line_write_segment(ORIGIN, &frontier, note, strlen(note), 1002, line));
	parsed_kind();
	ck_assert_int_eq(line_read_segment(doc, json_document_root(doc), &segment, &why), -EBADMSG);
	ck_assert_msg(strstr(why, "disagrees") != NULL, "%s", why);
}

UNIT_TEST(a_kid_has_a_limit)
{
	char kid[LINE_KID_MAX + 2];
	const char *why;

	memset(kid, 'k', sizeof(kid));
	for (size_t n = LINE_KID_MAX - 1; n <= LINE_KID_MAX + 1; n++) {
		kid[n] = '\0';
		take(line_write_checkpoint(ORIGIN, SIZE, kid, note, strlen(note), 1002, line));
		parsed_kind();
		ck_assert_int_eq(
			line_read_checkpoint(doc, json_document_root(doc), &checkpoint, &why),
			n <= LINE_KID_MAX ? 0 : -EBADMSG);
		kid[n] = 'k';
	}
	ck_assert_uint_eq(strlen(checkpoint.kid), LINE_KID_MAX);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
