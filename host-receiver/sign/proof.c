/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/proof.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/base64.h"
#include "host-receiver/evidence/text_cursor.h"

#define HEADER	     "c2sp.org/tlog-proof@v1"
#define INDEX_PREFIX "index "
#define OLD_PREFIX   "old "
#define EXTRA_PREFIX "extra "
#define BASE64	     sodium_base64_VARIANT_ORIGINAL
#define HASH_TEXT    sodium_base64_ENCODED_LEN(TREE_HASH_SIZE, BASE64)

int proof_format(bool consistency, uint64_t number, const struct tree_proof *tree, const char *note,
		 size_t note_len, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%s%s%" PRIu64 "\n", consistency ? "" : HEADER "\n",
			 consistency ? OLD_PREFIX : INDEX_PREFIX, number);
	size_t used = (size_t)n;

	if (used + tree->n * HASH_TEXT + 1 + note_len >= size)
		return -ENOBUFS;
	for (unsigned i = 0; i < tree->n; i++) {
		sodium_bin2base64(ret + used, HASH_TEXT, tree->hashes[i].bytes, TREE_HASH_SIZE,
				  BASE64);
		used += HASH_TEXT;
		ret[used - 1] = '\n';
	}
	ret[used++] = '\n';
	memcpy(ret + used, note, note_len);
	ret[used + note_len] = '\0';
	return (int)(used + note_len);
}

static bool begins(const char *line, size_t len, const char *prefix)
{
	return len >= strlen(prefix) && memcmp(line, prefix, strlen(prefix)) == 0;
}

static bool read_hashes(struct text_cursor *c, struct tree_proof *tree)
{
	const char *line;
	size_t len, n;

	for (;;) {
		if (!text_take_line(c, &line, &len))
			return false;
		if (len == 0)
			return true;
		if (tree->n == TREE_PROOF_MAX ||
		    !base64_decode(line, len, BASE64, tree->hashes[tree->n].bytes, TREE_HASH_SIZE,
				   &n) ||
		    n != TREE_HASH_SIZE)
			return false;
		tree->n++;
	}
}

/* Read the first lines, up to the number. Returns NULL, or a reason. */
static const char *read_head(struct text_cursor *c, struct proof *proof)
{
	const char *line, *prefix = OLD_PREFIX;
	size_t len;

	if (!text_take_line(c, &line, &len))
		return "not a proof: it has no lines";
	proof->consistency = !(len == strlen(HEADER) && begins(line, len, HEADER));
	if (!proof->consistency) {
		prefix = INDEX_PREFIX;
		if (!text_take_line(c, &line, &len))
			return "a proof without an index";
		/* An application may put anything here; the proof does not cover it. */
		if (begins(line, len, EXTRA_PREFIX) && !text_take_line(c, &line, &len))
			return "a proof without an index";
	}
	if (!begins(line, len, prefix) ||
	    !text_read_size(line + strlen(prefix), len - strlen(prefix), &proof->number))
		return proof->consistency ? "not a proof: it begins neither with " HEADER
					    " nor with \"old\""
					  : "a proof without an index";
	return NULL;
}

int proof_parse(const char *text, size_t len, struct proof *ret, const char **ret_why)
{
	struct text_cursor c = {.at = text, .end = text + len};
	const char *why;

	*ret = (struct proof){.number = 0};
	why = len > PROOF_TEXT_MAX ? "a proof that is too long" : read_head(&c, ret);
	if (!why && !read_hashes(&c, &ret->tree))
		why = "a proof whose hashes are not hashes";
	if (why) {
		*ret_why = why;
		return -EBADMSG;
	}
	return note_parse(c.at, (size_t)(c.end - c.at), &ret->note, ret_why);
}
