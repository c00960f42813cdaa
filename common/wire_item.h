/* SPDX-License-Identifier: MIT */
/*
 * The items of a CBOR body one after another, by libcbor's streaming decoder (RFC 8949). It checks
 * that each item is well-formed, not where it stands; wire_decode.c does that. No allocation; any
 * thread.
 */
#pragma once

#include "common/wire.h"

enum wire_item_kind {
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

struct wire_item {
	enum wire_item_kind kind;
	bool indefinite;
	uint64_t value; /* integer, bool, or the count of a container */
	struct wire_text text;
	size_t offset; /* where it begins in the body */
};

struct wire_reader {
	const uint8_t *body;
	size_t len, offset;
};

/* The next item. False: the body ends, or the bytes are not well-formed. */
bool wire_reader_next(struct wire_reader *r, struct wire_item *ret);
