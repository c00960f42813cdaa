/* SPDX-License-Identifier: MIT */
/*
 * Where committed lines go: standard output for `receive`, the evidence log for `serve`; and who
 * signs the tree over them. The pipeline's committer calls both from one thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/tree.h"

/* At most so much stands between two checkpoints, so that a verifier's memory is bounded. */
#define EVIDENCE_GROUP_ENTRIES_MAX 65536u
#define EVIDENCE_GROUP_BYTES_MAX   (64u * 1024u * 1024u)

struct tree_signer;

struct tree_signer_ops {
	/*
	 * Append n > 0 leaves to the tree, which has `first` entries, and sign it. The note
	 * is written to ret with a NUL. The same leaves at the same place again give the same note.
	 * Returns the note's length or a negative errno; -ESTALE: the signer's tree does not end
	 * at `first`, and it never signs another.
	 */
	int (*append)(struct tree_signer *signer, uint64_t first, const struct tree_hash *leaves,
		      size_t n, char ret[static LINE_NOTE_MAX]);
};

/* One log's tree under one key. Immutable but for what ops keep. */
struct tree_signer {
	const struct tree_signer_ops *ops;
	char origin[NOTE_ORIGIN_MAX + 1];
	char kid[LINE_KID_MAX + 1];
};

/* What is made durable at once. */
struct evidence_group {
	const struct iovec *lines; /* n > 0, each of one whole line or more */
	size_t n;
	uint64_t n_lines;		/* in all */
	const struct tree_hash *leaves; /* of each line; NULL without a tree */
	struct tree_signer *signer;	/* NULL: the log has no tree */
	size_t *ret_checkpoint_len;	/* optional: the length of the checkpoint line, if any */
};

struct evidence_sink;

struct evidence_sink_ops {
	/*
	 * Make a group durable, as the sink's sync mode says, with its checkpoint. All or nothing:
	 * after an error nothing of it counts as written, and the same group is given again later
	 * (the committer retries each second). Returns 0, or a negative errno; -EPIPE: nobody will
	 * ever read it, so there is no use in trying again.
	 */
	int (*commit)(struct evidence_sink *sink, const struct evidence_group *group);
	/*
	 * What was committed is made durable in every mode. Returns 0 or a negative errno: the last
	 * of it may not be on disk. Frees the sink in both cases.
	 */
	int (*close)(struct evidence_sink *sink);
};

/* The first member of every sink. */
struct evidence_sink {
	const struct evidence_sink_ops *ops;
};
