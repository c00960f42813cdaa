/* SPDX-License-Identifier: MIT */
/*
 * Reads the sources and judges them with all processors. The calling thread reads lines into
 * batches and hands the batches' facts to the verifier in the order of the lines; the crew's
 * threads find out the facts. Memory is bounded by the number of batches.
 *
 * A batch belongs to one thread at a time: free (caller) -> filled (a crew's thread) -> done
 * (caller) -> free.
 */
#pragma once

#include "host-receiver/judge/sources.h"
#include "host-receiver/judge/verifier.h"

#define CREW_THREADS_MAX 8u

struct crew_options {
	const struct keyring *ring;
	unsigned threads; /* 0: as many as there are processors */
	/* Called now and then with the bytes that were read so far. NULL: nobody asks. */
	void (*progress)(void *data, uint64_t bytes);
	void *data;
};

/* Returns 0, or a negative errno with a sentence in why that names the source. */
int crew_judge(const struct crew_options *options, const struct sources *sources,
	       struct verifier *verifier, char why[SOURCES_WHY_MAX]);
