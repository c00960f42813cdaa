/* SPDX-License-Identifier: MIT */
/* The canonical JSON that is signed: what is read, what is refused, and each byte that is written.
 */
#include <check.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "tests/unit/unit.h"

static struct json_document *doc;
static const char *why;
static size_t at;

static void open_document(void)
{
	doc = json_document_new(JSON_DOCUMENT_MAX);
}

static void close_document(void)
{
	json_document_free(doc);
}

static int read_text(const char *text)
{
	why = NULL;
	return json_document_read(doc, text, strlen(text), &why, &at);
}

static const char *canonical(const char *text)
{
	static char out[4096];
	struct json_writer w;
	size_t len;

	if (read_text(text) < 0)
		return why;
	json_writer_init(&w, out, sizeof(out) - 1);
	json_write_canonical(doc, json_document_root(doc), &w);
	ck_assert_int_eq(json_writer_done(&w, &len), 0);
	out[len] = '\0';
	return out;
}

/* RFC 8785: order by UTF-16, the shortest escapes, no white space. */
START_TEST(canonical_form)
{
	static const char *const table[][2] = {
		{" {\t\"b\" : 1 ,\n\"a\" : [ true , false , null ] }\r\n",
		 "{\"a\":[true,false,null],\"b\":1}"},
		{"\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"",
		 "\"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
		{"\"\\u0000\\u001f\\u007f\\/\\b\\f\\n\\r\\t\\\"\\\\\"",
		 "\"\\u0000\\u001f\x7f/\\b\\f\\n\\r\\t\\\"\\\\\""},
		{"{\"\\ud83d\\ude00\":1,\"\\ufb33\":2,\"\\u20ac\":3,\"1\":4,\"\":5}",
		 "{\"\":5,\"1\":4,\"\xe2\x82\xac\":3,\"\xf0\x9f\x98\x80\":1,\"\xef\xac\xb3\":2}"},
		{"[18446744073709551616,-9223372036854775809,0,-1]",
		 "[18446744073709551616,-9223372036854775809,0,-1]"},
		{"{}", "{}"},
		{"[]", "[]"},
		{"{\"a\":{\"a\":{}},\"aa\":[]}", "{\"a\":{\"a\":{}},\"aa\":[]}"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		ck_assert_str_eq(canonical(table[i][0]), table[i][1]);
		/* What is canonical stays as it is. */
		ck_assert_str_eq(canonical(table[i][1]), table[i][1]);
	}
}
END_TEST

START_TEST(refused)
{
	static const char *const table[][2] = {
		{"", "expected a value"},
		{" ", "expected a value"},
		{"{", "string"},
		{"{\"a\"}", "expected a colon"},
		{"{\"a\":1,}", "string"},
		{"[1,]", "expected a value"},
		{"[1 2]", "expected a comma"},
		{"1 2", "something behind the value"},
		{"tru", "expected a value"},
		{"nul", "expected a value"},
		{"{\"a\":1,\"a\":2}", "a key that stands twice"},
		{"{\"a\":1,\"\\u0061\":2}", "a key that stands twice"},
		{"1.0", "not an integer"},
		{"1e3", "not an integer"},
		{"01", "another spelling"},
		{"-0", "another spelling"},
		{"+1", "expected a value"},
		{"-", "expected a value"},
		{"\"\\ud83d\"", ""},
		{"\"\\ude00\"", ""},
		{"\"\\ud83d\\u0041\"", ""},
		{"\"\\x\"", "an escape that JSON does not have"},
		{"\"\\u12g4\"", ""},
		{"\"a", ""},
		{"\"a\nb\"", ""},
		{"\"\xff\"", ""},
		{"\"\xc0\x80\"", ""},
		{"\"\xed\xa0\x80\"", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		ck_assert_msg(read_text(table[i][0]) == -EBADMSG, "%s", table[i][0]);
		ck_assert_msg(strstr(why, table[i][1]), "%s: %s", table[i][0], why);
		ck_assert_uint_le(at, strlen(table[i][0]));
	}
}
END_TEST

START_TEST(depth)
{
	for (int by = -1; by <= 1; by++) {
		const unsigned n = (unsigned)((int)JSON_DEPTH_MAX + by);
		char text[2 * JSON_DEPTH_MAX + 8];

		memset(text, '[', n);
		memset(text + n, ']', n);
		text[2 * n] = '\0';
		ck_assert_int_eq(read_text(text), by > 0 ? -EBADMSG : 0);
	}
}
END_TEST

START_TEST(document_size)
{
	_cleanup_free_ char *text = malloc(JSON_DOCUMENT_MAX + 1);

	memset(text, 'x', JSON_DOCUMENT_MAX + 1);
	for (int by = -1; by <= 1; by++) {
		const size_t len = (size_t)((int)JSON_DOCUMENT_MAX + by);

		text[0] = text[len - 1] = '"';
		ck_assert_int_eq(json_document_read(doc, text, len, &why, &at),
				 by > 0 ? -E2BIG : 0);
		text[len - 1] = 'x';
	}
}
END_TEST

START_TEST(members)
{
	const struct json_node *root;
	struct wire_text text;
	uint64_t v;

	ck_assert_int_eq(read_text("{\"s\":\"x\\ny\",\"n\":18446744073709551615,\"m\":-1,"
				   "\"big\":18446744073709551616,\"o\":{\"k\":7}}"),
			 0);
	root = json_document_root(doc);
	ck_assert(json_member_string(doc, root, "s", &text));
	ck_assert(text.len == 3 && memcmp(text.data, "x\ny", 3) == 0);
	ck_assert(!json_member_string(doc, root, "n", &text));
	ck_assert(!json_member_string(doc, root, "none", &text));
	ck_assert(json_member_uint(doc, root, "n", &v) && v == UINT64_MAX);
	ck_assert(!json_member_uint(doc, root, "m", &v));
	ck_assert(!json_member_uint(doc, root, "big", &v));
	ck_assert(json_member_uint(doc, json_member(doc, root, "o"), "k", &v) && v == 7);
	ck_assert_ptr_null(json_member(doc, NULL, "k"));
	ck_assert_ptr_null(json_member(doc, json_member(doc, root, "s"), "k"));
}
END_TEST

/* At each size: all of it, or -ENOBUFS and never a byte too many. */
START_TEST(writer_never_overflows)
{
	static const char want[] = "{\"a\":18446744073709551615,\"b\":-9223372036854775808,"
				   "\"c\":\"\\u0001\\n\xc3\xa9\",\"d\":[true,null]}";

	for (size_t size = 0; size <= sizeof(want); size++) {
		char *out = malloc(size + 1);
		struct json_writer w;
		size_t len = 0;
		int r;

		out[size] = '#';
		json_writer_init(&w, out, size);
		json_put_begin_object(&w);
		json_put_kv_uint(&w, "a", UINT64_MAX);
		json_put_kv_int(&w, "b", INT64_MIN);
		json_put_kv_string(&w, "c", "\x01\n\xc3\xa9");
		json_put_key(&w, "d");
		json_put_begin_array(&w);
		json_put_bool(&w, true);
		json_put_null(&w);
		json_put_end_array(&w);
		json_put_end_object(&w);
		r = json_writer_done(&w, &len);
		ck_assert_int_eq(r, size < sizeof(want) - 1 ? -ENOBUFS : 0);
		if (r == 0)
			ck_assert(len == sizeof(want) - 1 && memcmp(out, want, len) == 0);
		ck_assert_int_eq(out[size], '#');
		free(out);
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("json");

	tcase_add_checked_fixture(tc, open_document, close_document);
	tcase_add_test(tc, canonical_form);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, depth);
	tcase_add_test(tc, document_size);
	tcase_add_test(tc, members);
	tcase_add_test(tc, writer_never_overflows);
	return unit_run("json", &tc, 1);
}
