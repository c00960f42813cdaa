/* SPDX-License-Identifier: MIT */
/*
 * Which files are read, and in which order. A folder stands for its segments (also compressed
 * ones). Segments of one log are read by their first index, wherever they were found, so that
 * their order on the command line does not matter. One thread.
 */
#pragma once

#include "host-receiver/evidence/input.h"
#include "host-receiver/judge/tree_run.h"

#define SOURCES_WHY_MAX 512u

struct source {
	char *path;   /* owned */
	char *origin; /* owned; NULL: no segment line at its beginning, or not looked at */
	uint64_t first_index;
	size_t order, group; /* as it was given; the smallest order of its log */
	bool listed;	     /* found in a folder, where a running receiver deletes old segments */
	bool deleted;	     /* and it did, before the first line was read */
};

struct sources {
	struct source *list;
	size_t n;
	const char *empty_folder; /* a folder without any segment was given: the last such path */
	/*
	 * Segments were dropped because they were deleted after they were listed. The record that
	 * explains it may stand in a newer segment, which only another listing finds.
	 */
	bool changed;
};

/*
 * A file, a folder or "-". path is borrowed as long as sources. Returns 0, or a negative errno with
 * a sentence in why.
 */
int sources_add(struct sources *sources, const char *path, char why[SOURCES_WHY_MAX]);

/*
 * After the last one: look at the first lines, and sort. Segments of a folder that retention has
 * deleted meanwhile are dropped. Returns as above.
 */
int sources_order(struct sources *sources, char why[SOURCES_WHY_MAX]);

void sources_free(struct sources *sources);

/* All bytes, as they are stored. */
uint64_t sources_bytes(const struct sources *sources);

/*
 * Reads entries of these sources again: what tree_run wants for copies. It returns -ESTALE as
 * crew_judge() does. sources is borrowed, and sorted before the first use. NULL: no memory.
 */
struct tree_earlier *sources_earlier_new(const struct sources *sources);
void sources_earlier_free(struct tree_earlier *earlier);
