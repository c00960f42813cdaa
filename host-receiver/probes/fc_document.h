/* SPDX-License-Identifier: MIT */
/*
 * A metrics document of the VMM (Firecracker docs/metrics.md, src/firecracker/src/metrics.rs): an
 * object of objects of numbers. Most numbers count since the previous document, some are last
 * values ("store" metrics). The sums over all documents are kept as canonical JSON of the same
 * shape. No I/O; any thread.
 */
#pragma once

#include "host-receiver/event/json_document.h"

#define FC_DOCUMENT_MAX (256u * 1024u) /* bytes of a document, and of the sums */

struct fc_totals {
	char *json; /* owned; an object, NULL: nothing summed yet */
	size_t len;
};

void fc_totals_done(struct fc_totals *totals);

/*
 * Add the document to the sums. scratch is a second document to work with. Returns 0; -EBADMSG with
 * a phrase in *ret_what (static) when a counter is no unsigned 64-bit number; -EFBIG when the sums
 * would pass FC_DOCUMENT_MAX; or -ENOMEM. After an error nothing has changed. Sums stop at 2^64-1.
 */
int fc_totals_add(struct fc_totals *totals, const struct json_document *doc,
		  struct json_document *scratch, const char **ret_what);
