/* SPDX-License-Identifier: MIT */
/*
 * Turns a rule of nft's JSON (libnftables-json(5)) into the form that people write: "ip saddr
 * 10.0.0.2 tcp dport 80 accept". Counters have no values in it, so that the text is the same at
 * each reading. A statement that this file does not know is written as JSON. No state; any thread.
 */
#pragma once

#include "host-receiver/event/json_document.h"

#define NFT_RULE_MAX 512u /* bytes; a longer rule is cut and ends in "..." */

/* Write the statements of expr, the rule's array, into buf of NFT_RULE_MAX bytes. Returns the
 * length. */
size_t nft_rule_format(const struct json_document *doc, const struct json_node *expr,
		       char buf[static NFT_RULE_MAX]);
