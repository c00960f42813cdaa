/* SPDX-License-Identifier: MIT */
/*
 * Decodes a frame's body into a declaration, in two passes.
 *
 * The first pass walks through the whole body: it must be one well-formed map within the limits of
 * depth and pairs. The pass notes the places of the known keys' values. Then the version is
 * checked, before any other field has a meaning. A body beyond the limits is walked through again
 * without them, because the version is checked first there too. The second pass reads the values
 * at the noted places. So the order of the keys does not matter, and a frame of another major
 * version is refused for its version, whatever else it has.
 */
#include "common/wire_item.h"

#include <string.h>

#include "common/utf8.h"
#include "common/util.h"

/* ---- refusals ---- */

static enum wire_error refuse(struct wire_refusal *refusal, enum wire_error error,
			      const char *field, size_t offset)
{
	*refusal = (struct wire_refusal){.error = error, .field = field, .offset = offset};
	return error;
}

/* ---- pass one: the form, the limits, and the places of known values ---- */

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
	struct wire_item value[_FIELD_MAX];
	bool present[_FIELD_MAX];
	size_t duplicate_at[_FIELD_MAX]; /* 0: none; no key is at byte 0 */
	size_t bad_key_at;		 /* a key that is no text; 0: none */
	size_t indefinite_key_at;	 /* 0: none */
	bool indefinite;		 /* the map itself */
};

/* One open container. Text and byte strings of indefinite length hold chunks of their own kind. */
struct level {
	uint8_t kind; /* enum item_kind */
	bool indefinite;
	uint32_t left; /* items that are left; counted upwards from 0 when indefinite */
};

/* The limits of a walk. */
struct limits {
	struct level *stack;
	size_t depth; /* of containers; the stack has room for one more, a string */
	uint64_t pairs;
};

/* A container that announces more items than this is longer than any body. */
#define ITEMS_MAX (WIRE_BODY_ACCEPT_MAX + 1u)

static enum wire_error level_open(const struct limits *limits, size_t *depth,
				  const struct wire_item *item, struct wire_refusal *refusal)
{
	const uint64_t items = MIN(item->value, (uint64_t)ITEMS_MAX);
	struct level *level;

	/* The chunks of a string do not count as a nested container. */
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

/*
 * A break ends the innermost container, which must be indefinite. A map must not end between key
 * and value.
 */
static bool level_break(const struct level *stack, size_t depth, bool after_tag)
{
	const struct level *level;

	if (depth == 0 || after_tag)
		return false;
	level = &stack[depth - 1];
	return level->indefinite && !(level->kind == ITEM_MAP && level->left % 2 == 1);
}

static bool chunk_fits(const struct level *level, const struct wire_item *item)
{
	if (level->kind != ITEM_TEXT && level->kind != ITEM_BYTES)
		return true;
	return item->kind == level->kind && !item->indefinite;
}

/* The field that a top-level key names, or FIELD_UNKNOWN. Errors of the key are noted. */
static enum field note_key(struct outline *outline, const struct wire_item *key)
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
 * Walk to the end of the data item that starts at r->offset. With an outline, the item is the
 * body's map, and its keys and values are noted. Each item is read once: linear time, constant
 * stack.
 */
static enum wire_error walk_within(const struct limits *limits, struct wire_reader *r,
				   struct outline *outline, struct wire_refusal *refusal)
{
	struct level *stack = limits->stack;
	enum field field = _FIELD_UNKNOWN;
	bool after_tag = false;
	size_t depth = 0;

	do {
		struct wire_item item;
		struct level *parent = depth > 0 ? &stack[depth - 1] : NULL;
		const bool at_top = outline && depth == 1 && !after_tag;
		const bool is_key = parent && parent->kind == ITEM_MAP && parent->left % 2 == 0;

		if (!wire_reader_next(r, &item))
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
			/* A tag belongs to the next item and is not counted. */
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

static enum wire_error walk(struct wire_reader *r, struct outline *outline,
			    struct wire_refusal *refusal)
{
	struct level stack[WIRE_DEPTH_MAX + 1];
	const struct limits limits = {stack, WIRE_DEPTH_MAX, WIRE_PAIRS_MAX};

	return walk_within(&limits, r, outline, refusal);
}

/*
 * The same for a body beyond the limits: is it still one well-formed map, and of which version?
 * Every container takes at least one byte of the body, so the stack is large enough.
 */
__attribute__((noinline)) static bool outline_unlimited(const uint8_t *body, size_t len,
							struct outline *ret)
{
	struct level stack[WIRE_BODY_ACCEPT_MAX + 1];
	const struct limits limits = {stack, WIRE_BODY_ACCEPT_MAX, UINT64_MAX / 2};
	struct wire_reader r = {.body = body, .len = len};
	struct wire_refusal ignored;

	*ret = (struct outline){0};
	return walk_within(&limits, &r, ret, &ignored) == WIRE_OK && r.offset == len;
}

static enum wire_error outline_body(const uint8_t *body, size_t len, struct outline *ret,
				    struct wire_refusal *refusal)
{
	struct wire_reader r = {.body = body, .len = len};
	struct wire_reader first = r;
	struct wire_item top;
	enum wire_error error;

	if (!wire_reader_next(&first, &top))
		return refuse(refusal, WIRE_MALFORMED_CBOR, NULL, 0);
	if (top.kind != ITEM_MAP) {
		/* Report malformed bytes and a well-formed item of another type differently. */
		error = walk(&r, NULL, refusal);
		return error ? error : refuse(refusal, WIRE_NOT_A_MAP, NULL, 0);
	}
	ret->indefinite = top.indefinite;
	error = walk(&r, ret, refusal);
	if (error)
		return error;
	if (r.offset != len) {
		/*
		 * Malformed bytes after the map are malformed CBOR; a second item is trailing
		 * bytes.
		 */
		const size_t end = r.offset;

		if (walk(&r, NULL, refusal) == WIRE_MALFORMED_CBOR)
			return WIRE_MALFORMED_CBOR;
		return refuse(refusal, WIRE_TRAILING_BYTES, NULL, end);
	}
	return WIRE_OK;
}

/* ---- pass two: types and ranges ---- */

static enum wire_error want_uint(const struct wire_item *item, const char *field, uint64_t min,
				 uint64_t max, uint64_t *ret, struct wire_refusal *refusal)
{
	if (item->kind != ITEM_UINT)
		return refuse(refusal, WIRE_BAD_TYPE, field, item->offset);
	if (item->value < min || item->value > max)
		return refuse(refusal, WIRE_OUT_OF_RANGE, field, item->offset);
	*ret = item->value;
	return WIRE_OK;
}

static enum wire_error want_text(const struct wire_item *item, const char *field, size_t min,
				 size_t max, struct wire_text *ret, struct wire_refusal *refusal)
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

static enum wire_error read_detail_value(struct wire_reader *r, enum wire_key key,
					 struct declaration *d, struct wire_refusal *refusal)
{
	const char *name = wire_key_name(key);
	struct wire_detail *detail = &d->details[d->n_details];
	struct wire_item item;
	enum wire_error error = WIRE_OK;

	if (!wire_reader_next(r, &item))
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
 * Read the detail map at map->offset, which is known to be well-formed. Keys that its source does
 * not have are skipped with their values: a guest must not add a field to the evidence.
 */
static enum wire_error read_details(const uint8_t *body, size_t len, const struct wire_item *map,
				    struct declaration *d, struct wire_refusal *refusal)
{
	struct wire_reader r = {.body = body, .len = len, .offset = map->offset};
	size_t value_at[WIRE_DETAIL_PAIRS_MAX];
	uint64_t seen = 0, missing;
	struct wire_item item;

	if (map->kind != ITEM_MAP)
		return refuse(refusal, WIRE_BAD_TYPE, "detail", map->offset);
	if (map->indefinite)
		return refuse(refusal, WIRE_INDEFINITE_LENGTH, "detail", map->offset);
	if (map->value > WIRE_DETAIL_PAIRS_MAX)
		return refuse(refusal, WIRE_TOO_MANY_PAIRS, "detail", map->offset);
	if (!wire_reader_next(&r, &item))
		return refuse(refusal, WIRE_MALFORMED_CBOR, "detail", map->offset);
	for (uint64_t i = 0; i < map->value; i++) {
		enum wire_key key;
		enum wire_error error;

		if (!wire_reader_next(&r, &item))
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
	const struct wire_item *version = &outline->value[FIELD_CONTENT_VERSION];

	if (!outline->present[FIELD_CONTENT_VERSION] || version->kind != ITEM_UINT ||
	    version->value > UINT16_MAX || wire_major(version->value) == WIRE_MAJOR)
		return WIRE_OK;
	refuse(refusal, WIRE_UNSUPPORTED_VERSION, field_names[FIELD_CONTENT_VERSION].data,
	       version->offset);
	refusal->content_version = (uint16_t)version->value;
	return WIRE_UNSUPPORTED_VERSION;
}

/* Check the map itself, in this order. seq and detail are unknown before minor version 2. */
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
	const struct wire_item *value = outline->value;
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
