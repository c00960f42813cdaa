/* SPDX-License-Identifier: MIT */
/*
 * Writes an entry of the evidence as an event of OCSF 1.8, for SIEMs. The event is only a view: it
 * is unsigned, and nobody can verify it. It names its record (id, log and sequence), and has the
 * record's bytes and their hash. This room judges nothing.
 *
 * One thread a writer.
 */
#pragma once

#include <stdint.h>

#include "host-receiver/event/json_document.h"

#define OCSF_VERSION "1.8.0"
/* Bytes of an event: the entry once as a text, and its data once more. */
#define OCSF_EVENT_MAX (256u * 1024u)

/* The place of an entry. */
struct ocsf_place {
	const char *origin; /* of its log; "": outside of any log */
	uint64_t index;	    /* in its log */
};

/*
 * doc holds line, an entry. Returns 0 and the length of the event in out, without a newline;
 * -EBADMSG: the entry is no event; -ENOBUFS: the event is too long.
 */
int ocsf_write(const struct json_document *doc, const char *line, size_t len,
	       const struct ocsf_place *place, char out[static OCSF_EVENT_MAX], size_t *ret_len);

/* Whether the entry belongs to this cell or to no cell, and to this time. cell NULL: any cell. */
bool ocsf_is_wanted(const struct json_document *doc, const char *cell, int64_t since_ms,
		    int64_t until_ms);
