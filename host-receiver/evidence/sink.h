/* SPDX-License-Identifier: MIT */
/*
 * The target of committed lines (standard output for `receive`, the evidence log for `serve`), and
 * the signer of the tree over them. The pipeline's committer calls both, from one thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/tree.h"

/*
 * At most this many entries stand between two checkpoints, so that a verifier needs bounded memory.
 */
#define EVIDENCE_GROUP_ENTRIES_MAX 65536u
#define EVIDENCE_GROUP_BYTES_MAX   (64u * 1024u * 1024u)

struct tree_signer;

struct tree_signer_ops {
	/*
	 * Append n > 0 leaves to the tree, which has `first` entries, and sign it. durable: so many
	 * of these are on disk. ret receives the note, terminated by a NUL. The same leaves at the
	 * same place give the same note again.
	 * Returns the note's length or a negative errno; -ESTALE: the signer's tree does not end at
	 * `first`, and it never signs another one.
	 */
	int (*append)(struct tree_signer *signer, uint64_t first, const struct tree_hash *leaves,
		      size_t n, uint64_t durable, char ret[static LINE_NOTE_MAX]);
};

/* One log's tree under one key. Only ops change it. */
struct tree_signer {
	const struct tree_signer_ops *ops;
	char origin[NOTE_ORIGIN_MAX + 1];
	char kid[LINE_KID_MAX + 1];
};

/* Lines that become durable together. */
struct evidence_group {
	const struct iovec *lines; /* n > 0, each of one whole line or more */
	size_t n;
	uint64_t n_lines;		/* in all groups of iov together */
	const struct tree_hash *leaves; /* one for each line; NULL without a tree */
	struct tree_signer *signer;	/* NULL: the log has no tree */
	size_t *ret_checkpoint_len;	/* optional: the length of the checkpoint line, if any */
};

struct evidence_sink;

struct evidence_sink_ops {
	/*
	 * Make a group durable, as the sink's sync mode says, with its checkpoint. All or nothing:
	 * after an error no line of the group counts as written, and the caller passes the same
	 * group again later (the committer retries each second). Returns 0, or a negative errno;
	 * -EPIPE: the reader is gone for ever, so a retry is useless.
	 */
	int (*commit)(struct evidence_sink *sink, const struct evidence_group *group);
	/*
	 * Make all committed lines durable, in every sync mode. Returns 0, or a negative errno: the
	 * last lines may not be on disk. Frees the sink in both cases.
	 */
	int (*close)(struct evidence_sink *sink);
};

/* The first member of every sink. */
struct evidence_sink {
	const struct evidence_sink_ops *ops;
};
