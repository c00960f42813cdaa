/* SPDX-License-Identifier: MIT */
/* Checkpoints and proofs: what is read is written again to the same bytes, and proofs are checked.
 */
#include "common/util.h"
#include "host-receiver/sign/proof.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_note(const char *text, size_t len)
{
	static const uint8_t key[32] = {1}, key_id[NOTE_KEY_ID_SIZE] = {2};
	char body[NOTE_BODY_MAX];
	const char *why = NULL;
	struct note note;

	if (note_parse(text, len, &note, &why) < 0) {
		if (!why || !*why)
			abort();
		return;
	}
	if (note_format_body(&note.checkpoint, body) != (int)note.body_len ||
	    memcmp(body, text, note.body_len) != 0 || note.n > note.lines || note.lines < 1 ||
	    note.lines > NOTE_SIGNATURES_MAX)
		abort();
	note_check(&note, key_id, key);
}

static void read_proof(const char *text, size_t len)
{
	static struct tree_hasher *hasher;
	const struct tree_hash leaf = {.bytes = {3}};
	const char *why = NULL;
	struct proof proof;

	if (proof_parse(text, len, &proof, &why) < 0) {
		if (!why || !*why)
			abort();
		return;
	}
	if (!hasher)
		hasher = tree_hasher_new();
	tree_check_inclusion(hasher, proof.number, proof.note.checkpoint.size, &leaf, &proof.tree,
			     &proof.note.checkpoint.root);
	tree_check_consistency(hasher, proof.number, &leaf, proof.note.checkpoint.size,
			       &proof.note.checkpoint.root, &proof.tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_note((const char *)data, size);
	read_proof((const char *)data, size);
	return 0;
}
