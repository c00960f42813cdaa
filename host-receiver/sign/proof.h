/* SPDX-License-Identifier: MIT */
/*
 * Proofs in the formats that other tools read: C2SP tlog-proof for one entry, and for consistency
 * the body of the add-checkpoint request of C2SP tlog-witness. Texts only; pure functions.
 */
#pragma once

#include "host-receiver/evidence/note.h"

#define PROOF_TEXT_MAX (16u * 1024u)

/* A proof of either kind, and the note that it belongs to. */
struct proof {
	bool consistency;
	uint64_t number; /* the entry's index; the old size */
	struct tree_proof tree;
	struct note note;
};

/*
 * "c2sp.org/tlog-proof@v1\nindex <n>\n<hashes>\n\n<note>", or "old <n>\n<hashes>\n\n<note>".
 * Returns the bytes (a NUL follows them) or -ENOBUFS.
 */
int proof_format(bool consistency, uint64_t number, const struct tree_proof *tree, const char *note,
		 size_t note_len, char *ret, size_t size);

/* Strict. -EBADMSG with a phrase in *ret_why (static). */
int proof_parse(const char *text, size_t len, struct proof *ret, const char **ret_why);
