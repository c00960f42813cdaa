/* SPDX-License-Identifier: MIT */
/* Limits of the fc_metrics probe. */
#pragma once

#include "host-receiver/probes/fc_document.h"
#include "host-receiver/probes/host_probe.h"

/* Limits of one reading; the rest comes with the next one. */
#define FC_READ_MAX (4u * 1024u * 1024u) /* bytes */
#define FC_TAKE_MS  500u		 /* no line is taken after this time */

/* Limits of a document; a line beyond them is bad. */
#define FC_DEPTH_MAX  4u  /* objects within the document; the VMM has 2 */
#define FC_DIGITS_MAX 20u /* of a number; it has 2^64-1 */

#define FC_API_SKIP_MAX 15u /* readings that skip an API which does not answer */
