/* SPDX-License-Identifier: MIT */
/*
 * Is this the evidence that was signed, and is it complete? Takes the facts of one line after
 * another and judges them together: evidence-log.md section 9. It joins the tree, the streams and
 * the logs. One thread; no files.
 */
#pragma once

#include "host-receiver/judge/logs.h"
#include "host-receiver/judge/streams.h"
#include "host-receiver/judge/tree_run.h"

struct verifier_options {
	const struct keyring *ring;
	bool require_signed, require_log, live;
	const char *origin;	    /* NULL: any */
	int64_t since_ms, until_ms; /* INT64_MIN, INT64_MAX: not given */
	int64_t retention_ms;	    /* 0: not given */
	int64_t now_ms;
	const char *const *cells; /* that must be there */
	size_t n_cells;
	const struct tree_earlier *earlier;
};

struct verifier_line {
	struct place at;
	size_t bytes;
	bool too_long, cut;	  /* as in struct input_line */
	struct line_facts *facts; /* not with too_long */
};

struct verifier_result {
	enum verdict verdict;
	const struct findings *findings;
	const struct streams *streams;
	const struct logs *logs;
	uint64_t records, verified, in_flight, copies, checkpoints;
	uint64_t outside; /* records outside of any log */
	bool kept;	  /* a kept checkpoint was given */
};

struct verifier;

/* The options' texts and the keyring are borrowed. NULL when there is no memory. */
struct verifier *verifier_new(const struct verifier_options *options);
void verifier_free(struct verifier *v);

/* A checkpoint that somebody kept. file is borrowed. Returns 0, -ENOMEM or -EIO. */
int verifier_keep(struct verifier *v, const char *file, const char *text, size_t len);

/* An input begins. joined: several files may follow each other in it, as on standard input. */
void verifier_begin_input(struct verifier *v, bool joined);

/* Returns 0, or a negative errno: the memory, libcrypto, or an input that was read again. */
int verifier_line(struct verifier *v, const struct verifier_line *line);

/*
 * Call it once, after the last line. The result points to memory that lives until verifier_free().
 */
struct verifier_result verifier_finish(struct verifier *v);
