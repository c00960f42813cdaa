/* SPDX-License-Identifier: MIT */
/*
 * The counters of all nftables rules, by netlink (libmnl, libnftnl; linux/netfilter/nf_tables.h):
 * one dump of the tables, one of the rules, one of the named counters if any rule uses one, and one
 * of the tables again: rules belong to a table that was there before and after. Its cost grows with
 * the number of rules; the cost of libnftables' `list ruleset` grows with the square of the number
 * of tables (19 s for 1000). The caller owns the result; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "host-receiver/probes/host_probe.h"

#define NFT_RULES_MAX 1000000u /* of all tables; a ruleset with more is an error */

struct nft_dump_table {
	const char *family, *name; /* static; owned */
	uint64_t handle;	   /* of this table and of no other ever */
	size_t first, n;	   /* its rules that count */
};

struct nft_dump_rule {
	char *chain; /* owned */
	char *named; /* the counter's name, owned; NULL: its own */
	uint64_t handle;
	uint64_t packets, bytes;
	size_t table;
};

struct nft_dump {
	uint64_t taken_ns;
	struct nft_dump_table *tables; /* sorted by family and name */
	size_t n_tables;
	struct nft_dump_rule *rules; /* by table, in the ruleset's order */
	size_t n_rules;
};

/* Returns 0 or a negative errno. CAP_NET_ADMIN is needed. Free it also after an error. */
int nft_dump_read(struct nft_dump *dump, char why[PROBE_WHY_MAX]);
void nft_dump_done(struct nft_dump *dump);

/* NULL: there is none. */
const struct nft_dump_table *nft_dump_find(const struct nft_dump *dump, const char *family,
					   const char *name);
