/* SPDX-License-Identifier: MIT */
/*
 * Encodes a declaration into a frame. The agent is static and links no library, so it writes CBOR
 * itself; it needs three kinds of heads only (RFC 8949 section 3). Tests compare the bytes with
 * libcbor's.
 */
#include "common/wire.h"

#include <string.h>

#include "common/util.h"

enum cbor_major {
	CBOR_UINT = 0x00,
	CBOR_TEXT = 0x60,
	CBOR_MAP = 0xa0,
	CBOR_FALSE = 0xf4,
	CBOR_TRUE = 0xf5,
};

/* An overflow is remembered and checked once at the end, so that the calls need no checks. */
struct cursor {
	uint8_t *at, *end;
	bool overflow;
};

static void put_bytes(struct cursor *c, const void *data, size_t len)
{
	if (len > (size_t)(c->end - c->at)) {
		c->overflow = true;
		return;
	}
	if (len > 0)
		memcpy(c->at, data, len);
	c->at += len;
}

/* The shortest head that holds the value (RFC 8949 section 4.2.1). */
static void put_head(struct cursor *c, enum cbor_major major, uint64_t value)
{
	uint8_t head[9];
	size_t n = value < 24		 ? 0
		   : value <= UINT8_MAX	 ? 1
		   : value <= UINT16_MAX ? 2
		   : value <= UINT32_MAX ? 4
					 : 8;
	const uint8_t size_code = n == 1 ? 24 : n == 2 ? 25 : n == 4 ? 26 : 27;

	head[0] = (uint8_t)(major | (n == 0 ? (uint8_t)value : size_code));
	for (size_t i = 0; i < n; i++)
		head[1 + i] = (uint8_t)(value >> (8 * (n - 1 - i)));
	put_bytes(c, head, 1 + n);
}

static void put_text(struct cursor *c, const char *data, size_t len)
{
	put_head(c, CBOR_TEXT, len);
	put_bytes(c, data, len);
}

static void put_key(struct cursor *c, const char *key)
{
	put_text(c, key, strlen(key));
}

static void put_bool(struct cursor *c, bool value)
{
	const uint8_t byte = value ? CBOR_TRUE : CBOR_FALSE;

	put_bytes(c, &byte, 1);
}

static void put_details(struct cursor *c, const struct declaration *d)
{
	put_head(c, CBOR_MAP, d->n_details);
	for (size_t i = 0; i < d->n_details; i++) {
		const struct wire_detail *detail = &d->details[i];

		put_key(c, wire_key_name(detail->key));
		switch (detail->type) {
		case WIRE_TYPE_UINT: put_head(c, CBOR_UINT, detail->uint); break;
		case WIRE_TYPE_TEXT: put_text(c, detail->text.data, detail->text.len); break;
		case WIRE_TYPE_BOOL: put_bool(c, detail->boolean); break;
		case _WIRE_TYPE_MAX: break;
		}
	}
}

int wire_encode(const struct declaration *d, uint8_t *buf, size_t size)
{
	const bool with_seq = d->content_version >= WIRE_VERSION_2 && d->seq > 0;
	const bool with_detail = d->content_version >= WIRE_VERSION_2 && d->n_details > 0;
	struct cursor c = {.at = buf, .end = buf + MIN(size, (size_t)WIRE_FRAME_SEND_MAX)};
	size_t body;

	if (d->source < 0 || d->source >= _WIRE_SOURCE_MAX || d->guest_comm.len > WIRE_COMM_MAX ||
	    d->guest_monotonic_ns > WIRE_MONOTONIC_MAX || d->seq > WIRE_SEQ_MAX ||
	    d->n_details > WIRE_DETAIL_PAIRS_MAX)
		return -EINVAL;

	put_bytes(&c, (uint8_t[WIRE_PREFIX_SIZE]){0}, WIRE_PREFIX_SIZE);
	put_head(&c, CBOR_MAP, 5u + with_seq + with_detail);
	put_key(&c, "content_version");
	put_head(&c, CBOR_UINT, d->content_version);
	put_key(&c, "probe_source");
	put_key(&c, wire_source_name(d->source));
	put_key(&c, "guest_pid");
	put_head(&c, CBOR_UINT, d->guest_pid);
	put_key(&c, "guest_comm");
	put_text(&c, d->guest_comm.data, d->guest_comm.len);
	put_key(&c, "guest_monotonic_ns");
	put_head(&c, CBOR_UINT, d->guest_monotonic_ns);
	if (with_seq) {
		put_key(&c, "seq");
		put_head(&c, CBOR_UINT, d->seq);
	}
	if (with_detail) {
		put_key(&c, "detail");
		put_details(&c, d);
	}
	if (c.overflow)
		return -EMSGSIZE;

	body = (size_t)(c.at - buf) - WIRE_PREFIX_SIZE;
	for (size_t i = 0; i < WIRE_PREFIX_SIZE; i++)
		buf[i] = (uint8_t)(body >> (8 * i));
	return (int)(c.at - buf);
}
