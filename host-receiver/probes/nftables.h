/* SPDX-License-Identifier: MIT */
/*
 * host.nftables: the counters of the cell's own table. The ruleset is dumped once for all cells
 * (nft_dump.h), and every cell's reading is taken from that dump. libnftables gives the text of a
 * rule; it is called once in the life of a rule, for a whole table at a time.
 *
 * A reading has a row for each rule that counts: with a counter of its own or with a named one.
 */
#pragma once

#include "host-receiver/probes/nft_dump.h"

#define NFT_TABLE_MAX	255u  /* bytes of a table's name */
#define NFT_ASK_MS	1000u /* the longest time of one tick for the texts of rules */
#define NFT_LISTING_MAX (16u * 1024u * 1024u) /* bytes of JSON of one table */

/*
 * The reading of one cell, whose probe was opened by probe_nftables. Rules whose text was not asked
 * for in time have a null ruleRepr; the next tick asks for them. Returns as read() in host_probe.h.
 */
int nft_reading(const struct nft_dump *dump, struct host_probe *probe, struct probe_reading *ret,
		char why[PROBE_WHY_MAX]);

/* Split [FAMILY/]TABLE; without a family it is ip, as for nft(8). False: not one. */
bool nft_table_parse(const char *text, char ret_family[8], char ret_table[NFT_TABLE_MAX + 1]);

/* The texts of a table's rules. */
struct nft_listing {
	uint64_t table_handle; /* 0: it does not say */
	size_t n;
	struct nft_listed {
		uint64_t handle;
		char *text; /* owned */
	} * rules;	    /* sorted by handle */
};

/* Parse libnftables' description of one table, `nft -j list table ..`. 0 or a negative errno. */
int nft_listing_parse(const char *json, size_t len, struct nft_listing *ret,
		      char why[PROBE_WHY_MAX]);
void nft_listing_done(struct nft_listing *listing);
/* NULL: the text is not known. */
const char *nft_listing_find(const struct nft_listing *listing, uint64_t handle);
