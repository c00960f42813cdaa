/* SPDX-License-Identifier: MIT */
/*
 * The folder of an evidence log: the lock of its one writer, and the list of its segments. One
 * thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "host-receiver/evidence/note.h"
#include "host-receiver/evidence/segment.h"

#define FOLDER_LOCK_NAME "lock"
/*
 * A writer counts from 1. A higher number was put there by somebody else, or the folder is no log.
 */
#define FOLDER_SEGMENT_MAX UINT64_C(1000000000000)
#define FOLDER_WHY_MAX	   512u

struct folder_segment {
	uint64_t number, size;
	uint64_t first_index;		  /* valid with an origin */
	char origin[NOTE_ORIGIN_MAX + 1]; /* "": its first line is no segment line */
};

struct folder {
	int fd, lock_fd;
	struct folder_segment *segments; /* by number; owned */
	size_t n, size;
};

#define FOLDER_NONE ((struct folder){.fd = -1, .lock_fd = -1})

/*
 * Open the folder, take the lock, and list the segments with the contents of their first lines.
 * Returns 0 or a negative errno with a sentence in why; -EBUSY: another process writes the log.
 * Call folder_close() in both cases.
 */
int folder_open(struct folder *folder, const char *dir, char why[FOLDER_WHY_MAX]);
void folder_close(struct folder *folder);

/* NULL: there is none. */
struct folder_segment *folder_newest(struct folder *folder);
/* 0 or -ENOMEM. */
int folder_add(struct folder *folder, uint64_t number, const char *origin, uint64_t first_index);
/* Remove the first n from the list. */
void folder_drop_oldest(struct folder *folder, size_t n);
void folder_drop_newest(struct folder *folder);
uint64_t folder_bytes(const struct folder *folder);
