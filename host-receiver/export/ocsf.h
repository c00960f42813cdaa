/* SPDX-License-Identifier: MIT */
/*
 * An entry of the evidence as an event of OCSF 1.8, for SIEMs. It is a view: unsigned, and nobody
 * can verify it. It names the record it was made of (its id, log and sequence), holds its bytes
 * and their hash. It judges nothing.
 *
 * One thread a writer.
 */
#pragma once

#include <stdint.h>

#include "host-receiver/event/json_document.h"

#define OCSF_VERSION "1.8.0"
/* Bytes of an event: the entry once as a text, and its data once more. */
#define OCSF_EVENT_MAX (256u * 1024u)

/* Where an entry stands. */
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

/* Whether the entry is of this cell, or of none, and of this time. cell NULL: of any. */
bool ocsf_is_wanted(const struct json_document *doc, const char *cell, int64_t since_ms,
		    int64_t until_ms);
