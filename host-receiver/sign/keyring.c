/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/keyring.h"

#include <jansson.h>
#include <sodium.h>

#include "common/util.h"
#include "host-receiver/sign/key.h"

struct entry {
	enum sign_algorithm algorithm;
	char kid[KID_MAX + 1];
	size_t len;
	uint8_t *bytes; /* sodium_malloc: HMAC keys are secrets */
};

struct keyring {
	struct entry *entries;
	size_t n;
};

struct keyring *keyring_new(void)
{
	return sodium_init() < 0 ? NULL : calloc(1, sizeof(struct keyring));
}

void keyring_free(struct keyring *ring)
{
	if (!ring)
		return;
	for (size_t i = 0; i < ring->n; i++)
		sodium_free(ring->entries[i].bytes);
	free(ring->entries);
	free(ring);
}

static int add(struct keyring *ring, enum sign_algorithm algorithm, const char *kid,
	       const uint8_t *bytes, size_t len)
{
	struct entry *entries = reallocarray(ring->entries, ring->n + 1, sizeof(*entries)), *e;

	if (!entries)
		return -ENOMEM;
	ring->entries = entries;
	e = &entries[ring->n];
	*e = (struct entry){.algorithm = algorithm, .len = len, .bytes = sodium_malloc(len)};
	if (!e->bytes)
		return -ENOMEM;
	snprintf(e->kid, sizeof(e->kid), "%s", kid);
	memcpy(e->bytes, bytes, len);
	ring->n++;
	return 0;
}

static int load_entry(struct keyring *ring, const char *path, enum sign_algorithm algorithm,
		      const char *kid, json_t *value, char why[KEYRING_WHY_MAX])
{
	uint8_t bytes[KEY_BYTES_MAX];
	struct keyring_key known;
	int n, r = -EINVAL;

	if (!kid_valid(kid, strlen(kid))) {
		snprintf(why, KEYRING_WHY_MAX,
			 "%.200s: a kid that is not 1..%u bytes of [A-Za-z0-9._:-]", path, KID_MAX);
		return -EINVAL;
	}
	n = json_is_string(value)
		    ? key_decode(json_string_value(value), json_string_length(value), bytes)
		    : -EINVAL;
	if (n < 0)
		snprintf(why, KEYRING_WHY_MAX, "%.200s: kid %s: expected a string of base64url",
			 path, kid);
	else if (algorithm == SIGN_ED25519 && n != (int)KEY_ED25519_SIZE)
		snprintf(why, KEYRING_WHY_MAX, "%.200s: kid %s: %d bytes; a public key is %u", path,
			 kid, n, KEY_ED25519_SIZE);
	else if (algorithm == SIGN_HMAC_SHA256 && n < (int)KEY_HMAC_MIN)
		snprintf(why, KEYRING_WHY_MAX, "%.200s: kid %s: %d bytes; a key is at least %u",
			 path, kid, n, KEY_HMAC_MIN);
	else if (keyring_find(ring, algorithm, wire_text(kid), &known))
		snprintf(why, KEYRING_WHY_MAX, "%.200s: kid %s: is in another file already", path,
			 kid);
	else
		r = add(ring, algorithm, kid, bytes, (size_t)n);
	sodium_memzero(bytes, sizeof(bytes));
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

int keyring_parse(struct keyring *ring, const char *text, size_t len, const char *path,
		  enum sign_algorithm algorithm, char why[KEYRING_WHY_MAX])
{
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error), *value;
	const char *kid;
	int r = 0;

	if (!root) {
		snprintf(why, KEYRING_WHY_MAX, "%.200s:%d: %s", path, error.line, error.text);
		return -EINVAL;
	}
	if (!json_is_object(root)) {
		snprintf(why, KEYRING_WHY_MAX, "%.200s: expected an object of kid: key", path);
		r = -EINVAL;
	}
	json_object_foreach(root, kid, value)
	{
		r = load_entry(ring, path, algorithm, kid, value, why);
		if (r < 0)
			break;
	}
	json_decref(root);
	return r;
}

bool keyring_find(const struct keyring *ring, enum sign_algorithm algorithm, struct wire_text kid,
		  struct keyring_key *ret)
{
	for (size_t i = 0; i < ring->n; i++) {
		const struct entry *e = &ring->entries[i];

		if (e->algorithm != algorithm || strlen(e->kid) != kid.len ||
		    memcmp(e->kid, kid.data, kid.len) != 0)
			continue;
		*ret = (struct keyring_key){.bytes = e->bytes, .len = e->len};
		return true;
	}
	return false;
}
