/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/findings.h"

#include <stdarg.h>

static const struct {
	const char *name, *json_name;
	enum verdict verdict;
} kinds[_FINDING_MAX] = {
	[FINDING_BAD] = {"bad", "bad", VERDICT_BAD},
	[FINDING_FORKED] = {"forked", "forked", VERDICT_BAD},
	[FINDING_UNVERIFIABLE] = {"unverifiable", "unverifiable", VERDICT_UNVERIFIABLE},
	[FINDING_UNPROVABLE] = {"unprovable", "unprovable", VERDICT_UNVERIFIABLE},
	[FINDING_UNSIGNED] = {"unsigned", "unsigned", VERDICT_UNVERIFIABLE},
	[FINDING_MISSING] = {"missing", "missing", VERDICT_MISSING},
	[FINDING_ROLLED_BACK] = {"rolled back", "rolledBack", VERDICT_MISSING},
	[FINDING_OPEN] = {"unsealed", "unsealed", VERDICT_OPEN},
};

static _printf_(5, 0) void add(struct findings *findings, enum finding finding, uint64_t n,
			       struct place at, const char *fmt, va_list ap)
{
	struct finding_place *place;

	findings->count[finding] += n;
	if (n == 0 || findings->n_places[finding] == FINDINGS_PLACES_MAX)
		return;
	place = &findings->places[finding][findings->n_places[finding]++];
	place->at = at;
	vsnprintf(place->why, sizeof(place->why), fmt, ap);
	/* Texts of the evidence may contain any bytes, and these go to a terminal. */
	for (char *c = place->why; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
}

void findings_add(struct findings *findings, enum finding finding, uint64_t n, struct place at,
		  const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(findings, finding, n, at, fmt, ap);
	va_end(ap);
}

void findings_add_note(struct findings *findings, enum finding finding, uint64_t n, struct place at,
		       const char *fmt, ...)
{
	va_list ap;

	findings->notes[finding] += n;
	va_start(ap, fmt);
	add(findings, finding, n, at, fmt, ap);
	va_end(ap);
}

const char *finding_name(enum finding finding)
{
	return kinds[finding].name;
}

const char *finding_json_name(enum finding finding)
{
	return kinds[finding].json_name;
}

enum verdict finding_verdict(enum finding finding)
{
	return kinds[finding].verdict;
}
