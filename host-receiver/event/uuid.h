/* SPDX-License-Identifier: MIT */
/*
 * Random UUIDs (RFC 9562 version 4), from getrandom(2) a page at a time. One source a thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_SIZE	16u
#define UUID_STRING_MAX 37u

struct uuid_source {
	size_t used; /* bytes of the pool; 0 at first */
	uint8_t pool[4096];
};

void uuid_generate(struct uuid_source *source, uint8_t ret[static UUID_SIZE]);
void uuid_format(const uint8_t uuid[static UUID_SIZE], char ret[static UUID_STRING_MAX]);
/* Exactly what uuid_format() writes; false, and *ret undefined, for anything else. */
bool uuid_parse(const char *s, uint8_t ret[static UUID_SIZE]);
