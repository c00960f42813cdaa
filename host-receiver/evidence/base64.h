/* SPDX-License-Identifier: MIT */
/*
 * Strict base64: each value has exactly one text. libsodium's decoder checks the padding and the
 * unused bits, but it accepts some bytes outside ASCII as letters of the alphabet (1.0.18 treats
 * them as negative numbers). So this function checks the bytes first. Static inline; safe on any
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sodium.h>

/* Decode all of text into at most size bytes. variant: sodium_base64_VARIANT_*. */
static inline bool base64_decode(const char *text, size_t len, int variant, uint8_t *out,
				 size_t size, size_t *ret_len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] & 0x80)
			return false;
	return sodium_base642bin(out, size, text, len, NULL, ret_len, NULL, variant) == 0;
}
