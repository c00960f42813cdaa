/* SPDX-License-Identifier: MIT */
/*
 * The subjects of the forwarder's messages. A token is 1 or more bytes of [A-Za-z0-9_-]; every
 * other byte of a name becomes '_'. Pure functions; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"

#define SUBJECT_MAX 512u

#define SUBJECT_CHECKPOINTS "cellos.checkpoints"
#define SUBJECT_LOGS	    "cellos.logs"

/* The cell's token for entries of the log's own stream. */
#define SUBJECT_NO_CELL "_"

/*
 * A template: tokens of [A-Za-z0-9_-], {cell} or {type}, joined by dots; at most 256 bytes. Returns
 * false and what is wrong (static).
 */
bool subject_template_valid(const char *template, const char **ret_why);

/* The subject of an entry. type loses the prefix that all evidence types share. */
void subject_entry(const char *template, struct wire_text cell, struct wire_text type,
		   char ret[static SUBJECT_MAX]);

/* The subject of a host's checkpoints or batches: prefix, a dot, the host's token. */
void subject_host(const char *prefix, const char *origin, char ret[static SUBJECT_MAX]);

/* The subject that a stream must accept: the template with '*' for {cell} and {type}. */
void subject_wildcard(const char *template, char ret[static SUBJECT_MAX]);
