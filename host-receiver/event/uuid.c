/* SPDX-License-Identifier: MIT */
#include "host-receiver/event/uuid.h"

#include <string.h>

#include <sodium.h>

void uuid_generate(struct uuid_source *source, uint8_t ret[static UUID_SIZE])
{
	if (source->used == 0 || source->used == sizeof(source->pool)) {
		/* Aborts rather than give anything that is not random. */
		randombytes_buf(source->pool, sizeof(source->pool));
		source->used = 0;
	}
	memcpy(ret, source->pool + source->used, UUID_SIZE);
	source->used += UUID_SIZE;
	ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x40);
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

void uuid_format(const uint8_t uuid[static UUID_SIZE], char ret[static UUID_STRING_MAX])
{
	static const char hex[] = "0123456789abcdef";
	static const uint8_t places[UUID_SIZE] = {0,  2,  4,  6,  9,  11, 14, 16,
						  19, 21, 24, 26, 28, 30, 32, 34};

	for (size_t i = 0; i < UUID_SIZE; i++) {
		ret[places[i]] = hex[uuid[i] >> 4];
		ret[places[i] + 1] = hex[uuid[i] & 15];
	}
	ret[8] = ret[13] = ret[18] = ret[23] = '-';
	ret[UUID_STRING_MAX - 1] = '\0';
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *s, uint8_t ret[static UUID_SIZE])
{
	for (size_t i = 0; i < UUID_SIZE; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *s++ != '-')
			return false;
		high = hex_value(*s);
		low = high < 0 ? -1 : hex_value(s[1]);
		if (low < 0)
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
		s += 2;
	}
	return *s == '\0';
}
