/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/note.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/base64.h"
#include "host-receiver/evidence/text_cursor.h"

#define DASH	  "\xe2\x80\x94 " /* U+2014 and a space */
#define DASH_LEN  (sizeof(DASH) - 1)
#define BASE64	  sodium_base64_VARIANT_ORIGINAL
#define ROOT_LEN  (sodium_base64_ENCODED_LEN(TREE_HASH_SIZE, BASE64) - 1)
#define NAME_MAX_ NOTE_ORIGIN_MAX
#define BLOB_SIZE (NOTE_KEY_ID_SIZE + NOTE_SIGNATURE_SIZE)

_Static_assert(NOTE_ORIGIN_MAX + 1 + 20 + 1 + 44 + 1 < NOTE_BODY_MAX, "every body fits");

bool note_origin_valid(const char *origin, size_t len)
{
	if (len < 1 || len > NOTE_ORIGIN_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		const char c = origin[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		      c == '.' || c == '_' || c == '/' || c == '-'))
			return false;
	}
	return true;
}

int note_key_id(struct tree_hasher *hasher, const char *origin, const uint8_t public_key[static 32],
		uint8_t ret[static NOTE_KEY_ID_SIZE])
{
	uint8_t tail[2 + 32] = {'\n', 1};
	struct tree_hash hash;
	int r;

	memcpy(tail + 2, public_key, 32);
	r = tree_hash_two(hasher, origin, strlen(origin), tail, sizeof(tail), &hash);
	if (r < 0)
		return r;
	memcpy(ret, hash.bytes, NOTE_KEY_ID_SIZE);
	return 0;
}

/* ---- writing ---- */

int note_format_body(const struct note_checkpoint *checkpoint, char ret[static NOTE_BODY_MAX])
{
	char root[ROOT_LEN + 1];

	if (!note_origin_valid(checkpoint->origin, strlen(checkpoint->origin)) ||
	    checkpoint->size > TREE_SIZE_MAX)
		return -EINVAL;
	sodium_bin2base64(root, sizeof(root), checkpoint->root.bytes, TREE_HASH_SIZE, BASE64);
	return snprintf(ret, NOTE_BODY_MAX, "%s\n%" PRIu64 "\n%s\n", checkpoint->origin,
			checkpoint->size, root);
}

int note_format(const struct note_checkpoint *checkpoint, const struct note_signature *signatures,
		unsigned n, char *ret, size_t size)
{
	char body[NOTE_BODY_MAX];
	int len = note_format_body(checkpoint, body);
	size_t used;

	if (len < 0 || n < 1 || n > NOTE_OWN_MAX)
		return -EINVAL;
	if ((size_t)len + 2 > size)
		return -ENOBUFS;
	memcpy(ret, body, (size_t)len);
	ret[len] = '\n';
	used = (size_t)len + 1;
	for (unsigned i = 0; i < n; i++) {
		char text[sodium_base64_ENCODED_LEN(BLOB_SIZE, BASE64)];
		uint8_t blob[BLOB_SIZE];

		memcpy(blob, signatures[i].key_id, NOTE_KEY_ID_SIZE);
		memcpy(blob + NOTE_KEY_ID_SIZE, signatures[i].bytes, NOTE_SIGNATURE_SIZE);
		sodium_bin2base64(text, sizeof(text), blob, sizeof(blob), BASE64);
		len = snprintf(ret + used, size - used, DASH "%s %s\n", checkpoint->origin, text);
		if (len < 0 || (size_t)len >= size - used)
			return -ENOBUFS;
		used += (size_t)len;
	}
	return (int)used;
}

/* ---- reading ---- */

struct cursor {
	struct text_cursor text;
	const char *why;
};

static int fail(struct cursor *c, const char *why)
{
	c->why = why;
	return -EBADMSG;
}

/* Strict: the alphabet of RFC 4648 section 4, padded, no bits left over. */
static bool read_base64(const char *text, size_t len, uint8_t *out, size_t size, size_t *ret_len)
{
	return base64_decode(text, len, BASE64, out, size, ret_len);
}

static int read_body(struct cursor *c, struct note *note)
{
	struct note_checkpoint *checkpoint = &note->checkpoint;
	const char *begin = c->text.at, *line;
	size_t len, n;

	if (!text_take_line(&c->text, &line, &len) || !note_origin_valid(line, len))
		return fail(c, "the first line of a checkpoint is not an origin");
	memcpy(checkpoint->origin, line, len);
	checkpoint->origin[len] = '\0';
	if (!text_take_line(&c->text, &line, &len) || !text_read_size(line, len, &checkpoint->size))
		return fail(c, "the second line of a checkpoint is not a size");
	if (!text_take_line(&c->text, &line, &len) || len != ROOT_LEN ||
	    !read_base64(line, len, checkpoint->root.bytes, TREE_HASH_SIZE, &n) ||
	    n != TREE_HASH_SIZE)
		return fail(c, "the third line of a checkpoint is not a root hash");
	note->body_len = (size_t)(c->text.at - begin);
	memcpy(note->body, begin, note->body_len);
	if (!text_take_line(&c->text, &line, &len) || len != 0)
		return fail(c, "a checkpoint has more than an origin, a size and a root");
	return 0;
}

/* The name of a key is not empty and has no space and no plus sign (signed-note). */
static bool name_valid(const char *name, size_t len)
{
	return len > 0 && len <= NAME_MAX_ && !memchr(name, '+', len);
}

static int read_signature(struct cursor *c, struct note *note)
{
	const struct note_checkpoint *checkpoint = &note->checkpoint;
	uint8_t blob[NOTE_TEXT_MAX];
	const char *line, *space;
	struct note_line *own;
	size_t len, n, name_len;

	if (!text_take_line(&c->text, &line, &len) || len <= DASH_LEN ||
	    memcmp(line, DASH, DASH_LEN) != 0)
		return fail(c, "a signature line of a checkpoint does not begin with a dash");
	line += DASH_LEN;
	len -= DASH_LEN;
	space = memchr(line, ' ', len);
	name_len = space ? (size_t)(space - line) : 0;
	if (!name_valid(line, name_len))
		return fail(c, "a signature line of a checkpoint has no name");
	if (!read_base64(space + 1, len - name_len - 1, blob, sizeof(blob), &n) ||
	    n <= NOTE_KEY_ID_SIZE)
		return fail(c, "a signature line of a checkpoint has no signature");
	if (note->lines++ == NOTE_SIGNATURES_MAX)
		return fail(c, "a checkpoint has too many signature lines");
	if (name_len != strlen(checkpoint->origin) ||
	    memcmp(line, checkpoint->origin, name_len) != 0)
		return 0;
	own = &note->signatures[note->n++];
	memcpy(own->signature.key_id, blob, NOTE_KEY_ID_SIZE);
	own->whole = n == BLOB_SIZE;
	if (own->whole)
		memcpy(own->signature.bytes, blob + NOTE_KEY_ID_SIZE, NOTE_SIGNATURE_SIZE);
	return 0;
}

int note_parse(const char *text, size_t len, struct note *ret, const char **ret_why)
{
	struct cursor c = {.text = {.at = text, .end = text + len}};
	struct note note = {.n = 0};
	int r;

	if (len > NOTE_TEXT_MAX) {
		*ret_why = "a checkpoint is too long";
		return -EBADMSG;
	}
	r = read_body(&c, &note);
	if (r == 0 && c.text.at == c.text.end)
		r = fail(&c, "a checkpoint has no signature line");
	while (r == 0 && c.text.at < c.text.end)
		r = read_signature(&c, &note);
	if (r == 0)
		*ret = note;
	else
		*ret_why = c.why;
	return r;
}

enum note_result note_check(const struct note *note, const uint8_t key_id[static NOTE_KEY_ID_SIZE],
			    const uint8_t public_key[static 32])
{
	enum note_result result = NOTE_NO_KEY;

	for (unsigned i = 0; i < note->n; i++) {
		const struct note_line *line = &note->signatures[i];

		if (memcmp(line->signature.key_id, key_id, NOTE_KEY_ID_SIZE) != 0)
			continue;
		if (!line->whole ||
		    crypto_sign_verify_detached(line->signature.bytes, (const uint8_t *)note->body,
						note->body_len, public_key) != 0)
			return NOTE_WRONG;
		result = NOTE_SIGNED;
	}
	return result;
}
