/* SPDX-License-Identifier: MIT */
#include "host-receiver/event/json_document.h"

#include "common/utf8.h"
#include "common/util.h"

struct json_document {
	struct json_node *nodes; /* [0] is the root */
	uint32_t n_nodes, nodes_size;
	uint32_t *sort; /* members of the object being closed */
	uint32_t sort_size;
	char *strings; /* unescaped, one after the other */
	size_t max, strings_used;
	/* of the read in progress */
	const char *at, *end;
	const char *why;
};

struct json_document *json_document_new(size_t max)
{
	struct json_document *doc = calloc(1, sizeof(*doc));

	if (!doc)
		return NULL;
	/* Unescaping never makes a text longer, so this is enough for the largest document. */
	doc->max = max;
	doc->strings = malloc(max ? max : 1);
	if (!doc->strings) {
		free(doc);
		return NULL;
	}
	return doc;
}

void json_document_free(struct json_document *doc)
{
	if (!doc)
		return;
	free(doc->nodes);
	free(doc->sort);
	free(doc->strings);
	free(doc);
}

static int fail(struct json_document *doc, const char *why)
{
	doc->why = why;
	return -EBADMSG;
}

static int new_node(struct json_document *doc, uint32_t *ret)
{
	if (doc->n_nodes == doc->nodes_size) {
		uint32_t size = doc->nodes_size ? doc->nodes_size * 2 : 64;
		struct json_node *nodes = reallocarray(doc->nodes, size, sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		doc->nodes = nodes;
		doc->nodes_size = size;
	}
	doc->nodes[doc->n_nodes] = (struct json_node){0};
	*ret = doc->n_nodes++;
	return 0;
}

static void skip_space(struct json_document *doc)
{
	while (doc->at < doc->end &&
	       (*doc->at == ' ' || *doc->at == '\t' || *doc->at == '\n' || *doc->at == '\r'))
		doc->at++;
}

static bool take(struct json_document *doc, char c)
{
	if (doc->at == doc->end || *doc->at != c)
		return false;
	doc->at++;
	return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t read_hex4(struct json_document *doc)
{
	int32_t v = 0;

	if (doc->end - doc->at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = *doc->at++;
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;

		if (digit < 0)
			return -1;
		v = v << 4 | digit;
	}
	return v;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static int read_escape(struct json_document *doc, char *out, size_t *ret_len)
{
	static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
	const char *found;
	int32_t high, low;

	if (doc->at == doc->end)
		return fail(doc, "a string that does not end");
	if (*doc->at != 'u') {
		found = *doc->at ? strchr(plain, *doc->at) : NULL;
		if (!found)
			return fail(doc, "an escape that JSON does not have");
		doc->at++;
		out[0] = meaning[found - plain];
		*ret_len = 1;
		return 0;
	}
	doc->at++;
	high = read_hex4(doc);
	if (high < 0)
		return fail(doc, "\\u without four hexadecimal digits");
	if (high >= 0xdc00 && high <= 0xdfff)
		return fail(doc, "a lone surrogate");
	if (high < 0xd800 || high > 0xdbff) {
		*ret_len = put_utf8(out, (uint32_t)high);
		return 0;
	}
	low = take(doc, '\\') && take(doc, 'u') ? read_hex4(doc) : -1;
	if (low < 0xdc00 || low > 0xdfff)
		return fail(doc, "a lone surrogate");
	*ret_len = put_utf8(out,
			    0x10000u + (((uint32_t)high & 0x3ff) << 10) + ((uint32_t)low & 0x3ff));
	return 0;
}

/*
 * The number of bytes at p that need no unescaping: printable ASCII without quotes and backslashes.
 */
static size_t plain_run(const struct json_document *doc)
{
	const char *at = doc->at;

	while (at < doc->end && *at >= 0x20 && *at < 0x7f && *at != '"' && *at != '\\')
		at++;
	return (size_t)(at - doc->at);
}

static int read_string(struct json_document *doc, struct wire_text *ret)
{
	char *begin = doc->strings + doc->strings_used, *out = begin;

	if (!take(doc, '"'))
		return fail(doc, "expected a string");
	for (;;) {
		size_t n;

		n = plain_run(doc);
		memcpy(out, doc->at, n);
		out += n;
		doc->at += n;
		if (doc->at == doc->end)
			return fail(doc, "a string that does not end");
		if (*doc->at == '"')
			break;
		if (*doc->at == '\\') {
			int r;

			doc->at++;
			r = read_escape(doc, out, &n);
			if (r < 0)
				return r;
			out += n;
			continue;
		}
		if ((unsigned char)*doc->at < 0x20)
			return fail(doc, "a control byte inside a string");
		n = utf8_char(doc->at, (size_t)(doc->end - doc->at));
		if (n == 0)
			return fail(doc, "bytes that are not UTF-8");
		memcpy(out, doc->at, n);
		out += n;
		doc->at += n;
	}
	doc->at++;
	doc->strings_used += (size_t)(out - begin);
	*ret = (struct wire_text){.data = begin, .len = (size_t)(out - begin)};
	return 0;
}

static bool is_digit(const struct json_document *doc)
{
	return doc->at < doc->end && *doc->at >= '0' && *doc->at <= '9';
}

/* Only plain integers are allowed, because they have exactly one spelling. */
static int read_integer(struct json_document *doc, struct json_node *node)
{
	const char *begin = doc->at;
	const bool negative = take(doc, '-');
	const char *digits = doc->at;

	while (is_digit(doc))
		doc->at++;
	if (doc->at == digits)
		return fail(doc, "expected a value");
	if (*digits == '0' && (doc->at - digits > 1 || negative))
		return fail(doc, "a number with another spelling than its canonical one");
	if (doc->at < doc->end && (*doc->at == '.' || *doc->at == 'e' || *doc->at == 'E'))
		return fail(doc, "a number that is not an integer");
	node->type = JSON_INTEGER_NODE;
	node->text = (struct wire_text){.data = begin, .len = (size_t)(doc->at - begin)};
	return 0;
}

static int read_word(struct json_document *doc, const char *word, enum json_type type,
		     struct json_node *node)
{
	const size_t len = strlen(word);

	if ((size_t)(doc->end - doc->at) < len || memcmp(doc->at, word, len) != 0)
		return fail(doc, "expected a value");
	doc->at += len;
	node->type = type;
	return 0;
}

/*
 * RFC 8785 section 3.2.3: by UTF-16 code units. That is the order of the UTF-8 bytes, with one
 * exception: characters beyond U+FFFF (lead bytes F0-F4) come before U+E000..U+FFFF (EE, EF).
 */
int json_compare_keys(struct wire_text a, struct wire_text b)
{
	const size_t common = MIN(a.len, b.len);

	for (size_t i = 0; i < common; i++) {
		const unsigned char x = (unsigned char)a.data[i], y = (unsigned char)b.data[i];

		if (x == y)
			continue;
		if (x >= 0xee && y >= 0xee && (x >= 0xf0) != (y >= 0xf0))
			return x >= 0xf0 ? -1 : 1;
		return x < y ? -1 : 1;
	}
	return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

static int compare_members(const void *a, const void *b, void *ctx)
{
	const struct json_document *doc = ctx;

	return json_compare_keys(doc->nodes[*(const uint32_t *)a].key,
				 doc->nodes[*(const uint32_t *)b].key);
}

/* Put the members into canonical order; usually they have it already. */
static int close_object(struct json_document *doc, uint32_t object, uint32_t n_members)
{
	bool sorted = true;
	uint32_t n = 0;

	for (uint32_t i = doc->nodes[object].first; i && doc->nodes[i].next; i = doc->nodes[i].next)
		if (json_compare_keys(doc->nodes[i].key, doc->nodes[doc->nodes[i].next].key) >= 0)
			sorted = false;
	if (sorted)
		return 0;
	if (doc->sort_size < n_members) {
		uint32_t *sort = reallocarray(doc->sort, n_members, sizeof(*sort));

		if (!sort)
			return -ENOMEM;
		doc->sort = sort;
		doc->sort_size = n_members;
	}
	for (uint32_t i = doc->nodes[object].first; i; i = doc->nodes[i].next)
		doc->sort[n++] = i;
	qsort_r(doc->sort, n, sizeof(*doc->sort), compare_members, doc);
	for (uint32_t i = 1; i < n; i++)
		if (json_compare_keys(doc->nodes[doc->sort[i - 1]].key,
				      doc->nodes[doc->sort[i]].key) == 0)
			return fail(doc, "a key that is twice in an object");
	doc->nodes[object].first = doc->sort[0];
	for (uint32_t i = 0; i < n; i++)
		doc->nodes[doc->sort[i]].next = i + 1 < n ? doc->sort[i + 1] : 0;
	return 0;
}

static int read_value(struct json_document *doc, uint32_t node, unsigned depth);

/* Read the children up to the closing bracket; the opening one was read. */
static int read_children(struct json_document *doc, uint32_t parent, bool object, unsigned depth)
{
	const char closing = object ? '}' : ']';
	uint32_t last = 0, n = 0;

	doc->nodes[parent].type = object ? JSON_OBJECT_NODE : JSON_ARRAY_NODE;
	skip_space(doc);
	if (take(doc, closing))
		return 0;
	for (;;) {
		struct wire_text key = {0};
		uint32_t child;
		int r;

		skip_space(doc);
		if (object) {
			r = read_string(doc, &key);
			if (r < 0)
				return r;
			skip_space(doc);
			if (!take(doc, ':'))
				return fail(doc, "expected a colon");
			skip_space(doc);
		}
		r = new_node(doc, &child);
		if (r == 0)
			r = read_value(doc, child, depth);
		if (r < 0)
			return r;
		doc->nodes[child].key = key;
		if (last)
			doc->nodes[last].next = child;
		else
			doc->nodes[parent].first = child;
		last = child;
		n++;
		skip_space(doc);
		if (take(doc, closing))
			return object ? close_object(doc, parent, n) : 0;
		if (!take(doc, ','))
			return fail(doc, "expected a comma or a closing bracket");
	}
}

/* Recursive, and no deeper than JSON_DEPTH_MAX. */
static int read_value(struct json_document *doc, uint32_t node, unsigned depth)
{
	struct wire_text text;
	int r;

	if (doc->at == doc->end)
		return fail(doc, "expected a value");
	switch (*doc->at) {
	case '{':
	case '[':
		if (depth == JSON_DEPTH_MAX)
			return fail(doc, "nested too deeply");
		doc->at++;
		return read_children(doc, node, doc->at[-1] == '{', depth + 1);
	case '"':
		r = read_string(doc, &text);
		doc->nodes[node].type = JSON_STRING_NODE;
		if (r == 0)
			doc->nodes[node].text = text;
		return r;
	case 't': return read_word(doc, "true", JSON_TRUE_NODE, &doc->nodes[node]);
	case 'f': return read_word(doc, "false", JSON_FALSE_NODE, &doc->nodes[node]);
	case 'n': return read_word(doc, "null", JSON_NULL_NODE, &doc->nodes[node]);
	default: return read_integer(doc, &doc->nodes[node]);
	}
}

int json_document_read(struct json_document *doc, const char *data, size_t len,
		       const char **ret_why, size_t *ret_offset)
{
	uint32_t root;
	int r;

	if (len > doc->max)
		return -E2BIG;
	doc->n_nodes = 0;
	doc->strings_used = 0;
	doc->at = data;
	doc->end = data + len;
	skip_space(doc);
	r = new_node(doc, &root);
	if (r == 0)
		r = read_value(doc, root, 0);
	if (r == 0) {
		skip_space(doc);
		if (doc->at != doc->end)
			r = fail(doc, "something after the value");
	}
	if (r == -EBADMSG) {
		*ret_why = doc->why;
		*ret_offset = (size_t)(doc->at - data);
	}
	return r;
}

int json_document_try(struct json_document *doc, const char *data, size_t len)
{
	const char *why;
	size_t offset;
	int r = json_document_read(doc, data, len, &why, &offset);

	return r == -ENOMEM ? r : r == 0;
}

const struct json_node *json_document_root(const struct json_document *doc)
{
	return &doc->nodes[0];
}

const struct json_node *json_child(const struct json_document *doc, const struct json_node *node)
{
	return node->first ? &doc->nodes[node->first] : NULL;
}

const struct json_node *json_sibling(const struct json_document *doc, const struct json_node *node)
{
	return node->next ? &doc->nodes[node->next] : NULL;
}

const struct json_node *json_member(const struct json_document *doc, const struct json_node *node,
				    const char *key)
{
	const size_t len = strlen(key);

	if (!node || node->type != JSON_OBJECT_NODE)
		return NULL;
	for (uint32_t i = node->first; i; i = doc->nodes[i].next)
		if (doc->nodes[i].key.len == len && memcmp(doc->nodes[i].key.data, key, len) == 0)
			return &doc->nodes[i];
	return NULL;
}

bool json_member_string(const struct json_document *doc, const struct json_node *node,
			const char *key, struct wire_text *ret)
{
	const struct json_node *member = json_member(doc, node, key);

	if (!member || member->type != JSON_STRING_NODE)
		return false;
	*ret = member->text;
	return true;
}

bool json_member_uint(const struct json_document *doc, const struct json_node *node,
		      const char *key, uint64_t *ret)
{
	const struct json_node *member = json_member(doc, node, key);
	char digits[24];

	if (!member || member->type != JSON_INTEGER_NODE || member->text.len >= sizeof(digits))
		return false;
	memcpy(digits, member->text.data, member->text.len);
	digits[member->text.len] = '\0';
	return parse_u64(digits, 0, UINT64_MAX, ret) == 0;
}

void json_write_canonical(const struct json_document *doc, const struct json_node *node,
			  struct json_writer *w)
{
	switch (node->type) {
	case JSON_OBJECT_NODE:
		json_put_begin_object(w);
		for (uint32_t i = node->first; i; i = doc->nodes[i].next) {
			json_put_key_text(w, doc->nodes[i].key);
			json_write_canonical(doc, &doc->nodes[i], w);
		}
		json_put_end_object(w);
		break;
	case JSON_ARRAY_NODE:
		json_put_begin_array(w);
		for (uint32_t i = node->first; i; i = doc->nodes[i].next)
			json_write_canonical(doc, &doc->nodes[i], w);
		json_put_end_array(w);
		break;
	case JSON_STRING_NODE: json_put_string(w, node->text.data, node->text.len); break;
	case JSON_INTEGER_NODE: json_put_raw(w, node->text.data, node->text.len); break;
	case JSON_TRUE_NODE: json_put_bool(w, true); break;
	case JSON_FALSE_NODE: json_put_bool(w, false); break;
	case JSON_NULL_NODE: json_put_null(w); break;
	}
}
