/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/signing_key.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/sign/key.h"

_Static_assert(SIGN_KID_MAX == KID_MAX, "one limit for kids");
_Static_assert(SIGN_SIGNATURE_MAX >= crypto_sign_BYTES &&
		       SIGN_SIGNATURE_MAX >= crypto_auth_hmacsha256_BYTES,
	       "room for either signature");

#define ENV_ALG		"CELLOS_HOST_TELEMETRY_SIGN_ALG"
#define ENV_KID		"CELLOS_HOST_TELEMETRY_SIGN_KID"
#define ENV_ED25519_KEY "CELLOS_HOST_TELEMETRY_SIGN_ED25519_KEY"
#define ENV_HMAC_KEY	"CELLOS_HOST_TELEMETRY_SIGN_HMAC_KEY"

struct signing_key {
	_Atomic unsigned refs;
	enum sign_algorithm algorithm;
	char kid[SIGN_KID_MAX + 1];
	uint8_t public_key[KEY_ED25519_SIZE];
	/* In locked memory; the algorithm decides which member is used. */
	union signing_secret {
		uint8_t ed25519[crypto_sign_SECRETKEYBYTES];
		crypto_auth_hmacsha256_state hmac;
	} * secret;
};

static const struct {
	const char *name;
	const char *variable; /* the environment variable that may hold the key */
	bool ed25519, envelope, tree;
} algorithms[] = {
	[SIGN_OFF] = {.name = "off"},
	[SIGN_ED25519_LOG] = {"ed25519-log", ENV_ED25519_KEY, true, false, true},
	[SIGN_ED25519] = {"ed25519", ENV_ED25519_KEY, true, true, true},
	[SIGN_HMAC_SHA256] = {"hmac-sha256", ENV_HMAC_KEY, false, true, false},
};
_Static_assert(ARRAY_SIZE(algorithms) == _SIGN_ALGORITHM_MAX, "a row for each algorithm");

int sign_algorithm_from_string(const char *s, enum sign_algorithm *ret)
{
	for (int i = 0; i < _SIGN_ALGORITHM_MAX; i++)
		if (strcmp(s, algorithms[i].name) == 0) {
			*ret = (enum sign_algorithm)i;
			return 0;
		}
	return -EINVAL;
}

const char *sign_algorithm_name(enum sign_algorithm algorithm)
{
	return algorithms[algorithm].name;
}

bool sign_algorithm_has_tree(enum sign_algorithm algorithm)
{
	return algorithms[algorithm].tree;
}

bool sign_algorithm_has_envelope(enum sign_algorithm algorithm)
{
	return algorithms[algorithm].envelope;
}

/* The text of the key, and its source for messages. */
struct key_text {
	const char *origin;
	const char *data;
	size_t len;
	char *file; /* sodium_malloc memory of data, or NULL */
	char path[512];
};

static int find_key(const struct signing_options *o, enum sign_algorithm algorithm,
		    struct key_text *ret, char why[SIGN_WHY_MAX])
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	const char *const variable = algorithms[algorithm].variable;
	const char *const other = algorithms[algorithm].ed25519 ? ENV_HMAC_KEY : ENV_ED25519_KEY;
	const char *path = o->key_file;
	const bool separate = o->users && o->users->separate;
	const struct user_ids *owner = separate ? &o->users->signer : NULL;

	*ret = (struct key_text){0};
	if (!path && credentials) {
		snprintf(ret->path, sizeof(ret->path), "%s/" SIGNING_CREDENTIAL, credentials);
		if (access(ret->path, F_OK) == 0 || errno == EACCES) {
			path = ret->path;
			owner = separate ? &o->users->receiver : NULL;
		}
	}
	if (path) {
		ret->origin = path;
		int r = key_read_secret(path, owner, &ret->file, &ret->len, why, SIGN_WHY_MAX);

		ret->data = ret->file;
		return r;
	}
	ret->origin = variable;
	ret->data = getenv(variable);
	if (ret->data && *ret->data) {
		ret->len = strlen(ret->data);
		return 0;
	}
	if (getenv(other))
		snprintf(why, SIGN_WHY_MAX, "algorithm %s, but the key is in %s, which is for %s",
			 algorithms[algorithm].name, other,
			 algorithms[algorithm].ed25519 ? "hmac-sha256" : "ed25519");
	else
		snprintf(why, SIGN_WHY_MAX,
			 "algorithm %s without a key: give --sign-key-file FILE, %s or a systemd "
			 "credential " SIGNING_CREDENTIAL,
			 algorithms[algorithm].name, variable);
	return -ENOKEY;
}

/* Decode the text and make the secret from it. No copy of the bytes stays, also after an error. */
static int make_secret(struct signing_key *s, const struct key_text *text, char why[SIGN_WHY_MAX])
{
	const bool ed25519 = algorithms[s->algorithm].ed25519;
	uint8_t bytes[KEY_BYTES_MAX];
	int n = key_decode(text->data, text->len, bytes), r = 0;

	if (n < 0) {
		snprintf(why, SIGN_WHY_MAX, "%s: expected base64url", text->origin);
		r = -EINVAL;
	} else if (ed25519 && n != (int)KEY_ED25519_SIZE) {
		snprintf(why, SIGN_WHY_MAX, "%s: %d bytes; an ed25519 seed is %u", text->origin, n,
			 KEY_ED25519_SIZE);
		r = -EINVAL;
	} else if (!ed25519 && n < (int)KEY_HMAC_MIN) {
		snprintf(why, SIGN_WHY_MAX, "%s: %d bytes; an hmac-sha256 key is at least %u",
			 text->origin, n, KEY_HMAC_MIN);
		r = -EINVAL;
	} else if (ed25519) {
		crypto_sign_seed_keypair(s->public_key, s->secret->ed25519, bytes);
	} else {
		crypto_auth_hmacsha256_init(&s->secret->hmac, bytes, (size_t)n);
	}
	sodium_memzero(bytes, sizeof(bytes));
	return r;
}

static int open_with_key(const struct signing_options *o, const char *kid, struct signing_key *s,
			 char why[SIGN_WHY_MAX])
{
	struct key_text text;
	int r;

	if (!kid || !kid_valid(kid, strlen(kid))) {
		snprintf(
			why, SIGN_WHY_MAX,
			"algorithm %s needs a kid of 1..%u bytes of [A-Za-z0-9._:-]: give --sign-kid "
			"or " ENV_KID,
			algorithms[s->algorithm].name, SIGN_KID_MAX);
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

/*
 * Overwrite the bytes: unsetenv() removes the pointer only, and /proc/PID/environ would still show
 * them.
 */
static void wipe_variable(const char *name)
{
	char *value = getenv(name);

	if (value)
		sodium_memzero(value, strlen(value));
	unsetenv(name);
}

static int configure(const struct signing_options *o, struct signing_key *s, char why[SIGN_WHY_MAX])
{
	const char *algorithm = o->algorithm ? o->algorithm : getenv(ENV_ALG);
	const char *kid = o->kid ? o->kid : getenv(ENV_KID);

	if (!algorithm || !*algorithm) {
		/*
		 * A key without an algorithm is a mistake, not a wish to write unsigned evidence.
		 */
		if (kid || o->key_file || getenv(ENV_ED25519_KEY) || getenv(ENV_HMAC_KEY)) {
			snprintf(why, SIGN_WHY_MAX,
				 "a signing key or kid is given, but no algorithm: give --sign-alg "
				 "or " ENV_ALG);
			return -EINVAL;
		}
		return 0;
	}
	if (sign_algorithm_from_string(algorithm, &s->algorithm) < 0) {
		snprintf(
			why, SIGN_WHY_MAX,
			"signing algorithm %.64s: expected off, ed25519-log, ed25519 or hmac-sha256",
			algorithm);
		return -EINVAL;
	}
	return s->algorithm == SIGN_OFF ? 0 : open_with_key(o, kid, s, why);
}

void signing_environment_wipe(void)
{
	wipe_variable(ENV_ED25519_KEY);
	wipe_variable(ENV_HMAC_KEY);
	wipe_variable(ENV_KID);
	wipe_variable(ENV_ALG);
}

int signing_key_open(const struct signing_options *options, struct signing_key **ret,
		     char why[SIGN_WHY_MAX])
{
	struct signing_key *s;
	int r;

	if (sodium_init() < 0) {
		snprintf(why, SIGN_WHY_MAX, "libsodium cannot start");
		return -EIO;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->refs = 1;
	r = configure(options, s, why);
	signing_environment_wipe();
	if (r < 0) {
		signing_key_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct signing_key *signing_key_ref(struct signing_key *key)
{
	atomic_fetch_add(&key->refs, 1);
	return key;
}

void signing_key_free(struct signing_key *key)
{
	if (!key || atomic_fetch_sub(&key->refs, 1) > 1)
		return;
	sodium_free(key->secret);
	free(key);
}

_Static_assert(sizeof(union signing_secret) <= SIGN_SECRET_MAX, "room for a secret");

void signing_key_export(const struct signing_key *key, struct signing_key_bytes *ret)
{
	*ret = (struct signing_key_bytes){.algorithm = key->algorithm};
	memcpy(ret->kid, key->kid, sizeof(ret->kid));
	memcpy(ret->public_key, key->public_key, sizeof(ret->public_key));
	if (key->secret)
		memcpy(ret->secret, key->secret, sizeof(*key->secret));
}

int signing_key_import(const struct signing_key_bytes *bytes, bool allow_unlocked,
		       struct signing_key **ret)
{
	struct signing_key *key = calloc(1, sizeof(*key));
	int r;

	if (!key)
		return -ENOMEM;
	key->refs = 1;
	key->algorithm = bytes->algorithm;
	memcpy(key->kid, bytes->kid, sizeof(key->kid));
	memcpy(key->public_key, bytes->public_key, sizeof(key->public_key));
	key->secret = sodium_malloc(sizeof(*key->secret));
	r = key->secret ? signing_key_lock(key) : -ENOMEM;
	if (r == 0 || (allow_unlocked && key->secret)) {
		memcpy(key->secret, bytes->secret, sizeof(*key->secret));
		*ret = key;
		return 0;
	}
	signing_key_free(key);
	return r;
}

int signing_key_lock(const struct signing_key *key)
{
	return key->secret && mlock(key->secret, sizeof(*key->secret)) < 0 ? -errno : 0;
}

enum sign_algorithm signing_key_algorithm(const struct signing_key *key)
{
	return key->algorithm;
}

const char *signing_key_kid(const struct signing_key *key)
{
	return key->kid;
}

const uint8_t *signing_key_public(const struct signing_key *key)
{
	return key->public_key;
}

size_t signing_key_sign(const struct signing_key *key, const void *data, size_t len,
			uint8_t ret[static SIGN_SIGNATURE_MAX])
{
	crypto_auth_hmacsha256_state state;

	if (algorithms[key->algorithm].ed25519) {
		crypto_sign_detached(ret, NULL, data, len, key->secret->ed25519);
		return crypto_sign_BYTES;
	}
	/* The state was initialised with the key. Copy it; never change it. */
	state = key->secret->hmac;
	crypto_auth_hmacsha256_update(&state, data, len);
	crypto_auth_hmacsha256_final(&state, ret);
	sodium_memzero(&state, sizeof(state));
	return crypto_auth_hmacsha256_BYTES;
}
