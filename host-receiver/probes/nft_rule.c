/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/nft_rule.h"

#include "common/utf8.h"
#include "common/util.h"

#define JSON_SCRATCH 1024u

/* A text that is cut when its buffer is full. */
struct text {
	const struct json_document *doc;
	char *buf;
	size_t len;
	bool cut;
};

static void put(struct text *t, const char *data, size_t len)
{
	const size_t room = NFT_RULE_MAX - t->len;

	t->cut |= len > room;
	memcpy(t->buf + t->len, data, MIN(len, room));
	t->len += MIN(len, room);
}

static void put_str(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

static void put_node_text(struct text *t, const struct json_node *node)
{
	put(t, node->text.data, node->text.len);
}

/* Write any value as JSON. */
static void put_json(struct text *t, const struct json_node *node)
{
	char scratch[JSON_SCRATCH];
	struct json_writer w;

	json_writer_init(&w, scratch, sizeof(scratch));
	json_write_canonical(t->doc, node, &w);
	put(t, scratch, w.len);
	t->cut |= w.overflow;
}

/* The only member of an object, or NULL. */
static const struct json_node *only_member(const struct text *t, const struct json_node *node)
{
	const struct json_node *member =
		node->type == JSON_OBJECT_NODE ? json_child(t->doc, node) : NULL;

	return member && !json_sibling(t->doc, member) ? member : NULL;
}

static bool key_is(const struct json_node *node, const char *key)
{
	return node->key.len == strlen(key) && memcmp(node->key.data, key, node->key.len) == 0;
}

static void put_expression(struct text *t, const struct json_node *node);

static void put_list(struct text *t, const struct json_node *array, const char *separator)
{
	const struct json_node *first = json_child(t->doc, array);

	for (const struct json_node *n = first; n; n = json_sibling(t->doc, n)) {
		if (n != first)
			put_str(t, separator);
		put_expression(t, n);
	}
}

/* The named members in this order, with this text between them; false: one is missing. */
static bool put_members(struct text *t, const struct json_node *node, const char *first,
			const char *between, const char *second)
{
	const struct json_node *a = json_member(t->doc, node, first);
	const struct json_node *b = json_member(t->doc, node, second);

	if (!a || !b)
		return false;
	put_expression(t, a);
	put_str(t, between);
	put_expression(t, b);
	return true;
}

/* {"meta": {"key": ..}}: some keys are written without the word "meta". */
static bool put_meta(struct text *t, const struct json_node *meta)
{
	static const char *const bare[] = {"iif", "oif", "iifname", "oifname"};
	struct wire_text key;

	if (!json_member_string(t->doc, meta, "key", &key))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(bare); i++)
		if (key.len == strlen(bare[i]) && memcmp(key.data, bare[i], key.len) == 0) {
			put(t, key.data, key.len);
			return true;
		}
	put_str(t, "meta ");
	put(t, key.data, key.len);
	return true;
}

static bool put_ct(struct text *t, const struct json_node *ct)
{
	const struct json_node *direction = json_member(t->doc, ct, "dir");
	const struct json_node *key = json_member(t->doc, ct, "key");

	if (!key || key->type != JSON_STRING_NODE)
		return false;
	put_str(t, "ct ");
	if (direction) {
		put_expression(t, direction);
		put_str(t, " ");
	}
	put_expression(t, key);
	return true;
}

static bool put_set(struct text *t, const struct json_node *set)
{
	if (set->type != JSON_ARRAY_NODE)
		return false;
	put_str(t, "{ ");
	put_list(t, set, ", ");
	put_str(t, " }");
	return true;
}

static bool put_range(struct text *t, const struct json_node *range)
{
	if (range->type != JSON_ARRAY_NODE)
		return false;
	put_list(t, range, "-");
	return true;
}

static bool put_payload(struct text *t, const struct json_node *payload)
{
	return put_members(t, payload, "protocol", " ", "field");
}

static bool put_prefix(struct text *t, const struct json_node *prefix)
{
	return put_members(t, prefix, "addr", "/", "len");
}

/* {"&": [..]} and the like. */
static bool put_binary(struct text *t, const struct json_node *operands)
{
	char between[8];

	if (operands->type != JSON_ARRAY_NODE || operands->key.len > 2)
		return false;
	snprintf(between, sizeof(between), " %.*s ", (int)operands->key.len, operands->key.data);
	put_str(t, "(");
	put_list(t, operands, between);
	put_str(t, ")");
	return true;
}

/* The two sides of a comparison. */
static void put_expression(struct text *t, const struct json_node *node)
{
	static const struct {
		const char *key;
		bool (*put)(struct text *t, const struct json_node *node);
	} forms[] = {
		{"payload", put_payload}, {"meta", put_meta},	  {"ct", put_ct},
		{"set", put_set},	  {"prefix", put_prefix}, {"range", put_range},
		{"&", put_binary},	  {"|", put_binary},	  {"^", put_binary},
	};
	const struct json_node *member = only_member(t, node);

	if (node->type == JSON_STRING_NODE || node->type == JSON_INTEGER_NODE) {
		put_node_text(t, node);
		return;
	}
	if (node->type == JSON_ARRAY_NODE) {
		put_list(t, node, ",");
		return;
	}
	for (size_t i = 0; member && i < ARRAY_SIZE(forms); i++)
		if (key_is(member, forms[i].key) && forms[i].put(t, member))
			return;
	put_json(t, node);
}

static bool put_match(struct text *t, const struct json_node *match)
{
	const struct json_node *left = json_member(t->doc, match, "left");
	const struct json_node *right = json_member(t->doc, match, "right");
	struct wire_text op;

	if (!left || !right || !json_member_string(t->doc, match, "op", &op))
		return false;
	put_expression(t, left);
	put_str(t, " ");
	/* These two are the default and are not written. */
	if (!(op.len == 2 && (memcmp(op.data, "==", 2) == 0 || memcmp(op.data, "in", 2) == 0))) {
		put(t, op.data, op.len);
		put_str(t, " ");
	}
	put_expression(t, right);
	return true;
}

static bool put_counter(struct text *t, const struct json_node *counter)
{
	put_str(t, "counter");
	if (counter->type == JSON_STRING_NODE) {
		put_str(t, " name ");
		put_node_text(t, counter);
	}
	return true;
}

static bool put_target(struct text *t, const struct json_node *verdict)
{
	const struct json_node *target = json_member(t->doc, verdict, "target");

	if (!target || target->type != JSON_STRING_NODE)
		return false;
	put(t, verdict->key.data, verdict->key.len);
	put_str(t, " ");
	put_node_text(t, target);
	return true;
}

/* {"mangle": {"key": .., "value": ..}} */
static bool put_mangle(struct text *t, const struct json_node *mangle)
{
	return put_members(t, mangle, "key", " set ", "value");
}

/*
 * A statement that has only plain members is written as its name and their names and values: "limit
 * burst 5 per second rate 5".
 */
static bool put_plain(struct text *t, const struct json_node *object)
{
	if (object->type != JSON_OBJECT_NODE)
		return false;
	for (const struct json_node *n = json_child(t->doc, object); n; n = json_sibling(t->doc, n))
		if (n->type != JSON_STRING_NODE && n->type != JSON_INTEGER_NODE)
			return false;
	put(t, object->key.data, object->key.len);
	for (const struct json_node *n = json_child(t->doc, object); n;
	     n = json_sibling(t->doc, n)) {
		put_str(t, " ");
		put(t, n->key.data, n->key.len);
		put_str(t, " ");
		put_node_text(t, n);
	}
	return true;
}

static void put_statement(struct text *t, const struct json_node *node)
{
	static const struct {
		const char *key;
		bool (*put)(struct text *t, const struct json_node *node);
	} forms[] = {
		{"match", put_match}, {"counter", put_counter}, {"jump", put_target},
		{"goto", put_target}, {"mangle", put_mangle},
	};
	const struct json_node *member = only_member(t, node);

	if (!member) {
		put_json(t, node);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		if (key_is(member, forms[i].key) && forms[i].put(t, member))
			return;
	if (put_plain(t, member))
		return;
	put(t, member->key.data, member->key.len);
	if (member->type == JSON_NULL_NODE)
		return;
	put_str(t, " ");
	put_json(t, member);
}

size_t nft_rule_format(const struct json_document *doc, const struct json_node *expr,
		       char buf[static NFT_RULE_MAX])
{
	static const char dots[] = "...";
	struct text t = {.doc = doc, .buf = buf};

	for (const struct json_node *n = expr ? json_child(doc, expr) : NULL; n;
	     n = json_sibling(doc, n)) {
		if (t.len > 0)
			put_str(&t, " ");
		put_statement(&t, n);
	}
	if (t.cut) {
		t.len = utf8_cut(buf, t.len, NFT_RULE_MAX - (sizeof(dots) - 1));
		put_str(&t, dots);
	}
	return t.len;
}
