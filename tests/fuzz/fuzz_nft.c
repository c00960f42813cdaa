/* SPDX-License-Identifier: MIT */
/* nft's JSON of a table: each rule's text is bounded, and plain enough to be written as JSON. */
#include "common/utf8.h"
#include "common/util.h"
#include "host-receiver/probes/nft_rule.h"
#include "host-receiver/probes/nftables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nft_listing listing;
	char why[PROBE_WHY_MAX];

	if (nft_listing_parse((const char *)data, size, &listing, why) < 0)
		return 0;
	for (size_t i = 0; i < listing.n; i++) {
		const char *text = nft_listing_find(&listing, listing.rules[i].handle);

		if (!text || strlen(text) > NFT_RULE_MAX || !utf8_valid(text, strlen(text)))
			abort();
	}
	nft_listing_done(&listing);
	return 0;
}
