/* SPDX-License-Identifier: MIT */
/*
 * The objects that the fanotify source has marked, by file system and handle, which is how an event
 * names its object. One object can be marked for several watches.
 *
 * Bounded; part of its owner, no allocation; single-threaded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAN_MARKS_MAX	 2048u
#define FAN_HANDLE_MAX	 64u /* bytes: ext4 8, tmpfs 12, xfs and btrfs 20; an overlay 24 more */
#define FAN_WATCH_NONE	 UINT8_MAX
#define FAN_WATCH_STALE	 (UINT8_MAX - 1u) /* the kernel has the mark still, no watch wants it */
#define FAN_CHILDREN_MAX (FAN_MARKS_MAX - 512u) /* so that directories above always have room */

/* The kernel's name of an object in a file system. */
struct fan_object {
	int32_t fsid[2];
	int32_t type;
	uint32_t len; /* 0: none */
	uint8_t bytes[FAN_HANDLE_MAX];
};

enum fan_role {
	FAN_ROLE_SELF,	   /* the watched path itself */
	FAN_ROLE_CHILD,	   /* a file in a watched directory */
	FAN_ROLE_PARENT,   /* the directory that has the watched path's name */
	FAN_ROLE_ANCESTOR, /* a directory above that */
};

struct fan_mark {
	uint8_t watch; /* or FAN_WATCH_NONE, FAN_WATCH_STALE */
	uint8_t role;
	uint16_t chain; /* internal */
	struct fan_object object;
};

struct fan_marks {
	size_t n;
	uint16_t free, fresh;
	uint16_t heads[FAN_MARKS_MAX];
	struct fan_mark marks[FAN_MARKS_MAX];
};

void fan_marks_init(struct fan_marks *m);

/* NULL when there are too many. */
struct fan_mark *fan_marks_add(struct fan_marks *m, const struct fan_object *object, unsigned watch,
			       enum fan_role role);
void fan_marks_remove(struct fan_marks *m, struct fan_mark *mark);

/* The first mark of an object, then the next one of the same object; NULL at the end. Not stale
 * ones. */
struct fan_mark *fan_marks_find(struct fan_marks *m, const struct fan_object *object);
struct fan_mark *fan_marks_next(struct fan_marks *m, const struct fan_mark *mark);

/* All marks in use, also stale ones: start with *place = 0; NULL at the end. The one returned may
 * be removed. */
struct fan_mark *fan_marks_walk(struct fan_marks *m, size_t *place);

bool fan_same_object(const struct fan_object *a, const struct fan_object *b);
