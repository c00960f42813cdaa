/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/keyring.h"

#include <stdarg.h>

#include <sodium.h>

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/sign/key.h"

struct entry {
	enum sign_algorithm algorithm;
	char kid[KID_MAX + 1];
	size_t len;
	uint8_t *bytes; /* sodium_malloc: HMAC keys are secrets */
	char **origins; /* owned; NULL: all origins */
	size_t n_origins;
	uint64_t not_after_size;
};

struct keyring {
	struct entry *entries;
	size_t n;
};

/* The file that is being read. */
struct load {
	struct keyring *ring;
	enum sign_algorithm algorithm;
	const char *path;
	const char *text; /* the whole file */
	size_t len;
	struct json_document *doc;
	char *why;
};

struct keyring *keyring_new(void)
{
	return sodium_init() < 0 ? NULL : calloc(1, sizeof(struct keyring));
}

static void free_entry(struct entry *e)
{
	for (size_t i = 0; i < e->n_origins; i++)
		free(e->origins[i]);
	free(e->origins);
	sodium_free(e->bytes);
}

void keyring_free(struct keyring *ring)
{
	if (!ring)
		return;
	for (size_t i = 0; i < ring->n; i++)
		free_entry(&ring->entries[i]);
	free(ring->entries);
	free(ring);
}

size_t keyring_count(const struct keyring *ring)
{
	return ring->n;
}

static int refuse(const struct load *load, const char *fmt, ...) _printf_(2, 3);

static int refuse(const struct load *load, const char *fmt, ...)
{
	int n = snprintf(load->why, KEYRING_WHY_MAX, "%.200s: ", load->path);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(load->why + n, KEYRING_WHY_MAX - (size_t)n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- one kid ---- */

static int read_key(const struct load *load, struct entry *e, struct wire_text text)
{
	uint8_t bytes[KEY_BYTES_MAX];
	int n = key_decode(text.data, text.len, bytes), r = 0;

	if (n < 0)
		r = refuse(load, "kid %s: expected a string of base64url", e->kid);
	else if (load->algorithm == SIGN_ED25519 && n != (int)KEY_ED25519_SIZE)
		r = refuse(load, "kid %s: %d bytes; a public key is %u", e->kid, n,
			   KEY_ED25519_SIZE);
	else if (load->algorithm == SIGN_HMAC_SHA256 && n < (int)KEY_HMAC_MIN)
		r = refuse(load, "kid %s: %d bytes; a key is at least %u", e->kid, n, KEY_HMAC_MIN);
	if (r == 0) {
		e->len = (size_t)n;
		e->bytes = sodium_malloc(e->len);
		if (e->bytes)
			memcpy(e->bytes, bytes, e->len);
		else
			r = -ENOMEM;
	}
	sodium_memzero(bytes, sizeof(bytes));
	return r;
}

static int read_origins(const struct load *load, struct entry *e, const struct json_node *list)
{
	const struct json_node *item;
	size_t n = 0;

	if (list->type != JSON_ARRAY_NODE)
		return refuse(load, "kid %s: origins: expected a list of prefixes", e->kid);
	for (item = json_child(load->doc, list); item; item = json_sibling(load->doc, item))
		n++;
	if (n < 1 || n > KEYRING_ORIGINS_MAX)
		return refuse(load, "kid %s: origins: expected 1..%u prefixes", e->kid,
			      KEYRING_ORIGINS_MAX);
	e->origins = calloc(n, sizeof(*e->origins));
	if (!e->origins)
		return -ENOMEM;
	for (item = json_child(load->doc, list); item; item = json_sibling(load->doc, item)) {
		if (item->type != JSON_STRING_NODE ||
		    !note_origin_valid(item->text.data, item->text.len))
			return refuse(load, "kid %s: origins: expected prefixes of [A-Za-z0-9._/-]",
				      e->kid);
		e->origins[e->n_origins] = strndup(item->text.data, item->text.len);
		if (!e->origins[e->n_origins])
			return -ENOMEM;
		e->n_origins++;
	}
	return 0;
}

static int read_object(const struct load *load, struct entry *e, const struct json_node *value)
{
	const struct json_node *member;
	struct wire_text text;

	if (!json_member_string(load->doc, value, "key", &text))
		return refuse(load, "kid %s: key: expected a string of base64url", e->kid);
	for (member = json_child(load->doc, value); member;
	     member = json_sibling(load->doc, member)) {
		const struct wire_text name = member->key;
		int r = 0;

		if (json_text_is(name, "key"))
			r = read_key(load, e, text);
		else if (json_text_is(name, "origins"))
			r = read_origins(load, e, member);
		else if (!json_text_is(name, "notAfterSize"))
			r = refuse(load,
				   "kid %s: a member that is none of key, origins, "
				   "notAfterSize",
				   e->kid);
		else if (!json_member_uint(load->doc, value, "notAfterSize", &e->not_after_size) ||
			 e->not_after_size > TREE_SIZE_MAX)
			r = refuse(load, "kid %s: notAfterSize: expected a number of entries",
				   e->kid);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_entry(const struct load *load, const struct json_node *value)
{
	struct keyring *ring = load->ring;
	struct entry e = {.algorithm = load->algorithm, .not_after_size = TREE_SIZE_MAX}, *entries;
	struct keyring_key known;
	int r;

	if (!kid_valid(value->key.data, value->key.len))
		return refuse(load, "a kid that is not 1..%u bytes of [A-Za-z0-9._:-]", KID_MAX);
	memcpy(e.kid, value->key.data, value->key.len);
	if (keyring_find(ring, load->algorithm, value->key, &known))
		return refuse(load, "kid %s: is in another file already", e.kid);
	if (ring->n == KEYRING_KEYS_MAX)
		return refuse(load, "more than %u keys", KEYRING_KEYS_MAX);
	if (value->type == JSON_OBJECT_NODE && load->algorithm == SIGN_ED25519)
		r = read_object(load, &e, value);
	else
		r = value->type == JSON_STRING_NODE
			    ? read_key(load, &e, value->text)
			    : refuse(load, "kid %s: expected a string of base64url", e.kid);
	entries = r == 0 ? reallocarray(ring->entries, ring->n + 1, sizeof(*entries)) : NULL;
	if (entries) {
		ring->entries = entries;
		entries[ring->n++] = e;
		return 0;
	}
	free_entry(&e);
	return r < 0 ? r : -ENOMEM;
}

/* ---- a file ---- */

/* People give the secret instead of the public key by mistake; tell them so. */
static bool is_seed(const struct load *load)
{
	uint8_t bytes[KEY_BYTES_MAX];
	const bool yes = key_decode(load->text, load->len, bytes) == (int)KEY_ED25519_SIZE;

	sodium_memzero(bytes, sizeof(bytes));
	return yes;
}

static int read_all(const struct load *load)
{
	const struct json_node *root, *value;
	const char *phrase;
	size_t offset, line = 1;
	int r = json_document_read(load->doc, load->text, load->len, &phrase, &offset);

	if (r == -EBADMSG && is_seed(load))
		return refuse(load, "this is a secret seed, not a keyring: keep it private, and "
				    "give the keyring.json with its public key");
	if (r == -EBADMSG) {
		for (size_t i = 0; i < offset && i < load->len; i++)
			line += load->text[i] == '\n';
		snprintf(load->why, KEYRING_WHY_MAX, "%.200s:%zu: %s", load->path, line, phrase);
		return -EINVAL;
	}
	if (r < 0)
		return r;
	root = json_document_root(load->doc);
	if (root->type != JSON_OBJECT_NODE)
		return refuse(load, "expected an object of kid: key");
	for (value = json_child(load->doc, root); value && r == 0;
	     value = json_sibling(load->doc, value))
		r = read_entry(load, value);
	return r;
}

int keyring_parse(struct keyring *ring, const char *text, size_t len, const char *path,
		  enum sign_algorithm algorithm, char why[KEYRING_WHY_MAX])
{
	struct load load = {
		.ring = ring,
		.algorithm = algorithm,
		.path = path,
		.text = text,
		.len = len,
		.doc = json_document_new(len),
		.why = why,
	};
	int r = load.doc ? read_all(&load) : -ENOMEM;

	if (r == -ENOMEM)
		snprintf(why, KEYRING_WHY_MAX, "%.200s: no memory", path);
	json_document_free(load.doc);
	return r;
}

int keyring_load(struct keyring *ring, const char *path, enum sign_algorithm algorithm,
		 char why[KEYRING_WHY_MAX])
{
	size_t len;
	char *text;
	int r = key_read_file(path, algorithm == SIGN_HMAC_SHA256, &text, &len, why,
			      KEYRING_WHY_MAX);

	if (r < 0)
		return r;
	r = keyring_parse(ring, text, len, path, algorithm, why);
	sodium_free(text);
	return r;
}

static const struct entry *find(const struct keyring *ring, enum sign_algorithm algorithm,
				struct wire_text kid)
{
	for (size_t i = 0; i < ring->n; i++)
		if (ring->entries[i].algorithm == algorithm &&
		    json_text_is(kid, ring->entries[i].kid))
			return &ring->entries[i];
	return NULL;
}

bool keyring_find(const struct keyring *ring, enum sign_algorithm algorithm, struct wire_text kid,
		  struct keyring_key *ret)
{
	const struct entry *e = find(ring, algorithm, kid);

	if (!e)
		return false;
	*ret = (struct keyring_key){.bytes = e->bytes, .len = e->len};
	return true;
}

/* ---- checkpoints ---- */

bool origin_has_prefix(const char *origin, const char *prefix)
{
	const size_t len = strlen(prefix);

	return len > 0 && strncmp(origin, prefix, len) == 0 &&
	       (origin[len] == '\0' || origin[len] == '/' || prefix[len - 1] == '/');
}

static bool is_for(const struct entry *e, const struct note_checkpoint *checkpoint)
{
	if (checkpoint->size > e->not_after_size)
		return false;
	for (size_t i = 0; i < e->n_origins; i++)
		if (origin_has_prefix(checkpoint->origin, e->origins[i]))
			return true;
	return e->n_origins == 0;
}

int keyring_check_note(const struct keyring *ring, struct tree_hasher *hasher,
		       const struct note *note, enum keyring_verdict *ret, const char **ret_kid)
{
	uint8_t key_id[NOTE_KEY_ID_SIZE];

	*ret = KEYRING_UNKNOWN_KEY;
	*ret_kid = NULL;
	for (size_t i = 0; i < ring->n; i++) {
		const struct entry *e = &ring->entries[i];
		enum note_result result;
		int r;

		if (e->algorithm != SIGN_ED25519)
			continue;
		r = note_key_id(hasher, note->checkpoint.origin, e->bytes, key_id);
		if (r < 0)
			return r;
		result = note_check(note, key_id, e->bytes);
		if (result == NOTE_NO_KEY)
			continue;
		if (result == NOTE_WRONG || *ret != KEYRING_SIGNED)
			*ret_kid = e->kid;
		if (result == NOTE_WRONG) {
			*ret = KEYRING_WRONG;
			return 0;
		}
		if (is_for(e, &note->checkpoint))
			*ret = KEYRING_SIGNED;
		else if (*ret == KEYRING_UNKNOWN_KEY)
			*ret = KEYRING_NOT_FOR_IT;
	}
	return 0;
}

static bool has_key_id(const struct note *note, const uint8_t key_id[static NOTE_KEY_ID_SIZE])
{
	for (unsigned i = 0; i < note->n; i++)
		if (memcmp(note->signatures[i].signature.key_id, key_id, NOTE_KEY_ID_SIZE) == 0)
			return true;
	return false;
}

/* Returns 1, 0 or -EIO. */
static int note_names_key(const struct note *note, struct tree_hasher *hasher,
			  const struct entry *e)
{
	uint8_t key_id[NOTE_KEY_ID_SIZE];
	int r = note_key_id(hasher, note->checkpoint.origin, e->bytes, key_id);

	return r < 0 ? r : has_key_id(note, key_id);
}

int keyring_kid_fits(const struct keyring *ring, struct tree_hasher *hasher,
		     const struct note *note, struct wire_text kid)
{
	const struct entry *named = find(ring, SIGN_ED25519, kid);
	unsigned known = 0;

	if (named)
		return note_names_key(note, hasher, named);
	for (size_t i = 0; i < ring->n; i++) {
		int r;

		if (ring->entries[i].algorithm != SIGN_ED25519)
			continue;
		r = note_names_key(note, hasher, &ring->entries[i]);
		if (r < 0)
			return r;
		known += (unsigned)r;
	}
	return known < note->n;
}
