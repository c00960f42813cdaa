/* SPDX-License-Identifier: MIT */
/* The tree: published roots, every frontier and every proof of small trees, and wrong proofs. */
#include "common/util.h"
#include "host-receiver/evidence/tree.h"
#include "tests/unit/unit.h"

#define SIZE_MAX_TESTED 70u

static struct tree_hasher *hasher;
static struct tree_hash leaves[SIZE_MAX_TESTED];
static struct tree_frontier frontiers[SIZE_MAX_TESTED + 1];
static struct tree_hash roots[SIZE_MAX_TESTED + 1];

/* By definition, RFC 6962 section 2.1: what the frontier's code must agree with. */
static struct tree_hash recursive_root(const struct tree_hash *first, uint64_t n)
{
	struct tree_hash left, right;
	uint64_t k = 1;

	if (n == 1)
		return *first;
	while (k * 2 < n)
		k *= 2;
	left = recursive_root(first, k);
	right = recursive_root(first + k, n - k);
	ck_assert_int_eq(tree_hash_node(hasher, &left, &right, &left), 0);
	return left;
}

static void setup(void)
{
	hasher = tree_hasher_new();
	ck_assert_ptr_nonnull(hasher);
	for (uint64_t i = 0; i < SIZE_MAX_TESTED; i++)
		ck_assert_int_eq(tree_hash_leaf(hasher, &i, sizeof(i), &leaves[i]), 0);
	for (uint64_t n = 0; n <= SIZE_MAX_TESTED; n++) {
		if (n > 0) {
			frontiers[n] = frontiers[n - 1];
			ck_assert_int_eq(
				tree_frontier_append(hasher, &frontiers[n], &leaves[n - 1]), 0);
		}
		ck_assert_uint_eq(frontiers[n].size, n);
		ck_assert_int_eq(tree_frontier_root(hasher, &frontiers[n], &roots[n]), 0);
	}
}

static void teardown(void)
{
	tree_hasher_free(hasher);
}

static struct tree_hash from_hex(const char *hex)
{
	struct tree_hash hash;

	for (unsigned i = 0; i < TREE_HASH_SIZE; i++)
		ck_assert_int_eq(sscanf(hex + 2 * i, "%2hhx", &hash.bytes[i]), 1);
	return hash;
}

/* The roots that Certificate Transparency's implementations test themselves with. */
UNIT_TEST(published_roots)
{
	static const struct {
		const char *entry;
		size_t len;
		const char *root;
	} steps[] = {
		{"", 0, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
		{"\x00", 1, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
		{"\x10", 1, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
		{"\x20\x21", 2, "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
		{"\x30\x31", 2, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
		{"\x40\x41\x42\x43", 4,
		 "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
		{"\x50\x51\x52\x53\x54\x55\x56\x57", 8,
		 "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
		{"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f", 16,
		 "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
	};
	const struct tree_hash empty =
		from_hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	struct tree_frontier frontier = {.size = 0};
	struct tree_hash hash, root;

	ck_assert(tree_hash_equal(&roots[0], &empty));
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		ck_assert_int_eq(tree_hash_leaf(hasher, steps[i].entry, steps[i].len, &hash), 0);
		ck_assert_int_eq(tree_frontier_append(hasher, &frontier, &hash), 0);
		ck_assert_int_eq(tree_frontier_root(hasher, &frontier, &root), 0);
		hash = from_hex(steps[i].root);
		ck_assert_msg(tree_hash_equal(&root, &hash), "size %zu", i + 1);
	}
}

UNIT_TEST(a_frontier_is_the_tree)
{
	for (uint64_t n = 1; n <= SIZE_MAX_TESTED; n++) {
		const struct tree_hash want = recursive_root(leaves, n);

		ck_assert_msg(tree_hash_equal(&roots[n], &want), "size %" PRIu64, n);
		ck_assert_uint_eq(tree_frontier_count(n), (unsigned)__builtin_popcountll(n));
	}
}

UNIT_TEST(the_largest_size_is_a_limit)
{
	struct tree_frontier frontier = {.size = TREE_SIZE_MAX - 1}, before;

	ck_assert_int_eq(tree_frontier_append(hasher, &frontier, &leaves[0]), 0);
	ck_assert_uint_eq(frontier.size, TREE_SIZE_MAX);
	before = frontier;
	ck_assert_int_eq(tree_frontier_append(hasher, &frontier, &leaves[0]), -EOVERFLOW);
	ck_assert_int_eq(memcmp(&frontier, &before, sizeof(before)), 0);
}

/* The proof for a log of which only the entries from base on are left. */
static void feed(struct tree_prover *prover, uint64_t base, uint64_t size)
{
	for (uint64_t i = base; i < size; i++) {
		ck_assert_uint_eq(prover->next, i);
		ck_assert_int_eq(tree_prover_add(hasher, prover, &leaves[i]), 0);
	}
	ck_assert(tree_prover_done(prover));
}

UNIT_TEST(every_inclusion_is_proven)
{
	for (uint64_t size = 1; size <= SIZE_MAX_TESTED; size++)
		for (uint64_t index = 0; index < size; index++) {
			struct tree_prover prover;

			ck_assert_int_eq(
				tree_prover_begin_inclusion(hasher, &prover, index, size, NULL), 0);
			feed(&prover, 0, size);
			ck_assert_int_eq(tree_check_inclusion(hasher, index, size, &leaves[index],
							      &prover.proof, &roots[size]),
					 0);
		}
}

UNIT_TEST(a_wrong_inclusion_is_refused)
{
	const uint64_t size = 13, index = 5;
	struct tree_prover prover;
	struct tree_proof wrong;

	ck_assert_int_eq(tree_prover_begin_inclusion(hasher, &prover, index, size, NULL), 0);
	feed(&prover, 0, size);
	for (uint64_t i = 0; i < size + 3; i++)
		ck_assert_int_eq(tree_check_inclusion(hasher, i, size, &leaves[index],
						      &prover.proof, &roots[size]),
				 i == index ? 0 : -EBADMSG);
	ck_assert_int_eq(tree_check_inclusion(hasher, index, size, &leaves[index + 1],
					      &prover.proof, &roots[size]),
			 -EBADMSG);
	ck_assert_int_eq(tree_check_inclusion(hasher, index, size, &leaves[index], &prover.proof,
					      &roots[size + 1]),
			 -EBADMSG);
	ck_assert_int_eq(
		tree_check_inclusion(hasher, 0, 0, &leaves[0], &(struct tree_proof){0}, &roots[0]),
		-EBADMSG);
	for (unsigned i = 0; i < prover.proof.n; i++) {
		wrong = prover.proof;
		wrong.hashes[i].bytes[i] ^= 1;
		ck_assert_int_eq(tree_check_inclusion(hasher, index, size, &leaves[index], &wrong,
						      &roots[size]),
				 -EBADMSG);
	}
	wrong = prover.proof;
	wrong.n--;
	ck_assert_int_eq(
		tree_check_inclusion(hasher, index, size, &leaves[index], &wrong, &roots[size]),
		-EBADMSG);
	wrong.n += 2;
	ck_assert_int_eq(
		tree_check_inclusion(hasher, index, size, &leaves[index], &wrong, &roots[size]),
		-EBADMSG);
}

UNIT_TEST(every_consistency_is_proven)
{
	for (uint64_t size = 0; size <= SIZE_MAX_TESTED; size++)
		for (uint64_t old = 0; old <= size; old++) {
			struct tree_prover prover;
			struct tree_proof wrong;

			ck_assert_int_eq(
				tree_prover_begin_consistency(hasher, &prover, old, size, NULL), 0);
			feed(&prover, 0, size);
			ck_assert_int_eq(tree_check_consistency(hasher, old, &roots[old], size,
								&roots[size], &prover.proof),
					 0);
			if (old == 0 || old == size)
				ck_assert_uint_eq(prover.proof.n, 0);
			wrong = prover.proof;
			wrong.hashes[wrong.n++] = leaves[0];
			ck_assert_int_eq(tree_check_consistency(hasher, old, &roots[old], size,
								&roots[size], &wrong),
					 -EBADMSG);
			for (unsigned i = 0; i < prover.proof.n; i++) {
				wrong = prover.proof;
				wrong.hashes[i].bytes[0] ^= 0x80;
				ck_assert_int_eq(tree_check_consistency(hasher, old, &roots[old],
									size, &roots[size], &wrong),
						 -EBADMSG);
			}
		}
}

UNIT_TEST(another_tree_is_not_consistent)
{
	struct tree_prover prover;

	ck_assert_int_eq(tree_prover_begin_consistency(hasher, &prover, 11, 29, NULL), 0);
	feed(&prover, 0, 29);
	for (uint64_t n = 0; n <= 30; n++) {
		ck_assert_int_eq(
			tree_check_consistency(hasher, n, &roots[n], 29, &roots[29], &prover.proof),
			n == 11 ? 0 : -EBADMSG);
		ck_assert_int_eq(
			tree_check_consistency(hasher, 11, &roots[11], n, &roots[n], &prover.proof),
			n == 29 ? 0 : -EBADMSG);
	}
	ck_assert_int_eq(
		tree_check_consistency(hasher, 0, &roots[1], 5, &roots[5], &(struct tree_proof){0}),
		-EBADMSG);
}

UNIT_TEST(proofs_from_what_retention_left)
{
	const uint64_t size = SIZE_MAX_TESTED;
	struct tree_prover prover;

	for (uint64_t base = 0; base <= size; base++) {
		for (uint64_t index = base; index < size; index++) {
			ck_assert_int_eq(tree_prover_begin_inclusion(hasher, &prover, index, size,
								     &frontiers[base]),
					 0);
			feed(&prover, base, size);
			ck_assert_int_eq(tree_check_inclusion(hasher, index, size, &leaves[index],
							      &prover.proof, &roots[size]),
					 0);
		}
		for (uint64_t old = base; old <= size; old++) {
			ck_assert_int_eq(tree_prover_begin_consistency(hasher, &prover, old, size,
								       &frontiers[base]),
					 0);
			feed(&prover, base, size);
			ck_assert_int_eq(tree_check_consistency(hasher, old, &roots[old], size,
								&roots[size], &prover.proof),
					 0);
		}
	}
	/* Entry 5's neighbours are in a subtree of which only the hash is left. */
	ck_assert_int_eq(tree_prover_begin_inclusion(hasher, &prover, 5, size, &frontiers[8]),
			 -ENODATA);
	ck_assert_int_eq(tree_prover_begin_consistency(hasher, &prover, 5, size, &frontiers[8]),
			 -ENODATA);
	ck_assert_int_eq(tree_prover_begin_inclusion(hasher, &prover, 9, 9, NULL), -ERANGE);
	ck_assert_int_eq(tree_prover_begin_inclusion(hasher, &prover, 3, 7, &frontiers[8]),
			 -ERANGE);
	ck_assert_int_eq(tree_prover_begin_consistency(hasher, &prover, 10, 9, NULL), -ERANGE);
}

UNIT_SUITE(.setup_once = setup, .teardown_once = teardown);
