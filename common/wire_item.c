/* SPDX-License-Identifier: MIT */
/*
 * One CBOR item a call: see wire_item.h.
 */
#include "common/wire_item.h"

#include <cbor.h>

static void item_set(void *ctx, enum wire_item_kind kind, uint64_t value)
{
	struct wire_item *item = ctx;

	item->kind = kind;
	item->value = value;
}

/* libcbor has a callback for each width of an integer; here the width does not matter. */
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
	struct wire_item *item = ctx;

	item_set(ctx, ITEM_TEXT, len);
	item->text = (struct wire_text){.data = (const char *)data, .len = len};
}

static void on_bytes(void *ctx, cbor_data data, size_t len)
{
	(void)data;
	item_set(ctx, ITEM_BYTES, len);
}

static void indefinite(void *ctx, enum wire_item_kind kind)
{
	struct wire_item *item = ctx;

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

/*
 * Unassigned simple values (RFC 8949 section 3.3) are well-formed, and an unknown field may have
 * any well-formed value. But libcbor refuses them. Returns the size of such a value, or 0.
 */
static size_t unassigned_simple(const struct wire_reader *r)
{
	const uint8_t *p = r->body + r->offset;

	if (p[0] >= 0xe0 && p[0] <= 0xf3)
		return 1;
	if (p[0] == 0xf8 && r->len - r->offset >= 2 && p[1] >= 32)
		return 2;
	return 0;
}

/* libcbor 0.8 refuses most of the tags 0..23, which fit into one byte. */
static bool is_one_byte_tag(uint8_t head)
{
	return head >= 0xc0 && head <= 0xd7;
}

bool wire_reader_next(struct wire_reader *r, struct wire_item *ret)
{
	struct cbor_decoder_result result;
	size_t simple;

	*ret = (struct wire_item){.offset = r->offset};
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
