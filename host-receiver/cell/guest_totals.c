/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/guest_totals.h"

#include "common/util.h"

static const enum wire_key keys[] = {
	[GUEST_OBSERVED] = WIRE_KEY_OBSERVED,
	[GUEST_SENT] = WIRE_KEY_SENT,
	[GUEST_DROPPED] = WIRE_KEY_DROPPED,
	[GUEST_KERNEL_LOST] = WIRE_KEY_KERNEL_LOST,
};
_Static_assert(ARRAY_SIZE(keys) == _GUEST_TOTAL_MAX, "a key for each total");

static const struct wire_detail *find(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return &d->details[i];
	return NULL;
}

const char *guest_totals_note(struct guest_totals *t, const struct declaration *d)
{
	const char *lie = NULL;

	for (int i = 0; i < _GUEST_TOTAL_MAX; i++) {
		const struct wire_detail *total = find(d, keys[i]);
		uint64_t more;

		if (!total)
			continue;
		if (total->uint < t->said[i] && !t->fresh) {
			lie = wire_key_name(keys[i]);
			continue;
		}
		/* An agent that was started again counts from 0. */
		more = total->uint < t->said[i] ? total->uint : total->uint - t->said[i];
		t->said[i] = total->uint;
		add_saturated(&t->grown[i], more);
		if (!t->baseline)
			add_saturated(&t->counted[i], more);
	}
	t->fresh = t->baseline = false;
	return lie;
}
