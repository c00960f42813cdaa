/* SPDX-License-Identifier: MIT */
/*
 * Is this the evidence that was signed, and is all of it there? Takes lines one by one, in the
 * order in which they stand, and keeps what it must know of each stream; memory grows with the
 * number of streams, never with the number of lines.
 *
 * What a forger might try and what becomes of it: a changed byte, a moved kid or algorithm, an
 * envelope whose attributes differ from the event's -> bad. A record without a signature does not
 * fill a hole: it counts for another stream than the signed ones. No I/O; not shared between
 * threads.
 */
#pragma once

#include "host-receiver/sign/keyring.h"

enum finding {
	FINDING_BAD,	      /* malformed, or the signature is wrong */
	FINDING_UNVERIFIABLE, /* no key for its kid */
	FINDING_UNSIGNED,
	FINDING_MISSING, /* a hole, a repetition, a wrong order, no beginning, after the end */
	FINDING_OPEN,	 /* a stream without a seal, but without a hole */
	_FINDING_MAX,
};

#define VERIFIER_WHY_MAX    256u
#define VERIFIER_PLACES_MAX 5u /* places kept of each kind */

struct verifier_place {
	char *file; /* owned */
	uint64_t line;
	char why[VERIFIER_WHY_MAX];
};

struct verifier_result {
	uint64_t records, verified;
	uint64_t streams, complete;
	uint64_t count[_FINDING_MAX];
	struct verifier_place places[_FINDING_MAX][VERIFIER_PLACES_MAX];
};

struct verifier;

/* ring is borrowed. NULL when there is no memory. */
struct verifier *verifier_new(const struct keyring *ring);
void verifier_free(struct verifier *v);

/* One line without its '\n'. file is borrowed for the call. Returns 0 or -ENOMEM. */
int verifier_line(struct verifier *v, const char *file, uint64_t number, const char *line,
		  size_t len);

/* A record that could not even be read as a line: too long, or cut off. */
void verifier_bad(struct verifier *v, const char *file, uint64_t number, const char *why);

/* After the last line: judge the streams. Borrowed until verifier_free(). */
const struct verifier_result *verifier_finish(struct verifier *v);

const char *finding_name(enum finding finding);
