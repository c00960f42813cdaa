/* SPDX-License-Identifier: MIT */
#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/event/uuid.h"
#include "tests/unit/scarce.h"
#include "tests/unit/unit.h"

static char buf[1024];

static void wrote(struct json_writer *w, const char *want)
{
	size_t len = 0;

	ck_assert_int_eq(json_writer_done(w, &len), 0);
	ck_assert_msg(len == strlen(want) && memcmp(buf, want, len) == 0, "%.*s instead of %s",
		      (int)len, buf, want);
}

/* Each byte at each place of a text, against a writer that looks at one byte at a time. */
UNIT_TEST(escapes_each_byte_anywhere)
{
	for (size_t len = 1; len <= 20; len++)
		for (size_t at = 0; at < len; at++)
			for (int c = 0; c < 0x80; c++) {
				static const char short_of[] = "btnvfr";
				static const char x[] = "xxxxxxxxxxxxxxxxxxxxxxxx";
				char text[32], want[64], esc[8];
				struct json_writer w;

				memset(text, 'x', sizeof(text));
				text[at] = (char)c;
				if (c == '"' || c == '\\')
					snprintf(esc, sizeof(esc), "\\%c", c);
				else if (c >= '\b' && c <= '\r' && c != '\v')
					snprintf(esc, sizeof(esc), "\\%c", short_of[c - '\b']);
				else if (c < 0x20)
					snprintf(esc, sizeof(esc), "\\u%04x", (unsigned)c);
				else
					snprintf(esc, sizeof(esc), "%c", c);
				snprintf(want, sizeof(want), "\"%.*s%s%.*s\"", (int)at, x, esc,
					 (int)(len - at - 1), x);
				json_writer_init(&w, buf, sizeof(buf));
				json_put_string(&w, text, len);
				wrote(&w, want);
			}
}

UNIT_TEST(leaves_utf8_as_it_is)
{
	static const char text[] = "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\xe2\x80\xa8";
	struct json_writer w;
	char want[64];

	snprintf(want, sizeof(want), "\"%s\"", text);
	json_writer_init(&w, buf, sizeof(buf));
	json_put_string(&w, text, sizeof(text) - 1);
	wrote(&w, want);
}

UNIT_TEST(writes_all_kinds_of_values)
{
	struct json_writer w;

	json_writer_init(&w, buf, sizeof(buf));
	json_put_begin_object(&w);
	json_put_kv_uint(&w, "a", UINT64_MAX);
	json_put_kv_int(&w, "b", INT64_MIN);
	json_put_kv_bool(&w, "c", true);
	json_put_kv_null(&w, "d");
	json_put_kv_string(&w, "e", "");
	json_put_key(&w, "f");
	json_put_begin_array(&w);
	json_put_uint(&w, 0);
	json_put_begin_object(&w);
	json_put_end_object(&w);
	json_put_bool(&w, false);
	json_put_end_array(&w);
	json_put_key_text(&w, wire_text("g\""));
	json_put_raw(&w, "[1]", 3);
	json_put_end_object(&w);
	wrote(&w, "{\"a\":18446744073709551615,\"b\":-9223372036854775808,\"c\":true,\"d\":null,"
		  "\"e\":\"\",\"f\":[0,{},false],\"g\\\"\":[1]}");
}

UNIT_TEST(an_overflow_stays)
{
	static const char whole[] = "{\"key\":\"a\\nb\",\"n\":12345}";

	for (size_t size = 0; size <= sizeof(whole); size++) {
		struct json_writer w;
		size_t len = 77;

		memset(buf, '#', sizeof(buf));
		json_writer_init(&w, buf, size);
		json_put_begin_object(&w);
		json_put_kv_string(&w, "key", "a\nb");
		json_put_kv_uint(&w, "n", 12345);
		json_put_end_object(&w);
		if (size >= sizeof(whole) - 1) {
			wrote(&w, whole);
		} else {
			ck_assert_int_eq(json_writer_done(&w, &len), -ENOBUFS);
			ck_assert_uint_eq(len, 77);
		}
		ck_assert_int_eq(buf[size], '#');
	}
}

static const struct {
	const char *text, *canonical; /* NULL: refused */
} documents[] = {
	{" { \"b\" : 1 , \"a\" : [ ] } ", "{\"a\":[],\"b\":1}"},
	{"\"\\u0041\\/\\u00e9\"", "\"A/\xc3\xa9\""},
	{"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
	/* By UTF-16 code units: a surrogate pair sorts before U+FB33. */
	{"{\"\\ufb33\":1,\"\\ud83d\\ude00\":2}", "{\"\xf0\x9f\x98\x80\":2,\"\xef\xac\xb3\":1}"},
	{"\"a b  c \"", "\"a b  c \""},
	{"[\"\", \" \"]", "[\"\",\" \"]"},
	{"{\"a b\":\" \"}", "{\"a b\":\" \"}"},
	/* The whole order around U+E000..U+FFFF and the characters beyond: D7FF, 10000, 10FFFF,
	 * E000, FFFD; also where only a later character decides. */
	{"{\"\\ufffd\":5,\"\\ue000\":4,\"\\udbff\\udfff\":3,\"\\ud800\\udc00\":2,"
	 "\"\\ud7ff\":1}",
	 "{\"\xed\x9f\xbf\":1,\"\xf0\x90\x80\x80\":2,\"\xf4\x8f\xbf\xbf\":3,"
	 "\"\xee\x80\x80\":4,\"\xef\xbf\xbd\":5}"},
	{"{\"a\\uff01z\":2,\"a\\ud83d\\ude00a\":1,\"a\":0}", "{\"a\":0,\"a\xf0\x9f\x98\x80"
							     "a\":1,\"a\xef\xbc\x81z\":2}"},
	{"{\"\xf0\x9f\x98\x81\":2,\"\xf0\x9f\x98\x80\":1}",
	 "{\"\xf0\x9f\x98\x80\":1,\"\xf0\x9f\x98\x81\":2}"},
	{"\"\\u00aF\\u00Af\"", "\"\xc2\xaf\xc2\xaf\""},
	{"123456789012345678901234567890", "123456789012345678901234567890"},
	{"-5", "-5"},
	{"{\"a\":1,\"\\u0061\":2}", NULL},
	{"{\"a\":{\"b\":1,\"b\":1}}", NULL},
	{"1.0", NULL},
	{"1e3", NULL},
	{"01", NULL},
	{"-0", NULL},
	{"+1", NULL},
	{"\"\\ud800\"", NULL},
	{"\"\\ud800x\"", NULL},
	{"\"\\ud800\\u0041\"", NULL},
	{"\"\\u00G0\"", NULL},
	{"\"\\u00g0\"", NULL},
	{"\"\\u00/0\"", NULL},
	{"\"\\u00:0\"", NULL},
	{"\"\\u00@0\"", NULL},
	{"\"\\u00`0\"", NULL},
	{"\"\\u 041\"", NULL},
	{"\"\\u004\"", NULL},
	{"\"\\u00", NULL},
	{"\"\\ude00\\ud83d\"", NULL},
	{"\"\xff\"", NULL},
	{"\"\xc0\x80\"", NULL},
	{"\"\n\"", NULL},
	{"\"\\x\"", NULL},
	{"\"a", NULL},
	{"[1,]", NULL},
	{"{\"a\"}", NULL},
	{"{} {}", NULL},
	{"", NULL},
	{"nul", NULL},
	{"'a'", NULL},
};

UNIT_TEST(reads_strictly_and_writes_canonically)
{
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);

	for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
		const char *text = documents[i].text, *why = NULL;
		struct json_writer w;
		size_t offset = 0;
		int r = json_document_read(doc, text, strlen(text), &why, &offset);

		if (!documents[i].canonical) {
			ck_assert_msg(r == -EBADMSG, "%s: %d", text, r);
			ck_assert(why && *why && offset <= strlen(text));
			continue;
		}
		ck_assert_msg(r == 0, "%s: %s", text, why);
		json_writer_init(&w, buf, sizeof(buf));
		json_write_canonical(doc, json_document_root(doc), &w);
		wrote(&w, documents[i].canonical);
	}
	json_document_free(doc);
}

UNIT_TEST(without_memory_nothing_is_said_about_the_text)
{
	static const char good[] = "{\"a\":1}", bad[] = "{\"a\":}";
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);

	scarce_from(1);
	ck_assert_int_eq(json_document_try(doc, good, strlen(good)), -ENOMEM);
	ck_assert_int_eq(json_document_try(doc, bad, strlen(bad)), -ENOMEM);
	ck_assert(scarce_end());
	ck_assert_int_eq(json_document_try(doc, good, strlen(good)), 1);
	ck_assert_int_eq(json_document_try(doc, bad, strlen(bad)), 0);
	json_document_free(doc);
}

UNIT_TEST(is_bounded)
{
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	char *text = malloc(JSON_DOCUMENT_MAX + 1);
	const char *why;
	size_t offset;

	for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		ck_assert_int_eq(json_document_read(doc, text, 2 * depth, &why, &offset),
				 depth <= JSON_DEPTH_MAX ? 0 : -EBADMSG);
	}
	memset(text, ' ', JSON_DOCUMENT_MAX + 1);
	text[0] = '1';
	ck_assert_int_eq(json_document_read(doc, text, JSON_DOCUMENT_MAX, &why, &offset), 0);
	ck_assert_int_eq(json_document_read(doc, text, JSON_DOCUMENT_MAX + 1, &why, &offset),
			 -E2BIG);
	free(text);
	json_document_free(doc);
}

UNIT_TEST(finds_members)
{
	static const char text[] = "{\"n\":18446744073709551615,\"big\":18446744073709551616,"
				   "\"s\":\"x\",\"o\":{\"i\":1}}";
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	const struct json_node *root;
	struct wire_text s;
	const char *why;
	size_t offset;
	uint64_t n;

	ck_assert_int_eq(json_document_read(doc, text, sizeof(text) - 1, &why, &offset), 0);
	root = json_document_root(doc);
	ck_assert(json_member_uint(doc, root, "n", &n) && n == UINT64_MAX);
	ck_assert(!json_member_uint(doc, root, "big", &n));
	ck_assert(!json_member_uint(doc, root, "s", &n));
	ck_assert(json_member_string(doc, root, "s", &s) && s.len == 1 && *s.data == 'x');
	ck_assert(!json_member_string(doc, root, "n", &s));
	ck_assert(json_member_uint(doc, json_member(doc, root, "o"), "i", &n) && n == 1);
	ck_assert(json_member(doc, root, "none") == NULL);
	ck_assert(json_member(doc, NULL, "n") == NULL);
	json_document_free(doc);
}

UNIT_TEST(uuids_are_random_and_read_back)
{
	static const char *const bad[] = {
		"",
		"00000000-0000-4000-8000-00000000000",
		"00000000-0000-4000-8000-0000000000000",
		"00000000-0000-4000-8000-00000000000g",
		"00000000-0000-4000-8000-00000000000A",
		"0000000000000-4000-8000-000000000000",
		"00000000-0000-4000-8000-0000000000 0",
		"------------------------------------",
	};
	struct uuid_source source = {0};
	uint8_t a[UUID_SIZE], b[UUID_SIZE] = {0}, last[UUID_SIZE] = {0};
	char text[UUID_STRING_MAX];

	for (int i = 0; i < 1000; i++) {
		uuid_generate(&source, a);
		ck_assert(memcmp(a, last, UUID_SIZE) != 0);
		memcpy(last, a, UUID_SIZE);
		uuid_format(a, text);
		ck_assert_msg(text[14] == '4' && strchr("89ab", text[19]), "%s", text);
		ck_assert(uuid_parse(text, b) && memcmp(a, b, UUID_SIZE) == 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!uuid_parse(bad[i], b), "%s", bad[i]);
}
