/* SPDX-License-Identifier: MIT */
/*
 * The identity and the options of a cell, checked. The same table reads the command lines of
 * `receive` and of `cell add`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/options.h"
#include "host-receiver/probes/options.h"

#define CELL_ID_MAX	 128u
#define CELL_HASH_PREFIX "sha256:"
#define CELL_HASH_DIGITS 64u
#define CELL_WHY_MAX	 400u

#define CELL_KEEPALIVE_DEFAULT_MS      10000u
#define CELL_CONNECT_WITHIN_DEFAULT_MS 30000u
#define CELL_RATE_DEFAULT	       20000u
#define CELL_RATE_BYTES_DEFAULT	       (16u * 1024u * 1024u)
#define CELL_RATE_CONNECTIONS_DEFAULT  10u
#define CELL_SOCKET_MODE_DEFAULT       0660

/* Strings are borrowed from the caller of the parser. */
struct cell_options {
	const char *uds_base, *cell_id, *run_id, *spec_hash;
	unsigned keepalive_ms;	    /* 0: off */
	unsigned connect_within_ms; /* 0: off */
	/* Ceilings per second (delivery.md section 5); 0: the registry's. */
	unsigned rate, rate_bytes, rate_connections;
	bool check_peer_uid;
	uid_t peer_uid;
	bool set_owner;
	uid_t socket_uid;
	gid_t socket_gid;
	mode_t socket_mode;
	struct probe_options probes;
	/*
	 * The cross-witness's window before and after a declaration; 0: one interval before, two
	 * after.
	 */
	unsigned witness_before_ms, witness_after_ms;
};

/* Their target is a struct cell_options; each takes a value. */
#define CELL_OPTION_ROWS 20u
extern const struct option_row cell_option_rows[CELL_OPTION_ROWS];

void cell_options_defaults(struct cell_options *o);

/* Returns 0, or -EINVAL with the option and what was expected in why. */
int cell_options_set(struct cell_options *o, const char *name, const char *value,
		     char why[CELL_WHY_MAX]);

/* 0, or -EINVAL when a mandatory option is missing; why names it. */
int cell_options_check(const struct cell_options *o, char why[CELL_WHY_MAX]);

/*
 * Whether the sources of the probes exist: see probe_options_look(). Only this function looks at
 * the system. 0, or a negative errno with a sentence in why.
 */
int cell_options_look(const struct cell_options *o, char why[CELL_WHY_MAX]);
