/* SPDX-License-Identifier: MIT */
/*
 * From lines of the log to messages: one for each line (mode events), or one for each commit group,
 * with its entries and its checkpoint line as they stand (mode batches). For one thread.
 */
#pragma once

#include "host-receiver/forward/settings.h"
#include "host-receiver/forward/subject.h"
#include "host-receiver/forward/walk.h"

#define GROUP_BYTES_MAX	  (512u * 1024u) /* of a batch; a larger group goes in several */
#define GROUP_HEADERS_MAX 1024u		 /* bytes that a message's headers take at most */
#define GROUP_ID_MAX	  128u
#define GROUP_NOTICE_MAX  1024u
#define TIME_TEXT_MAX	  32u

/* Where the log stands: entries [0, index) are before it. */
struct group_place {
	const char *origin; /* the walk's; "" before the first line */
	uint64_t index;
	struct evidence_position at; /* where the entry index - 1 begins */
};

/* Borrowed until the next call of group_next() or group_reset(). */
struct group_message {
	const char *subject, *id, *origin;
	uint64_t index; /* of the first entry; of the next one where there is none */
	const char *data;
	size_t len;
	unsigned entries;
	char time[TIME_TEXT_MAX]; /* when the first line was received; "": unknown */
	struct group_place after; /* once it is acknowledged */
};

struct group;

/* Returns 0 or -ENOMEM. The settings are borrowed. */
int group_new(const struct forward_settings *settings, struct group **ret);
void group_free(struct group *group);

/* Forget the batch that is being collected: the walk goes on elsewhere, after `at` (NULL: as
 * before). */
void group_reset(struct group *group, const struct group_place *at);

/* No message with more bytes of data than this; at least one line goes into each all the same. */
void group_set_max(struct group *group, size_t max);

/* Returns 1 and a message, 0: nothing more is there now, or what walk_next() says. */
int group_next(struct group *group, struct walk *walk, struct group_message *ret);

/* Milliseconds since 1970 of an RFC 3339 time in UTC; 0: it is none. */
uint64_t group_time_ms(const char *time);

/*
 * The event that stands in the place of a message which the server does not take. Returns its
 * length.
 */
size_t group_notice(const struct group_message *message, size_t max_size,
		    char out[static GROUP_NOTICE_MAX], char id[static GROUP_ID_MAX]);
