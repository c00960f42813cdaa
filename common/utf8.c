/* SPDX-License-Identifier: MIT */
#include "common/utf8.h"

#include <stdint.h>
#include <string.h>

static bool continuation(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

/* RFC 3629 section 4: the range of the second byte excludes overlong forms and surrogates. */
size_t utf8_char(const char *data, size_t len)
{
	const uint8_t *p = (const uint8_t *)data;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	if (p[0] < 0xe0)
		return len >= 2 && continuation(p[1]) ? 2 : 0;
	if (p[0] < 0xf0) {
		uint8_t low = p[0] == 0xe0 ? 0xa0 : 0x80, high = p[0] == 0xed ? 0x9f : 0xbf;

		return len >= 3 && p[1] >= low && p[1] <= high && continuation(p[2]) ? 3 : 0;
	} else {
		uint8_t low = p[0] == 0xf0 ? 0x90 : 0x80, high = p[0] == 0xf4 ? 0x8f : 0xbf;

		return len >= 4 && p[1] >= low && p[1] <= high && continuation(p[2]) &&
				       continuation(p[3])
			       ? 4
			       : 0;
	}
}

bool utf8_valid(const char *data, size_t len)
{
	while (len > 0) {
		size_t n;
		uint64_t word;

		/* Eight bytes at a time: nearly all text is ASCII. */
		while (len >= sizeof(word)) {
			memcpy(&word, data, sizeof(word));
			if (word & UINT64_C(0x8080808080808080))
				break;
			data += sizeof(word);
			len -= sizeof(word);
		}
		if (len == 0)
			break;
		n = utf8_char(data, len);
		if (n == 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

size_t utf8_sanitize(const char *data, size_t len, char *out, size_t size)
{
	static const char replacement[] = {'\xef', '\xbf', '\xbd'};
	size_t used = 0;

	while (len > 0) {
		size_t n = utf8_char(data, len);
		const char *from = n ? data : replacement;
		size_t take = n ? n : sizeof(replacement), step = n ? n : 1;

		if (take > size - used)
			break;
		memcpy(out + used, from, take);
		used += take;
		data += step;
		len -= step;
	}
	return used;
}

size_t utf8_cut(const char *data, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && continuation((uint8_t)data[max]))
		max--;
	return max;
}
