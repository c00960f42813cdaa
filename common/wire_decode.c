/* SPDX-License-Identifier: MIT */
/*
 * Frame -> declaration, by libcbor's streaming decoder: one item a call, no allocation.
 *
 * Two passes. The first walks the whole body once: it must be one well-formed map within the
 * limits of depth and pairs. On the way it remembers where the values of the known keys stand.
 * Then comes the version gate, before any other field means anything. A body beyond the limits is
 * walked once more without them, because the gate comes before them, too. Only then are the
 * remembered values read, each where it stands: so the order of the keys never matters, and a
 * frame of another major version is refused as such whatever else is in it.
 */
#include "common/wire.h"

#include <string.h>

#include <cbor.h>

#include "common/utf8.h"
#include "common/util.h"

enum item_kind {
	ITEM_UINT,
	ITEM_NEGATIVE,
	ITEM_BYTES,
	ITEM_TEXT,
	ITEM_ARRAY,
	ITEM_MAP,
	ITEM_TAG,
	ITEM_BOOL,
	ITEM_OTHER, /* float, null, undefined, other simple values */
	ITEM_BREAK,
};

struct item {
	enum item_kind kind;
	bool indefinite;
	uint64_t value; /* integer, bool, or the count of a container */
	struct wire_text text;
	size_t offset; /* of its head in the body */
};

/* ---- one item a call ---- */

static void item_set(void *ctx, enum item_kind kind, uint64_t value)
{
	struct item *item = ctx;

	item->kind = kind;
	item->value = value;
}

/* libcbor has a callback for each width of an integer; the width means nothing here. */
#define ON_INTEGER(name, type, kind)                                                               \
	static void name(void *ctx, type v)                                                        \
	{                                                                                          \
		item_set(ctx, kind, v);                                                            \
	}
ON_INTEGER(on_uint8, uint8_t, ITEM_UINT)
ON_INTEGER(on_uint16, uint16_t, ITEM_UINT)
ON_INTEGER(on_uint32, uint32_t, ITEM_UINT)
ON_INTEGER(on_uint64, uint64_t, ITEM_UINT)
ON_INTEGER(on_negint8, uint8_t, ITEM_NEGATIVE)
ON_INTEGER(on_negint16, uint16_t, ITEM_NEGATIVE)
ON_INTEGER(on_negint32, uint32_t, ITEM_NEGATIVE)
ON_INTEGER(on_negint64, uint64_t, ITEM_NEGATIVE)
ON_INTEGER(on_tag, uint64_t, ITEM_TAG)
#undef ON_INTEGER

static void on_string(void *ctx, cbor_data data, size_t len)
{
	struct item *item = ctx;

	item_set(ctx, ITEM_TEXT, len);
	item->text = (struct wire_text){.data = (const char *)data, .len = len};
}

static void on_bytes(void *ctx, cbor_data data, size_t len)
{
	(void)data;
	item_set(ctx, ITEM_BYTES, len);
}

static void indefinite(void *ctx, enum item_kind kind)
{
	struct item *item = ctx;

	item_set(ctx, kind, 0);
	item->indefinite = true;
}

static void on_string_start(void *ctx)
{
	indefinite(ctx, ITEM_TEXT);
}

static void on_bytes_start(void *ctx)
{
	indefinite(ctx, ITEM_BYTES);
}

static void on_array_start(void *ctx, size_t n)
{
	item_set(ctx, ITEM_ARRAY, n);
}

static void on_map_start(void *ctx, size_t n)
{
	item_set(ctx, ITEM_MAP, n);
}

static void on_indef_array_start(void *ctx)
{
	indefinite(ctx, ITEM_ARRAY);
}

static void on_indef_map_start(void *ctx)
{
	indefinite(ctx, ITEM_MAP);
}

static void on_float(void *ctx, float v)
{
	(void)v;
	item_set(ctx, ITEM_OTHER, 0);
}

static void on_double(void *ctx, double v)
{
	(void)v;
	item_set(ctx, ITEM_OTHER, 0);
}

static void on_simple(void *ctx)
{
	item_set(ctx, ITEM_OTHER, 0);
}

static void on_bool(void *ctx, bool v)
{
	item_set(ctx, ITEM_BOOL, v);
}

static void on_break(void *ctx)
{
	item_set(ctx, ITEM_BREAK, 0);
}

static const struct cbor_callbacks item_callbacks = {
	.uint8 = on_uint8,
	.uint16 = on_uint16,
	.uint32 = on_uint32,
	.uint64 = on_uint64,
	.negint8 = on_negint8,
	.negint16 = on_negint16,
	.negint32 = on_negint32,
	.negint64 = on_negint64,
	.byte_string = on_bytes,
	.byte_string_start = on_bytes_start,
	.string = on_string,
	.string_start = on_string_start,
	.array_start = on_array_start,
	.indef_array_start = on_indef_array_start,
	.map_start = on_map_start,
	.indef_map_start = on_indef_map_start,
	.tag = on_tag,
	.float2 = on_float,
	.float4 = on_float,
	.float8 = on_double,
	.undefined = on_simple,
	.null = on_simple,
	.boolean = on_bool,
	.indef_break = on_break,
};

struct reader {
	const uint8_t *body;
	size_t len, offset;
};

/*
 * Simple values that nobody has assigned (RFC 8949 section 3.3) are well-formed; libcbor refuses
 * them, and an unknown field may hold any well-formed value. Returns their bytes, or 0.
 */
static size_t unassigned_simple(const struct reader *r)
{
	const uint8_t *p = r->body + r->offset;

	if (p[0] >= 0xe0 && p[0] <= 0xf3)
		return 1;
	if (p[0] == 0xf8 && r->len - r->offset >= 2 && p[1] >= 32)
		return 2;
	return 0;
}

/* Of the tags that fit into their first byte (0..23) libcbor 0.8 refuses most. */
static bool is_one_byte_tag(uint8_t head)
{
	return head >= 0xc0 && head <= 0xd7;
}

static bool reader_next(struct reader *r, struct item *ret)
{
	struct cbor_decoder_result result;
	size_t simple;

	*ret = (struct item){.offset = r->offset};
	if (r->offset >= r->len)
		return false;
	if (is_one_byte_tag(r->body[r->offset])) {
		ret->kind = ITEM_TAG;
		r->offset++;
		return true;
	}
	simple = unassigned_simple(r);
	if (simple > 0) {
		ret->kind = ITEM_OTHER;
		r->offset += simple;
		return true;
	}
	result = cbor_stream_decode(r->body + r->offset, r->len - r->offset, &item_callbacks, ret);
	if (result.status != CBOR_DECODER_FINISHED)
		return false;
	r->offset += result.read;
	return true;
}

/* ---- refusals ---- */

static enum wire_error refuse(struct wire_refusal *refusal, enum wire_error error,
			      const char *field, size_t offset)
{
	*refusal = (struct wire_refusal){.error = error, .field = field, .offset = offset};
	return error;
}

/* ---- pass one: well-formed, within limits; where the known values stand ---- */

enum field {
	FIELD_CONTENT_VERSION,
	FIELD_PROBE_SOURCE,
	FIELD_GUEST_PID,
	FIELD_GUEST_COMM,
	FIELD_GUEST_MONOTONIC_NS,
	FIELD_SEQ,
	FIELD_DETAIL,
	_FIELD_MAX,
	_FIELD_UNKNOWN = -1,
};

#define T(literal)                                                                                 \
	{                                                                                          \
		literal, sizeof(literal) - 1                                                       \
	}

static const struct wire_text field_names[] = {
	[FIELD_CONTENT_VERSION] = T("content_version"),
	[FIELD_PROBE_SOURCE] = T("probe_source"),
	[FIELD_GUEST_PID] = T("guest_pid"),
	[FIELD_GUEST_COMM] = T("guest_comm"),
	[FIELD_GUEST_MONOTONIC_NS] = T("guest_monotonic_ns"),
	[FIELD_SEQ] = T("seq"),
	[FIELD_DETAIL] = T("detail"),
};
_Static_assert(ARRAY_SIZE(field_names) == _FIELD_MAX, "a name for each field");

static enum field field_from_name(struct wire_text name)
{
	for (int i = 0; i < _FIELD_MAX; i++)
		if (field_names[i].len == name.len &&
		    memcmp(field_names[i].data, name.data, name.len) == 0)
			return (enum field)i;
	return _FIELD_UNKNOWN;
}

struct outline {
	struct item value[_FIELD_MAX];
	bool present[_FIELD_MAX];
	size_t duplicate_at[_FIELD_MAX]; /* 0: none; a key never stands at byte 0 */
	size_t bad_key_at;		 /* a key that is no text; 0: none */
	size_t indefinite_key_at;	 /* 0: none */
	bool indefinite;		 /* the map itself */
};

/* One open container. Text and byte strings of indefinite length hold chunks of their own kind. */
struct level {
	uint8_t kind; /* enum item_kind */
	bool indefinite;
	uint32_t left; /* items still to come; counted upwards from 0 when indefinite */
};

/* How deep and how wide a walk may go. */
struct limits {
	struct level *stack;
	size_t depth; /* of containers; the stack has room for one string more */
	uint64_t pairs;
};

/* A container that announces more than this is cut off by the end of the body. */
#define ITEMS_MAX (WIRE_BODY_ACCEPT_MAX + 1u)

static enum wire_error level_open(const struct limits *limits, size_t *depth,
				  const struct item *item, struct wire_refusal *refusal)
{
	const uint64_t items = MIN(item->value, (uint64_t)ITEMS_MAX);
	struct level *level;

	/* The chunks of a string are no nesting. */
	if (*depth == limits->depth + (item->kind == ITEM_TEXT || item->kind == ITEM_BYTES))
		return refuse(refusal, WIRE_TOO_DEEP, NULL, item->offset);
	if (item->kind == ITEM_MAP && !item->indefinite && item->value > limits->pairs)
		return refuse(refusal, WIRE_TOO_MANY_PAIRS, NULL, item->offset);
	level = &limits->stack[(*depth)++];
	*level = (struct level){
		.kind = (uint8_t)item->kind,
		.indefinite = item->indefinite,
		.left = (uint32_t)(item->indefinite	    ? 0
				   : item->kind == ITEM_MAP ? items * 2
							    : items),
	};
	return WIRE_OK;
}

/* A break ends the innermost indefinite container; a map must not end between key and value. */
static bool level_break(const struct level *stack, size_t depth, bool after_tag)
{
	const struct level *level;

	if (depth == 0 || after_tag)
		return false;
	level = &stack[depth - 1];
	return level->indefinite && !(level->kind == ITEM_MAP && level->left % 2 == 1);
}

static bool chunk_fits(const struct level *level, const struct item *item)
{
	if (level->kind != ITEM_TEXT && level->kind != ITEM_BYTES)
		return true;
	return item->kind == level->kind && !item->indefinite;
}

/* The field that a key at the top names, or unknown; what is wrong with the key is noted. */
static enum field note_key(struct outline *outline, const struct item *key)
{
	enum field field;

	if (key->kind != ITEM_TEXT) {
		if (outline->bad_key_at == 0)
			outline->bad_key_at = key->offset;
		return _FIELD_UNKNOWN;
	}
	if (key->indefinite) {
		if (outline->indefinite_key_at == 0)
			outline->indefinite_key_at = key->offset;
		return _FIELD_UNKNOWN;
	}
	field = field_from_name(key->text);
	if (field != _FIELD_UNKNOWN && outline->present[field]) {
		if (outline->duplicate_at[field] == 0)
			outline->duplicate_at[field] = key->offset;
		return _FIELD_UNKNOWN;
	}
	return field;
}

/*
 * Walk the one data item that starts at r->offset to its end. With an outline, it is the body's
 * map, and its keys and values are noted. Every item is read once: linear time, constant stack.
 */
static enum wire_error walk_within(const struct limits *limits, struct reader *r,
				   struct outline *outline, struct wire_refusal *refusal)
{
	struct level *stack = limits->stack;
	enum field field = _FIELD_UNKNOWN;
	bool after_tag = false;
	size_t depth = 0;

	do {
		struct item item;
		struct level *parent = depth > 0 ? &stack[depth - 1] : NULL;
		const bool at_top = outline && depth == 1 && !after_tag;
		const bool is_key = parent && parent->kind == ITEM_MAP && parent->left % 2 == 0;

		if (!reader_next(r, &item))
			return refuse(refusal, WIRE_MALFORMED_CBOR, NULL, item.offset);
		if (item.kind == ITEM_BREAK) {
			if (!level_break(stack, depth, after_tag))
				return refuse(refusal, WIRE_MALFORMED_CBOR, NULL, item.offset);
			depth--;
			goto close;
		}
		if (parent && !chunk_fits(parent, &item))
			return refuse(refusal, WIRE_MALFORMED_CBOR, NULL, item.offset);
		if (at_top && is_key) {
			field = note_key(outline, &item);
		} else if (at_top && field != _FIELD_UNKNOWN) {
			outline->present[field] = true;
			outline->value[field] = item;
		}

		if (item.kind == ITEM_TAG) {
			/* A tag belongs to the item after it; it is no item of its own. */
			after_tag = true;
			continue;
		}
		after_tag = false;
		if (parent) {
			if (parent->indefinite) {
				parent->left++;
				if (parent->kind == ITEM_MAP && parent->left > 2 * limits->pairs)
					return refuse(refusal, WIRE_TOO_MANY_PAIRS, NULL,
						      item.offset);
			} else {
				parent->left--;
			}
		}
		if (item.kind == ITEM_ARRAY || item.kind == ITEM_MAP || item.indefinite) {
			enum wire_error error = level_open(limits, &depth, &item, refusal);

			if (error)
				return error;
		}
	close:
		while (depth > 0 && !stack[depth - 1].indefinite && stack[depth - 1].left == 0)
			depth--;
	} while (depth > 0 || after_tag);
	return WIRE_OK;
}

static enum wire_error walk(struct reader *r, struct outline *outline, struct wire_refusal *refusal)
{
	struct level stack[WIRE_DEPTH_MAX + 1];
	const struct limits limits = {stack, WIRE_DEPTH_MAX, WIRE_PAIRS_MAX};

	return walk_within(&limits, r, outline, refusal);
}

/*
 * The same for a body that broke a limit: is it one well-formed map all the same, and of which
 * version? Every container takes a byte of the body, so the stack holds whatever there is.
 */
__attribute__((noinline)) static bool outline_unlimited(const uint8_t *body, size_t len,
							struct outline *ret)
{
	struct level stack[WIRE_BODY_ACCEPT_MAX + 1];
	const struct limits limits = {stack, WIRE_BODY_ACCEPT_MAX, UINT64_MAX / 2};
	struct reader r = {.body = body, .len = len};
	struct wire_refusal ignored;

	*ret = (struct outline){0};
	return walk_within(&limits, &r, ret, &ignored) == WIRE_OK && r.offset == len;
}

static enum wire_error outline_body(const uint8_t *body, size_t len, struct outline *ret,
				    struct wire_refusal *refusal)
{
	struct reader r = {.body = body, .len = len};
	struct reader first = r;
	struct item top;
	enum wire_error error;

	if (!reader_next(&first, &top))
		return refuse(refusal, WIRE_MALFORMED_CBOR, NULL, 0);
	if (top.kind != ITEM_MAP) {
		/* Nonsense and an item of another type are told apart. */
		error = walk(&r, NULL, refusal);
		return error ? error : refuse(refusal, WIRE_NOT_A_MAP, NULL, 0);
	}
	ret->indefinite = top.indefinite;
	error = walk(&r, ret, refusal);
	if (error)
		return error;
	if (r.offset != len) {
		/* Nonsense behind the map is nonsense; a second item is one too many. */
		const size_t end = r.offset;

		if (walk(&r, NULL, refusal) == WIRE_MALFORMED_CBOR)
			return WIRE_MALFORMED_CBOR;
		return refuse(refusal, WIRE_TRAILING_BYTES, NULL, end);
	}
	return WIRE_OK;
}

/* ---- pass two: types and ranges ---- */

static enum wire_error want_uint(const struct item *item, const char *field, uint64_t min,
				 uint64_t max, uint64_t *ret, struct wire_refusal *refusal)
{
	if (item->kind != ITEM_UINT)
		return refuse(refusal, WIRE_BAD_TYPE, field, item->offset);
	if (item->value < min || item->value > max)
		return refuse(refusal, WIRE_OUT_OF_RANGE, field, item->offset);
	*ret = item->value;
	return WIRE_OK;
}

static enum wire_error want_text(const struct item *item, const char *field, size_t min, size_t max,
				 struct wire_text *ret, struct wire_refusal *refusal)
{
	if (item->kind != ITEM_TEXT)
		return refuse(refusal, WIRE_BAD_TYPE, field, item->offset);
	if (item->indefinite)
		return refuse(refusal, WIRE_INDEFINITE_LENGTH, field, item->offset);
	if (item->text.len < min || item->text.len > max)
		return refuse(refusal, WIRE_OUT_OF_RANGE, field, item->offset);
	if (!utf8_valid(item->text.data, item->text.len))
		return refuse(refusal, WIRE_INVALID_UTF8, field, item->offset);
	*ret = item->text;
	return WIRE_OK;
}

static enum wire_error read_detail_value(struct reader *r, enum wire_key key, struct declaration *d,
					 struct wire_refusal *refusal)
{
	const char *name = wire_key_name(key);
	struct wire_detail *detail = &d->details[d->n_details];
	struct item item;
	enum wire_error error = WIRE_OK;

	if (!reader_next(r, &item))
		return refuse(refusal, WIRE_MALFORMED_CBOR, name, item.offset);
	detail->key = key;
	detail->type = wire_key_type(key);
	switch (detail->type) {
	case WIRE_TYPE_UINT:
		error = want_uint(&item, name, 0, UINT64_MAX, &detail->uint, refusal);
		break;
	case WIRE_TYPE_TEXT:
		error = want_text(&item, name, 0, WIRE_DETAIL_TEXT_MAX, &detail->text, refusal);
		break;
	case WIRE_TYPE_BOOL:
		if (item.kind != ITEM_BOOL)
			error = refuse(refusal, WIRE_BAD_TYPE, name, item.offset);
		detail->boolean = item.value;
		break;
	case _WIRE_TYPE_MAX: break;
	}
	if (error == WIRE_OK)
		d->n_details++;
	return error;
}

static enum wire_error check_values(const struct declaration *d, const size_t *value_at,
				    struct wire_refusal *refusal)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (!wire_detail_allowed(d, &d->details[i]))
			return refuse(refusal, WIRE_OUT_OF_RANGE, wire_key_name(d->details[i].key),
				      value_at[i]);
	return WIRE_OK;
}

/*
 * The detail map stands at map->offset and is known to be well-formed. Keys that its source does
 * not have are skipped with whatever they hold: a guest must not add a field to the evidence.
 */
static enum wire_error read_details(const uint8_t *body, size_t len, const struct item *map,
				    struct declaration *d, struct wire_refusal *refusal)
{
	struct reader r = {.body = body, .len = len, .offset = map->offset};
	size_t value_at[WIRE_DETAIL_PAIRS_MAX];
	uint64_t seen = 0, missing;
	struct item item;

	if (map->kind != ITEM_MAP)
		return refuse(refusal, WIRE_BAD_TYPE, "detail", map->offset);
	if (map->indefinite)
		return refuse(refusal, WIRE_INDEFINITE_LENGTH, "detail", map->offset);
	if (map->value > WIRE_DETAIL_PAIRS_MAX)
		return refuse(refusal, WIRE_TOO_MANY_PAIRS, "detail", map->offset);
	if (!reader_next(&r, &item))
		return refuse(refusal, WIRE_MALFORMED_CBOR, "detail", map->offset);
	for (uint64_t i = 0; i < map->value; i++) {
		enum wire_key key;
		enum wire_error error;

		if (!reader_next(&r, &item))
			return refuse(refusal, WIRE_MALFORMED_CBOR, "detail", item.offset);
		if (item.kind != ITEM_TEXT)
			return refuse(refusal, WIRE_BAD_TYPE, "detail", item.offset);
		if (item.indefinite)
			return refuse(refusal, WIRE_INDEFINITE_LENGTH, "detail", item.offset);
		key = wire_key_from_name(d->source, item.text);
		if (key == _WIRE_KEY_INVALID) {
			error = walk(&r, NULL, refusal);
		} else if (seen & (UINT64_C(1) << key)) {
			return refuse(refusal, WIRE_DUPLICATE_FIELD, wire_key_name(key),
				      item.offset);
		} else {
			seen |= UINT64_C(1) << key;
			value_at[d->n_details] = r.offset;
			error = read_detail_value(&r, key, d, refusal);
		}
		if (error)
			return error;
	}
	missing = wire_source_required(d->source) & ~seen;
	if (missing)
		return refuse(refusal, WIRE_MISSING_FIELD,
			      wire_key_name((enum wire_key)__builtin_ctzll(missing)), map->offset);
	return check_values(d, value_at, refusal);
}

static enum wire_error gate_version(const struct outline *outline, struct wire_refusal *refusal)
{
	const struct item *version = &outline->value[FIELD_CONTENT_VERSION];

	if (!outline->present[FIELD_CONTENT_VERSION] || version->kind != ITEM_UINT ||
	    version->value > UINT16_MAX || wire_major(version->value) == WIRE_MAJOR)
		return WIRE_OK;
	refuse(refusal, WIRE_UNSUPPORTED_VERSION, field_names[FIELD_CONTENT_VERSION].data,
	       version->offset);
	refusal->content_version = (uint16_t)version->value;
	return WIRE_UNSUPPORTED_VERSION;
}

/* What is wrong with the map as a map, in this order. seq and detail are unknown before minor 2. */
static enum wire_error check_outline(const struct outline *outline, enum field n_known,
				     struct wire_refusal *refusal)
{
	if (outline->indefinite || outline->indefinite_key_at)
		return refuse(refusal, WIRE_INDEFINITE_LENGTH, NULL, outline->indefinite_key_at);
	if (outline->bad_key_at)
		return refuse(refusal, WIRE_BAD_TYPE, NULL, outline->bad_key_at);
	for (int i = 0; i < (int)n_known; i++)
		if (outline->duplicate_at[i])
			return refuse(refusal, WIRE_DUPLICATE_FIELD, field_names[i].data,
				      outline->duplicate_at[i]);
	for (int i = 0; i <= FIELD_GUEST_MONOTONIC_NS; i++)
		if (!outline->present[i])
			return refuse(refusal, WIRE_MISSING_FIELD, field_names[i].data, 0);
	return WIRE_OK;
}

static enum wire_error read_fields(const uint8_t *body, size_t len, const struct outline *outline,
				   struct declaration *d, struct wire_refusal *refusal)
{
	const struct item *value = outline->value;
	struct wire_text source;
	uint64_t version, pid;
	enum wire_error error;

	error = want_uint(&value[FIELD_CONTENT_VERSION], "content_version", 0, UINT16_MAX, &version,
			  refusal);
	if (error)
		return error;
	error = check_outline(
		outline, wire_minor(version) >= wire_minor(WIRE_VERSION_2) ? _FIELD_MAX : FIELD_SEQ,
		refusal);
	if (error)
		return error;
	error = want_text(&value[FIELD_PROBE_SOURCE], "probe_source", 1, WIRE_SOURCE_MAX, &source,
			  refusal);
	if (error)
		return error;
	error = want_uint(&value[FIELD_GUEST_PID], "guest_pid", 0, UINT32_MAX, &pid, refusal);
	if (error)
		return error;
	error = want_text(&value[FIELD_GUEST_COMM], "guest_comm", 0, WIRE_COMM_MAX, &d->guest_comm,
			  refusal);
	if (error)
		return error;
	error = want_uint(&value[FIELD_GUEST_MONOTONIC_NS], "guest_monotonic_ns", 0,
			  WIRE_MONOTONIC_MAX, &d->guest_monotonic_ns, refusal);
	if (error)
		return error;
	d->content_version = (uint16_t)version;
	d->guest_pid = (uint32_t)pid;
	d->source = wire_source_from_name(source);
	if (wire_minor(version) >= wire_minor(WIRE_VERSION_2) && outline->present[FIELD_SEQ]) {
		error = want_uint(&value[FIELD_SEQ], "seq", 1, WIRE_SEQ_MAX, &d->seq, refusal);
		if (error)
			return error;
	}
	if (d->source == _WIRE_SOURCE_INVALID) {
		refuse(refusal, WIRE_UNKNOWN_SOURCE, "probe_source",
		       value[FIELD_PROBE_SOURCE].offset);
		refusal->source = source;
		refusal->seq = d->seq;
		return WIRE_UNKNOWN_SOURCE;
	}
	if (!wire_source_is_numbered(d->source))
		d->seq = 0;
	if (wire_minor(version) < wire_minor(WIRE_VERSION_2) || !outline->present[FIELD_DETAIL])
		return WIRE_OK;
	return read_details(body, len, &value[FIELD_DETAIL], d, refusal);
}

uint32_t wire_decode_length(const uint8_t prefix[static WIRE_PREFIX_SIZE])
{
	return (uint32_t)prefix[0] | (uint32_t)prefix[1] << 8 | (uint32_t)prefix[2] << 16 |
	       (uint32_t)prefix[3] << 24;
}

enum wire_error wire_decode(const uint8_t *body, size_t len, struct declaration *ret,
			    struct wire_refusal *refusal)
{
	struct outline outline = {0};
	struct declaration d;
	enum wire_error error;

	if (len < 1 || len > WIRE_BODY_ACCEPT_MAX)
		return refuse(refusal, WIRE_FRAME_LENGTH, NULL, 0);
	error = outline_body(body, len, &outline, refusal);
	if ((error == WIRE_TOO_DEEP || error == WIRE_TOO_MANY_PAIRS) &&
	    outline_unlimited(body, len, &outline) && gate_version(&outline, refusal))
		return WIRE_UNSUPPORTED_VERSION;
	if (error)
		return error;
	error = gate_version(&outline, refusal);
	if (error)
		return error;
	if (!outline.present[FIELD_CONTENT_VERSION])
		return refuse(refusal, WIRE_MISSING_FIELD, field_names[FIELD_CONTENT_VERSION].data,
			      0);
	d.seq = 0;
	d.n_details = 0;
	error = read_fields(body, len, &outline, &d, refusal);
	if (error)
		return error;
	*ret = d;
	return WIRE_OK;
}
