/* SPDX-License-Identifier: MIT */
#include "guest-agent/renumber.h"

#include <string.h>

#include "common/wire.h"

/* Of the three kinds of head that the encoder writes, texts alone have a content after it. */
#define MAJOR(p)   ((p)[0] & 0xe0)
#define MAJOR_TEXT 0x60
#define MAJOR_MAP  0xa0

struct rewrite {
	const uint8_t *from;
	uint8_t *to;
};

/* Bytes of a head, and its value. */
static size_t read_head(const uint8_t *p, uint64_t *ret)
{
	const unsigned info = p[0] & 0x1f;
	const size_t n = info < 24 ? 0 : (size_t)1 << (info - 24);

	*ret = info < 24 ? info : 0;
	for (size_t i = 0; i < n; i++)
		*ret = *ret << 8 | p[1 + i];
	return 1 + n;
}

static size_t write_head(uint8_t *p, uint64_t v)
{
	const size_t n = v < 24		   ? 0
			 : v <= UINT8_MAX  ? 1
			 : v <= UINT16_MAX ? 2
			 : v <= UINT32_MAX ? 4
					   : 8;

	p[0] = (uint8_t)(n == 0 ? v : n == 1 ? 24 : n == 2 ? 25 : n == 4 ? 26 : 27);
	for (size_t i = 0; i < n; i++)
		p[1 + i] = (uint8_t)(v >> (8 * (n - 1 - i)));
	return 1 + n;
}

/* One item, without what a map holds. */
static void copy_item(struct rewrite *r)
{
	uint64_t value;
	size_t n = read_head(r->from, &value);

	if (MAJOR(r->from) == MAJOR_TEXT)
		n += (size_t)value;
	memmove(r->to, r->from, n);
	r->from += n;
	r->to += n;
}

static int is_key(const uint8_t *item, const char *key)
{
	const size_t len = strlen(key);

	return item[0] == (MAJOR_TEXT | len) && memcmp(item + 1, key, len) == 0;
}

void renumber_range(uint64_t *first, uint64_t *last, uint64_t by)
{
	if (*last <= by) {
		*first = *last = 0;
		return;
	}
	*first = *first > by ? *first - by : 1;
	*last -= by;
}

/* The detail map of a receipt stands at r->from. first_seq comes before last_seq. */
static void renumber_details(struct rewrite *r, uint64_t by)
{
	uint64_t pairs, first = 0, last, value;
	uint8_t *first_to = NULL;

	read_head(r->from, &pairs);
	copy_item(r);
	for (; pairs > 0; pairs--) {
		const int is_first = is_key(r->from, "first_seq");
		const int is_last = is_key(r->from, "last_seq");

		copy_item(r);
		if (!is_first && !is_last) {
			copy_item(r);
			continue;
		}
		r->from += read_head(r->from, &value);
		if (is_first) {
			first = value;
			first_to = r->to;
			/* Its width is known once the last one is: leave room for both. */
			r->to += write_head(r->to, value);
			continue;
		}
		last = value;
		renumber_range(&first, &last, by);
		if (first_to) {
			const size_t key = 1 + strlen("last_seq");
			uint8_t *key_at = r->to - key, *to = first_to + write_head(first_to, first);

			memmove(to, key_at, key);
			r->to = to + key;
		}
		r->to += write_head(r->to, last);
	}
}

size_t renumber_frame(uint8_t *frame, size_t len, uint64_t by)
{
	const size_t pairs_before = 5;
	struct rewrite r = {.from = frame + WIRE_PREFIX_SIZE + 1,
			    .to = frame + WIRE_PREFIX_SIZE + 1};
	const uint8_t *end = frame + len;
	size_t body;
	uint64_t seq;

	for (size_t i = 0; i < 2 * pairs_before + 1; i++)
		copy_item(&r);
	r.from += read_head(r.from, &seq);
	r.to += write_head(r.to, seq - by);
	if (r.from < end) {
		copy_item(&r);
		renumber_details(&r, by);
	}
	body = (size_t)(r.to - frame) - WIRE_PREFIX_SIZE;
	for (size_t i = 0; i < WIRE_PREFIX_SIZE; i++)
		frame[i] = (uint8_t)(body >> (8 * i));
	return len - (size_t)(r.to - frame);
}
