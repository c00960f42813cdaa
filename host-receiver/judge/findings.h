/* SPDX-License-Identifier: MIT */
/*
 * The findings of verify: for each kind their number and the first few places, and the exit status
 * that they mean. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"

/* In the order in which they decide the exit status. */
enum finding {
	FINDING_BAD,
	FINDING_FORKED,
	FINDING_UNVERIFIABLE,
	FINDING_UNPROVABLE,
	FINDING_UNSIGNED,
	FINDING_MISSING,
	FINDING_ROLLED_BACK,
	FINDING_OPEN,
	_FINDING_MAX,
};

/* Exit statuses of verify. */
enum verdict {
	VERDICT_INTACT = 0,
	VERDICT_BAD = 1,
	VERDICT_UNVERIFIABLE = 2,
	VERDICT_MISSING = 3,
	VERDICT_OPEN = 4,
	VERDICT_NOTHING = 5,
};

#define FINDINGS_WHY_MAX    320u
#define FINDINGS_PLACES_MAX 5u

/* Where a finding is: a line of an input; line 0 means the whole input. */
struct place {
	const char *file; /* borrowed: it lives as long as the inputs' list */
	uint64_t line;
};

struct findings {
	uint64_t count[_FINDING_MAX];
	uint64_t notes[_FINDING_MAX]; /* how many of them count no record */
	struct finding_place {
		struct place at;
		char why[FINDINGS_WHY_MAX];
	} places[_FINDING_MAX][FINDINGS_PLACES_MAX];
	unsigned n_places[_FINDING_MAX];
};

/* Add n records with the same reason; at is the place of the first. */
void findings_add(struct findings *findings, enum finding finding, uint64_t n, struct place at,
		  const char *fmt, ...) _printf_(5, 6);
/* About what is no record (a checkpoint, a segment's first line, a torn line), or about records
 * that another finding counts. */
void findings_add_note(struct findings *findings, enum finding finding, uint64_t n, struct place at,
		       const char *fmt, ...) _printf_(5, 6);

const char *finding_name(enum finding finding);	     /* "rolled back" */
const char *finding_json_name(enum finding finding); /* "rolledBack" */
enum verdict finding_verdict(enum finding finding);
