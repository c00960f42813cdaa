/* SPDX-License-Identifier: MIT */
/*
 * The Merkle tree of the evidence log: hashes, frontiers and proofs of RFC 6962 section 2.1 (the
 * same tree as RFC 9162). The writer, the signer and verify all use this code. It knows nothing of
 * files, lines or keys.
 *
 * Everything works on a frontier, or on the leaf hashes in their order. So memory stays constant
 * for a log of any size. A tree_hasher belongs to one thread; the other functions are pure.
 * Functions that hash return 0, or -EIO when libcrypto fails.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_HASH_SIZE 32u
#define TREE_SIZE_MAX  INT64_MAX /* entries: sizes are below 2^63 */
#define TREE_LEVELS    63u	 /* hashes of the largest frontier */
#define TREE_PROOF_MAX 64u	 /* hashes of the longest proof */

struct tree_hash {
	uint8_t bytes[TREE_HASH_SIZE];
};

bool tree_hash_equal(const struct tree_hash *a, const struct tree_hash *b);

/* ---- hashing ---- */

/* One libcrypto context. The digest itself is fetched once for the whole process. */
struct tree_hasher;

/* NULL: no memory, or a libcrypto without SHA-256. */
struct tree_hasher *tree_hasher_new(void);
void tree_hasher_free(struct tree_hasher *hasher);

/* SHA-256(0x00 || entry). */
int tree_hash_leaf(struct tree_hasher *hasher, const void *entry, size_t len,
		   struct tree_hash *ret);
/* SHA-256(0x01 || left || right). ret may be left or right. */
int tree_hash_node(struct tree_hasher *hasher, const struct tree_hash *left,
		   const struct tree_hash *right, struct tree_hash *ret);

/* SHA-256(first || second). */
int tree_hash_two(struct tree_hasher *hasher, const void *first, size_t first_len,
		  const void *second, size_t second_len, struct tree_hash *ret);

/* ---- the frontier ---- */

/* The hashes of the complete subtrees of a size, largest first: one for each bit of size. */
struct tree_frontier {
	uint64_t size;
	struct tree_hash hashes[TREE_LEVELS];
};

/* How many of hashes[] a tree of this size has. */
unsigned tree_frontier_count(uint64_t size);

/* The next leaf. -EOVERFLOW at TREE_SIZE_MAX. On error the frontier is unchanged. */
int tree_frontier_append(struct tree_hasher *hasher, struct tree_frontier *frontier,
			 const struct tree_hash *leaf);

/* The root; SHA-256("") if there are no entries. */
int tree_frontier_root(struct tree_hasher *hasher, const struct tree_frontier *frontier,
		       struct tree_hash *ret);

/* ---- proofs ---- */

/* The hashes of a proof in the order of RFC 6962. */
struct tree_proof {
	unsigned n;
	struct tree_hash hashes[TREE_PROOF_MAX];
};

/* 0: the leaf is entry `index` of the tree of this size and root. -EBADMSG: it is not. */
int tree_check_inclusion(struct tree_hasher *hasher, uint64_t index, uint64_t size,
			 const struct tree_hash *leaf, const struct tree_proof *proof,
			 const struct tree_hash *root);

/*
 * 0: the tree of new_size and new_root begins with the tree of old_size and old_root. -EBADMSG: it
 * does not. Every tree begins with the empty one; that proof is empty.
 */
int tree_check_consistency(struct tree_hasher *hasher, uint64_t old_size,
			   const struct tree_hash *old_root, uint64_t new_size,
			   const struct tree_hash *new_root, const struct tree_proof *proof);

/*
 * Makes a proof from the leaves, which are added in their order from `base` on (NULL: from index
 * 0). Each hash of a proof is the root of a range of leaves; ranges do not overlap.
 */
struct tree_prover {
	struct tree_proof proof;
	uint64_t size; /* of the tree the proof is for */
	uint64_t next; /* index of the leaf that comes next */
	struct tree_range {
		uint64_t first, end;
		unsigned place;	   /* in proof.hashes */
	} ranges[TREE_PROOF_MAX];  /* ascending */
	unsigned current;	   /* range */
	struct tree_frontier part; /* of the current range */
};

/*
 * Begin. -ERANGE: index is not below size, old_size is above size, size is above TREE_SIZE_MAX, or
 * base is larger than size. -ENODATA: the proof needs a hash that base, the part that retention
 * deleted, does not have.
 */
int tree_prover_begin_inclusion(struct tree_hasher *hasher, struct tree_prover *prover,
				uint64_t index, uint64_t size, const struct tree_frontier *base);
int tree_prover_begin_consistency(struct tree_hasher *hasher, struct tree_prover *prover,
				  uint64_t old_size, uint64_t size,
				  const struct tree_frontier *base);

/* Leaf number prover->next. Leaves at size and above are ignored. */
int tree_prover_add(struct tree_hasher *hasher, struct tree_prover *prover,
		    const struct tree_hash *leaf);

/* True when prover->proof is complete: all leaves below size were added. */
bool tree_prover_done(const struct tree_prover *prover);
