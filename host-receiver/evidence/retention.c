/* SPDX-License-Identifier: MIT */
/*
 * Retention: see retention.h.
 */
#include "host-receiver/evidence/retention.h"

#include "common/util.h"
#include "host-receiver/evidence/recover.h"
#include "host-receiver/evidence/segment.h"

/* total: the bytes of this segment and of all later ones. */
static bool may_go(const struct evidence_limits *limits, uint64_t floor,
		   const struct folder_segment *segment, uint64_t total)
{
	if (limits->retain_size_hard > 0 && total > limits->retain_size_hard)
		return true;
	return total > limits->retain_size && segment->number < floor;
}

size_t retention_choose(const struct folder *folder, const struct evidence_limits *limits,
			uint64_t floor, uint64_t noticed, struct evidence_notice *ret)
{
	const struct folder_segment *s = folder->segments;
	uint64_t total = folder_bytes(folder);
	size_t n = 0;

	*ret = (struct evidence_notice){.kind = EVIDENCE_PRUNE};
	while (n + 1 < folder->n && may_go(limits, floor, &s[n], total) &&
	       strcmp(s[n].origin, s[0].origin) == 0) {
		ret->hard |= s[n].number >= floor;
		total -= s[n].size;
		ret->bytes += s[n].size;
		ret->segment = s[n++].number;
	}
	if (n == 0 || ret->segment <= noticed)
		return 0;
	ret->segments = n;
	memcpy(ret->origin, s[0].origin, sizeof(ret->origin));
	ret->first_index = s[n].first_index;
	if (strcmp(s[n].origin, s[0].origin) != 0 &&
	    recover_end_of_segment(folder, s[n - 1].number, &ret->first_index) < 0)
		return 0;
	return n;
}

size_t retention_unlink(struct folder *folder, uint64_t last, int *ret_error)
{
	size_t n = 0;

	*ret_error = 0;
	while (n + 1 < folder->n && folder->segments[n].number <= last) {
		char name[SEGMENT_NAME_MAX];

		segment_format_name(folder->segments[n].number, name);
		if (unlinkat(folder->fd, name, 0) < 0 && errno != ENOENT) {
			*ret_error = -errno;
			break;
		}
		n++;
	}
	if (n > 0 && fsync(folder->fd) < 0)
		*ret_error = -errno;
	folder_drop_oldest(folder, n);
	return n;
}
