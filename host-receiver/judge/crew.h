/* SPDX-License-Identifier: MIT */
/*
 * Reads the sources and judges them with all processors. The calling thread reads lines into
 * batches. The crew's threads compute the facts of each line. Then the calling thread passes the
 * facts to the verifier in the order of the lines. The number of batches bounds the memory.
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
	/* Called from time to time with the number of bytes read so far; optional. */
	void (*progress)(void *data, uint64_t bytes);
	void *data;
};

/*
 * Returns 0, or a negative errno with a sentence in why that names the source. -ESTALE: a segment
 * of a folder was deleted after it was listed, so what was read is not what the folder holds now.
 */
int crew_judge(const struct crew_options *options, const struct sources *sources,
	       struct verifier *verifier, char why[SOURCES_WHY_MAX]);
