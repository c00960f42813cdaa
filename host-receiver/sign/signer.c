/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/signer.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/sign/key.h"

_Static_assert(SIGN_KID_MAX == KID_MAX, "one limit for kids");

#define ENV_ALG		"CELLOS_HOST_TELEMETRY_SIGN_ALG"
#define ENV_KID		"CELLOS_HOST_TELEMETRY_SIGN_KID"
#define ENV_ED25519_KEY "CELLOS_HOST_TELEMETRY_SIGN_ED25519_KEY"
#define ENV_HMAC_KEY	"CELLOS_HOST_TELEMETRY_SIGN_HMAC_KEY"
#define CREDENTIAL_NAME "cellos-sign-key"

#define SIGNATURE_MAX 64u
_Static_assert(SIGNATURE_MAX >= crypto_sign_BYTES && SIGNATURE_MAX >= crypto_auth_hmacsha256_BYTES,
	       "room for either signature");

struct signer {
	enum sign_algorithm algorithm;
	char kid[SIGN_KID_MAX + 1];
	/* In locked memory; the one that the algorithm uses. */
	union signer_secret {
		uint8_t ed25519[crypto_sign_SECRETKEYBYTES];
		crypto_auth_hmacsha256_state hmac;
	} * secret;
};

static const char *const algorithm_names[] = {
	[SIGN_OFF] = "off",
	[SIGN_ED25519] = "ed25519",
	[SIGN_HMAC_SHA256] = "hmac-sha256",
};
_Static_assert(ARRAY_SIZE(algorithm_names) == _SIGN_ALGORITHM_MAX, "a name for each algorithm");

static const char *const key_variables[] = {
	[SIGN_ED25519] = ENV_ED25519_KEY,
	[SIGN_HMAC_SHA256] = ENV_HMAC_KEY,
};

int sign_algorithm_from_string(const char *s, enum sign_algorithm *ret)
{
	for (int i = 0; i < _SIGN_ALGORITHM_MAX; i++)
		if (strcmp(s, algorithm_names[i]) == 0) {
			*ret = (enum sign_algorithm)i;
			return 0;
		}
	return -EINVAL;
}

const char *sign_algorithm_name(enum sign_algorithm algorithm)
{
	return algorithm_names[algorithm];
}

/* Where the key's text comes from, for messages, and the text itself. */
struct key_text {
	const char *origin;
	const char *data;
	size_t len;
	char *file; /* sodium_malloc memory behind data, or NULL */
	char path[512];
};

static int find_key(const struct signer_options *o, enum sign_algorithm algorithm,
		    struct key_text *ret, char why[SIGN_WHY_MAX])
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	const enum sign_algorithm other =
		algorithm == SIGN_ED25519 ? SIGN_HMAC_SHA256 : SIGN_ED25519;
	const char *path = o->key_file;

	*ret = (struct key_text){0};
	if (!path && credentials) {
		snprintf(ret->path, sizeof(ret->path), "%s/" CREDENTIAL_NAME, credentials);
		if (access(ret->path, F_OK) == 0)
			path = ret->path;
	}
	if (path) {
		ret->origin = path;
		int r = key_read_file(path, true, &ret->file, &ret->len, why, SIGN_WHY_MAX);

		ret->data = ret->file;
		return r;
	}
	ret->origin = key_variables[algorithm];
	ret->data = getenv(key_variables[algorithm]);
	if (ret->data && *ret->data) {
		ret->len = strlen(ret->data);
		return 0;
	}
	if (getenv(key_variables[other]))
		snprintf(why, SIGN_WHY_MAX, "algorithm %s, but the key is in %s, which is for %s",
			 algorithm_names[algorithm], key_variables[other], algorithm_names[other]);
	else
		snprintf(why, SIGN_WHY_MAX,
			 "algorithm %s without a key: give --sign-key-file FILE, %s or a systemd "
			 "credential " CREDENTIAL_NAME,
			 algorithm_names[algorithm], key_variables[algorithm]);
	return -ENOKEY;
}

/* Decode the text and make the secret of it. Whatever happens, no copy of the bytes stays. */
static int make_secret(struct signer *s, const struct key_text *text, char why[SIGN_WHY_MAX])
{
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES], bytes[KEY_BYTES_MAX];
	int n = key_decode(text->data, text->len, bytes), r = 0;

	if (n < 0) {
		snprintf(why, SIGN_WHY_MAX, "%s: expected base64url", text->origin);
		r = -EINVAL;
	} else if (s->algorithm == SIGN_ED25519 && n != (int)KEY_ED25519_SIZE) {
		snprintf(why, SIGN_WHY_MAX, "%s: %d bytes; an ed25519 seed is %u", text->origin, n,
			 KEY_ED25519_SIZE);
		r = -EINVAL;
	} else if (s->algorithm == SIGN_HMAC_SHA256 && n < (int)KEY_HMAC_MIN) {
		snprintf(why, SIGN_WHY_MAX, "%s: %d bytes; an hmac-sha256 key is at least %u",
			 text->origin, n, KEY_HMAC_MIN);
		r = -EINVAL;
	} else if (s->algorithm == SIGN_ED25519) {
		crypto_sign_seed_keypair(public_key, s->secret->ed25519, bytes);
	} else {
		crypto_auth_hmacsha256_init(&s->secret->hmac, bytes, (size_t)n);
	}
	sodium_memzero(bytes, sizeof(bytes));
	return r;
}

static int open_with_key(const struct signer_options *o, const char *kid, struct signer *s,
			 char why[SIGN_WHY_MAX])
{
	struct key_text text;
	int r;

	if (!kid || !kid_valid(kid, strlen(kid))) {
		snprintf(
			why, SIGN_WHY_MAX,
			"algorithm %s needs a kid of 1..%u bytes of [A-Za-z0-9._:-]: give --sign-kid "
			"or " ENV_KID,
			algorithm_names[s->algorithm], SIGN_KID_MAX);
		return -EINVAL;
	}
	snprintf(s->kid, sizeof(s->kid), "%s", kid);
	s->secret = sodium_malloc(sizeof(*s->secret));
	if (!s->secret) {
		snprintf(why, SIGN_WHY_MAX, "no memory that can be locked for the key");
		return -ENOMEM;
	}
	r = find_key(o, s->algorithm, &text, why);
	if (r == 0)
		r = make_secret(s, &text, why);
	sodium_free(text.file);
	return r;
}

/* unsetenv() only forgets the pointer; the bytes stay readable in /proc/PID/environ. */
static void wipe_variable(const char *name)
{
	char *value = getenv(name);

	if (value)
		sodium_memzero(value, strlen(value));
	unsetenv(name);
}

static int configure(const struct signer_options *o, struct signer *s, char why[SIGN_WHY_MAX])
{
	const char *algorithm = o->algorithm ? o->algorithm : getenv(ENV_ALG);
	const char *kid = o->kid ? o->kid : getenv(ENV_KID);

	if (!algorithm || !*algorithm) {
		/* A key without a mode is a mistake, not a wish to go unsigned. */
		if (kid || o->key_file || getenv(ENV_ED25519_KEY) || getenv(ENV_HMAC_KEY)) {
			snprintf(why, SIGN_WHY_MAX,
				 "a signing key or kid is given, but no algorithm: give --sign-alg "
				 "or " ENV_ALG);
			return -EINVAL;
		}
		return 0;
	}
	if (sign_algorithm_from_string(algorithm, &s->algorithm) < 0) {
		snprintf(why, SIGN_WHY_MAX,
			 "signing algorithm %.64s: expected off, ed25519 or hmac-sha256",
			 algorithm);
		return -EINVAL;
	}
	return s->algorithm == SIGN_OFF ? 0 : open_with_key(o, kid, s, why);
}

int signer_open(const struct signer_options *options, struct signer **ret, char why[SIGN_WHY_MAX])
{
	struct signer *s;
	int r;

	if (sodium_init() < 0) {
		snprintf(why, SIGN_WHY_MAX, "libsodium cannot start");
		return -EIO;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	r = configure(options, s, why);
	wipe_variable(ENV_ED25519_KEY);
	wipe_variable(ENV_HMAC_KEY);
	wipe_variable(ENV_KID);
	wipe_variable(ENV_ALG);
	if (r < 0) {
		signer_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void signer_free(struct signer *signer)
{
	if (!signer)
		return;
	sodium_free(signer->secret);
	free(signer);
}

enum sign_algorithm signer_algorithm(const struct signer *signer)
{
	return signer->algorithm;
}

const char *signer_kid(const struct signer *signer)
{
	return signer->kid;
}

/* base64url without padding; returns its length. */
static size_t sign(const struct signer *s, const char *data, size_t len, char *out, size_t size)
{
	uint8_t signature[SIGNATURE_MAX];
	size_t n = crypto_sign_BYTES;

	if (s->algorithm == SIGN_ED25519) {
		crypto_sign_detached(signature, NULL, (const uint8_t *)data, len,
				     s->secret->ed25519);
	} else {
		/* The state holds the key already mixed in; it is copied, never changed. */
		crypto_auth_hmacsha256_state state = s->secret->hmac;

		crypto_auth_hmacsha256_update(&state, (const uint8_t *)data, len);
		crypto_auth_hmacsha256_final(&state, signature);
		sodium_memzero(&state, sizeof(state));
		n = crypto_auth_hmacsha256_BYTES;
	}
	sodium_bin2base64(out, size, signature, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return strlen(out);
}

static int end_line(struct json_writer *w, size_t *ret_len)
{
	int r = json_writer_done(w, ret_len);

	if (r < 0 || *ret_len >= w->size)
		return -ENOBUFS;
	w->buf[(*ret_len)++] = '\n';
	return 0;
}

int signer_write_line(const struct signer *s, const struct signer_event *event, char *out,
		      size_t size, size_t *ret_len)
{
	char signature[sodium_base64_ENCODED_LEN(SIGNATURE_MAX,
						 sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	struct json_writer w;
	size_t n;

	json_writer_init(&w, out, size);
	if (s->algorithm == SIGN_OFF) {
		json_put_raw(&w, event->json, event->json_len);
		return end_line(&w, ret_len);
	}
	n = sign(s, event->json, event->json_len, signature, sizeof(signature));
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	json_put_begin_object(&w);
	json_put_kv_string(&w, "algorithm", algorithm_names[s->algorithm]);
	json_put_key(&w, "event");
	json_put_raw(&w, event->json, event->json_len);
	json_put_kv_text(&w, "signature", (struct wire_text){signature, n});
	json_put_kv_string(&w, "signerKid", s->kid);
	json_put_end_object(&w);
	json_put_kv_string(&w, "datacontenttype", "application/json");
	json_put_kv_text(&w, "id", event->id);
	json_put_kv_text(&w, "source", event->source);
	json_put_kv_string(&w, "specversion", "1.0");
	json_put_kv_text(&w, "time", event->time);
	json_put_kv_string(&w, "type", SIGN_ENVELOPE_TYPE);
	json_put_end_object(&w);
	return end_line(&w, ret_len);
}
