/* SPDX-License-Identifier: MIT */
/*
 * host.nftables: the counters of the cell's own table. The ruleset is read once for all cells, by
 * libnftables as JSON, and every cell's reading is taken from that.
 *
 * Rows are the rules that count: with a counter of their own or with a named one. A ruleset belongs
 * to whoever read it; libnftables is used by one thread at a time.
 */
#pragma once

#include "host-receiver/probes/probe.h"

#define NFT_DUMP_MAX  (64u * 1024u * 1024u) /* bytes of JSON */
#define NFT_TABLE_MAX 255u		    /* bytes of a table's name */

struct nft_ruleset;

/* Returns 0 or a negative errno. CAP_NET_ADMIN is needed. */
int nft_ruleset_dump(struct nft_ruleset **ret, char why[PROBE_WHY_MAX]);

/* The same from the text that libnftables wrote at taken_ns. */
int nft_ruleset_parse(const char *json, size_t len, uint64_t taken_ns, struct nft_ruleset **ret,
		      char why[PROBE_WHY_MAX]);
void nft_ruleset_free(struct nft_ruleset *ruleset);

/* The reading of one cell, whose probe was opened by probe_nftables. As read() in probe.h. */
int nft_ruleset_reading(const struct nft_ruleset *ruleset, const struct probe *probe,
			struct probe_reading *ret, char why[PROBE_WHY_MAX]);

/* Split [FAMILY/]TABLE; without a family it is ip, as for nft(8). False: not one. */
bool nft_table_parse(const char *text, char ret_family[8], char ret_table[NFT_TABLE_MAX + 1]);
