/* SPDX-License-Identifier: MIT */
/*
 * Makes messages from lines of the log: one for each line (mode events), or one for each commit
 * group with its entries and its checkpoint line (mode batches). For one thread.
 */
#pragma once

#include "host-receiver/forward/settings.h"
#include "host-receiver/forward/subject.h"
#include "host-receiver/forward/walk.h"

#define GROUP_BYTES_MAX	  (512u * 1024u) /* of a batch; a larger group is split into several */
#define GROUP_HEADERS_MAX 1024u		 /* the most bytes of a message's headers */
#define GROUP_ID_MAX	  128u
#define GROUP_NOTICE_MAX  1024u
#define TIME_TEXT_MAX	  32u

/* A place in the log: entries [0, index) are before it. */
struct group_place {
	const char *origin; /* the walk's; "" before the first line */
	uint64_t index;
	struct evidence_position at; /* the beginning of entry index - 1 */
};

/* Borrowed until the next call of group_next() or group_reset(). */
struct group_message {
	const char *subject, *id, *origin;
	uint64_t index; /* of the first entry; without an entry, of the next one */
	const char *data;
	size_t len;
	unsigned entries;
	char time[TIME_TEXT_MAX]; /* when the first line was received; "": unknown */
	struct group_place after; /* the place after it is acknowledged */
};

struct group;

/* Returns 0 or -ENOMEM. The settings are borrowed. */
int group_new(const struct forward_settings *settings, struct group **ret);
void group_free(struct group *group);

/* Forget the batch that is being collected. The walk continues after `at` (NULL: where it was). */
void group_reset(struct group *group, const struct group_place *at);

/* Make no message with more bytes of data than this. But each message has at least one line. */
void group_set_max(struct group *group, size_t max);

/* Returns 1 and a message, 0: there is no more for now, or an error of walk_next(). */
int group_next(struct group *group, struct walk *walk, struct group_message *ret);

/* Milliseconds since 1970 of an RFC 3339 time in UTC; 0: it is not one. */
uint64_t group_time_ms(const char *time);

/* Write the event that replaces a message which the server does not take. Returns its length. */
size_t group_notice(const struct group_message *message, size_t max_size,
		    char out[static GROUP_NOTICE_MAX], char id[static GROUP_ID_MAX]);
