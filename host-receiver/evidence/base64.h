/* SPDX-License-Identifier: MIT */
/*
 * Strict base64: every text has one meaning, every meaning one text. libsodium's decoder checks the
 * padding and the bits that are left over, but takes some bytes beyond ASCII for characters of the
 * alphabet (1.0.18 looks at them as negative numbers). Static inline; safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sodium.h>

/* The whole of text, at most size bytes. variant: sodium_base64_VARIANT_*. */
static inline bool base64_decode(const char *text, size_t len, int variant, uint8_t *out,
				 size_t size, size_t *ret_len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] & 0x80)
			return false;
	return sodium_base642bin(out, size, text, len, NULL, ret_len, NULL, variant) == 0;
}
