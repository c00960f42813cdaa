/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/kept.h"

#include <string.h>

#include "common/util.h"

static void drop_deleted(struct kept *k, uint64_t first)
{
	unsigned gone = 0;

	while (gone < k->n && k->parts[gone].segment < first)
		gone++;
	k->n -= gone;
	memmove(k->parts, k->parts + gone, k->n * sizeof(k->parts[0]));
}

static void merge_oldest(struct kept *k)
{
	k->parts[1].bytes += k->parts[0].bytes;
	k->n--;
	memmove(k->parts, k->parts + 1, k->n * sizeof(k->parts[0]));
}

uint64_t kept_update(struct kept *k, uint64_t bytes, uint64_t segment, uint64_t first)
{
	const uint64_t more = bytes - k->counted;
	uint64_t sum = 0;

	k->counted = bytes;
	if (more > 0 && (k->n == 0 || k->parts[k->n - 1].segment < segment)) {
		if (k->n == KEPT_SEGMENTS_MAX)
			merge_oldest(k);
		k->parts[k->n].segment = segment;
		k->parts[k->n++].bytes = 0;
	}
	if (more > 0)
		k->parts[k->n - 1].bytes += more;
	drop_deleted(k, first);
	for (unsigned i = 0; i < k->n; i++)
		sum += k->parts[i].bytes;
	return sum;
}
