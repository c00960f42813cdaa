/* SPDX-License-Identifier: MIT */
/* Limits of the fc_metrics probe. */
#pragma once

#include "host-receiver/probes/fc_document.h"
#include "host-receiver/probes/host_probe.h"

/* What one reading takes in; the rest comes with the next. */
#define FC_READ_MAX (4u * 1024u * 1024u) /* bytes */
#define FC_TAKE_MS  500u		 /* until it takes in no further line */

/* Of a document, or it is a bad line. */
#define FC_DEPTH_MAX  4u  /* objects within the document; the VMM has 2 */
#define FC_DIGITS_MAX 20u /* of a number; it has 2^64-1 */

#define FC_API_SKIP_MAX 15u /* readings that do not ask an API which does not answer */
