/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/tree.h"

#include <pthread.h>

#include <openssl/evp.h>

#include "common/util.h"

_Static_assert(sizeof(struct tree_hash) == TREE_HASH_SIZE, "hashes lie side by side");

bool tree_hash_equal(const struct tree_hash *a, const struct tree_hash *b)
{
	return memcmp(a->bytes, b->bytes, TREE_HASH_SIZE) == 0;
}

/* ---- hashing ---- */

struct tree_hasher {
	EVP_MD_CTX *ctx;
};

/*
 * Fetching the digest costs more than hashing an entry, so it is fetched once for the whole
 * process. It needs a library context of its own: if there is no memory for the default one,
 * OpenSSL 3.0 fetches from a NULL pointer.
 */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void fetch_sha256(void)
{
	OSSL_LIB_CTX *library = NULL;

	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL))
		library = OSSL_LIB_CTX_new();
	if (library)
		sha256 = EVP_MD_fetch(library, "SHA256", NULL);
}

struct tree_hasher *tree_hasher_new(void)
{
	struct tree_hasher *hasher = calloc(1, sizeof(*hasher));

	pthread_once(&sha256_once, fetch_sha256);
	if (hasher)
		hasher->ctx = EVP_MD_CTX_new();
	/* The first use allocates; after this one hashing does not. */
	if (!hasher || !sha256 || !hasher->ctx || !EVP_DigestInit_ex2(hasher->ctx, sha256, NULL)) {
		tree_hasher_free(hasher);
		return NULL;
	}
	return hasher;
}

void tree_hasher_free(struct tree_hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->ctx);
	free(hasher);
}

int tree_hash_two(struct tree_hasher *hasher, const void *first, size_t first_len,
		  const void *second, size_t second_len, struct tree_hash *ret)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!EVP_DigestInit_ex2(hasher->ctx, NULL, NULL) ||
	    !EVP_DigestUpdate(hasher->ctx, first, first_len) ||
	    !EVP_DigestUpdate(hasher->ctx, second, second_len) ||
	    !EVP_DigestFinal_ex(hasher->ctx, digest, &len) || len != TREE_HASH_SIZE)
		return -EIO;
	memcpy(ret->bytes, digest, TREE_HASH_SIZE);
	return 0;
}

int tree_hash_leaf(struct tree_hasher *hasher, const void *entry, size_t len, struct tree_hash *ret)
{
	return tree_hash_two(hasher, "\0", 1, entry, len, ret);
}

int tree_hash_node(struct tree_hasher *hasher, const struct tree_hash *left,
		   const struct tree_hash *right, struct tree_hash *ret)
{
	uint8_t both[1 + TREE_HASH_SIZE];

	both[0] = 1;
	memcpy(both + 1, left->bytes, TREE_HASH_SIZE);
	return tree_hash_two(hasher, both, sizeof(both), right->bytes, TREE_HASH_SIZE, ret);
}

/* ---- the frontier ---- */

unsigned tree_frontier_count(uint64_t size)
{
	return (unsigned)__builtin_popcountll(size);
}

int tree_frontier_append(struct tree_hasher *hasher, struct tree_frontier *frontier,
			 const struct tree_hash *leaf)
{
	unsigned n = tree_frontier_count(frontier->size);
	struct tree_hash hash = *leaf;

	if (frontier->size >= TREE_SIZE_MAX)
		return -EOVERFLOW;
	/* For each 1 bit at the low end of size, the leaf completes a subtree of twice its size. */
	for (uint64_t bits = frontier->size; bits & 1; bits >>= 1) {
		int r = tree_hash_node(hasher, &frontier->hashes[--n], &hash, &hash);

		if (r < 0)
			return r;
	}
	frontier->hashes[n] = hash;
	frontier->size++;
	return 0;
}

int tree_frontier_root(struct tree_hasher *hasher, const struct tree_frontier *frontier,
		       struct tree_hash *ret)
{
	unsigned n = tree_frontier_count(frontier->size);
	struct tree_hash hash;

	if (n == 0)
		return tree_hash_two(hasher, "", 0, "", 0, ret);
	hash = frontier->hashes[--n];
	while (n > 0) {
		int r = tree_hash_node(hasher, &frontier->hashes[--n], &hash, &hash);

		if (r < 0)
			return r;
	}
	*ret = hash;
	return 0;
}

/* ---- checking proofs: RFC 9162 sections 2.1.3.2 and 2.1.4.2 ---- */

int tree_check_inclusion(struct tree_hasher *hasher, uint64_t index, uint64_t size,
			 const struct tree_hash *leaf, const struct tree_proof *proof,
			 const struct tree_hash *root)
{
	uint64_t fn = index, sn = size - 1;
	struct tree_hash hash = *leaf;
	int r = 0;

	if (index >= size || size > TREE_SIZE_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < proof->n; i++) {
		if (sn == 0)
			return -EBADMSG;
		if ((fn & 1) || fn == sn) {
			r = tree_hash_node(hasher, &proof->hashes[i], &hash, &hash);
			while (!(fn & 1) && fn != 0)
				fn >>= 1, sn >>= 1;
		} else {
			r = tree_hash_node(hasher, &hash, &proof->hashes[i], &hash);
		}
		if (r < 0)
			return r;
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && tree_hash_equal(&hash, root) ? 0 : -EBADMSG;
}

/* Compute both roots from the hashes of the proof; both begin with first_hash. */
static int consistency_roots(struct tree_hasher *hasher, uint64_t old_size, uint64_t new_size,
			     const struct tree_hash *first_hash, const struct tree_hash *hashes,
			     unsigned n, struct tree_hash *ret_old, struct tree_hash *ret_new)
{
	uint64_t fn = old_size - 1, sn = new_size - 1;
	int r = 0;

	*ret_old = *ret_new = *first_hash;
	while (fn & 1)
		fn >>= 1, sn >>= 1;
	for (unsigned i = 0; i < n; i++) {
		if (sn == 0)
			return -EBADMSG;
		if ((fn & 1) || fn == sn) {
			r = tree_hash_node(hasher, &hashes[i], ret_old, ret_old);
			if (r == 0)
				r = tree_hash_node(hasher, &hashes[i], ret_new, ret_new);
			while (!(fn & 1) && fn != 0)
				fn >>= 1, sn >>= 1;
		} else {
			r = tree_hash_node(hasher, ret_new, &hashes[i], ret_new);
		}
		if (r < 0)
			return r;
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 ? 0 : -EBADMSG;
}

int tree_check_consistency(struct tree_hasher *hasher, uint64_t old_size,
			   const struct tree_hash *old_root, uint64_t new_size,
			   const struct tree_hash *new_root, const struct tree_proof *proof)
{
	const bool old_is_subtree = (old_size & (old_size - 1)) == 0;
	struct tree_hash from_old, from_new, empty;
	int r;

	if (old_size > new_size || new_size > TREE_SIZE_MAX)
		return -EBADMSG;
	if (old_size == 0) {
		r = tree_frontier_root(hasher, &(struct tree_frontier){0}, &empty);
		if (r < 0)
			return r;
		return proof->n == 0 && tree_hash_equal(&empty, old_root) &&
				       (new_size > 0 || tree_hash_equal(&empty, new_root))
			       ? 0
			       : -EBADMSG;
	}
	if (old_size == new_size)
		return proof->n == 0 && tree_hash_equal(old_root, new_root) ? 0 : -EBADMSG;
	if (proof->n == 0)
		return -EBADMSG;
	/*
	 * If the old tree is a complete subtree, its hash is the old root, and the proof leaves it
	 * out.
	 */
	r = old_is_subtree
		    ? consistency_roots(hasher, old_size, new_size, old_root, proof->hashes,
					proof->n, &from_old, &from_new)
		    : consistency_roots(hasher, old_size, new_size, &proof->hashes[0],
					&proof->hashes[1], proof->n - 1, &from_old, &from_new);
	if (r < 0)
		return r;
	return tree_hash_equal(&from_old, old_root) && tree_hash_equal(&from_new, new_root)
		       ? 0
		       : -EBADMSG;
}

/* ---- making proofs ---- */

/* The largest power of two smaller than n; n > 1. */
static uint64_t split_of(uint64_t n)
{
	return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

/*
 * The ranges of a proof. They are found from the root downwards, so in the reverse order of the
 * proof.
 */
struct ranges {
	struct tree_range list[TREE_PROOF_MAX];
	unsigned n;
};

static void add_range(struct ranges *ranges, uint64_t first, uint64_t end)
{
	ranges->list[ranges->n++] = (struct tree_range){.first = first, .end = end};
}

static void inclusion_ranges(struct ranges *ranges, uint64_t index, uint64_t size)
{
	uint64_t first = 0, end = size;

	while (end - first > 1) {
		const uint64_t middle = first + split_of(end - first);

		if (index < middle) {
			add_range(ranges, middle, end);
			end = middle;
		} else {
			add_range(ranges, first, middle);
			first = middle;
		}
	}
}

/* 0 < old_size < size */
static void consistency_ranges(struct ranges *ranges, uint64_t old_size, uint64_t size)
{
	uint64_t first = 0, end = size;

	/* Go down until the rest is the end of the old tree. */
	while (old_size < end) {
		const uint64_t middle = first + split_of(end - first);

		if (old_size <= middle) {
			add_range(ranges, middle, end);
			end = middle;
		} else {
			add_range(ranges, first, middle);
			first = middle;
		}
	}
	if (first > 0)
		add_range(ranges, first, end);
}

static int compare_ranges(const void *a, const void *b)
{
	const struct tree_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* A range is complete: its root goes to its place in the proof. */
static int finish_range(struct tree_hasher *hasher, struct tree_prover *prover)
{
	const unsigned place = prover->ranges[prover->current].place;
	int r = tree_frontier_root(hasher, &prover->part, &prover->proof.hashes[place]);

	if (r < 0)
		return r;
	prover->current++;
	prover->part.size = 0;
	return 0;
}

/* Add a complete subtree [first, end) of entries that retention has deleted. */
static int add_subtree(struct tree_hasher *hasher, struct tree_prover *prover, uint64_t first,
		       uint64_t end, const struct tree_hash *hash)
{
	const struct tree_range *range = &prover->ranges[prover->current];

	if (prover->current == prover->proof.n || end <= range->first)
		return 0;
	if (first < range->first || end > range->end)
		return -ENODATA;
	/* Subtrees come in order of size, the largest first, so they form a frontier. */
	prover->part.hashes[tree_frontier_count(prover->part.size)] = *hash;
	prover->part.size += end - first;
	return end == range->end ? finish_range(hasher, prover) : 0;
}

static int begin(struct tree_hasher *hasher, struct tree_prover *prover,
		 const struct ranges *ranges, uint64_t size, const struct tree_frontier *base)
{
	uint64_t first = 0;
	unsigned place = 0;

	*prover = (struct tree_prover){.size = size};
	prover->proof.n = ranges->n;
	for (unsigned i = ranges->n; i > 0; i--, place++) {
		prover->ranges[place] = ranges->list[i - 1];
		prover->ranges[place].place = place;
	}
	qsort(prover->ranges, ranges->n, sizeof(prover->ranges[0]), compare_ranges);
	if (!base)
		return 0;
	prover->next = base->size;
	for (unsigned i = 0; i < tree_frontier_count(base->size); i++) {
		const uint64_t left = base->size - first;
		const uint64_t end = first + (UINT64_C(1) << (63 - __builtin_clzll(left)));
		int r = add_subtree(hasher, prover, first, end, &base->hashes[i]);

		if (r < 0)
			return r;
		first = end;
	}
	return 0;
}

int tree_prover_begin_inclusion(struct tree_hasher *hasher, struct tree_prover *prover,
				uint64_t index, uint64_t size, const struct tree_frontier *base)
{
	struct ranges ranges = {.n = 0};

	if (index >= size || size > TREE_SIZE_MAX || (base && base->size > size))
		return -ERANGE;
	inclusion_ranges(&ranges, index, size);
	return begin(hasher, prover, &ranges, size, base);
}

int tree_prover_begin_consistency(struct tree_hasher *hasher, struct tree_prover *prover,
				  uint64_t old_size, uint64_t size,
				  const struct tree_frontier *base)
{
	struct ranges ranges = {.n = 0};

	if (old_size > size || size > TREE_SIZE_MAX || (base && base->size > size))
		return -ERANGE;
	if (old_size > 0 && old_size < size)
		consistency_ranges(&ranges, old_size, size);
	return begin(hasher, prover, &ranges, size, base);
}

int tree_prover_add(struct tree_hasher *hasher, struct tree_prover *prover,
		    const struct tree_hash *leaf)
{
	const uint64_t index = prover->next++;
	const struct tree_range *range = &prover->ranges[prover->current];
	int r;

	if (prover->current == prover->proof.n || index < range->first)
		return 0;
	r = tree_frontier_append(hasher, &prover->part, leaf);
	return r == 0 && index + 1 == range->end ? finish_range(hasher, prover) : r;
}

bool tree_prover_done(const struct tree_prover *prover)
{
	return prover->current == prover->proof.n;
}
