/* SPDX-License-Identifier: MIT */
/*
 * A signing key: its sources and its signatures. Keys come from the environment, a key file or a
 * systemd credential. It fails closed: a mode with a missing, malformed or wrong key is an error,
 * and there is no fall-back. Key bytes are locked in memory and wiped on free.
 *
 * Immutable after signing_key_open(): any number of threads may sign with it at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/privilege/users.h"

enum sign_algorithm {
	SIGN_OFF,
	SIGN_ED25519_LOG, /* entries are bare events; the tree over them is signed */
	SIGN_ED25519,	  /* entries in signed envelopes, and the tree */
	SIGN_HMAC_SHA256, /* entries in envelopes; no tree */
	_SIGN_ALGORITHM_MAX,
};

#define SIGN_KID_MAX	   128u
#define SIGN_WHY_MAX	   512u
#define SIGN_SIGNATURE_MAX 64u
#define SIGN_SECRET_MAX	   512u

/* The name of a systemd credential with the key. */
#define SIGNING_CREDENTIAL "cellos-sign-key"

struct signing_key;

/* Wipe the keys of the environment from this process, because another process has them now. */
void signing_environment_wipe(void);

/*
 * Options of the command line. NULL members are taken from the environment. Borrowed for the call.
 */
struct signing_options {
	const char *algorithm, *kid, *key_file;
	/*
	 * With separate users the key file may belong to the signer's user, and a systemd
	 * credential to the receiver's user, because the unit runs as that user. NULL: the caller's
	 * own user.
	 */
	const struct process_users *users;
};

/* "off", "ed25519-log", "ed25519", "hmac-sha256"; -EINVAL. */
int sign_algorithm_from_string(const char *s, enum sign_algorithm *ret);
const char *sign_algorithm_name(enum sign_algorithm algorithm);
bool sign_algorithm_has_tree(enum sign_algorithm algorithm);
bool sign_algorithm_has_envelope(enum sign_algorithm algorithm);

/*
 * Read the configuration and the key. The environment's signing variables are wiped from the
 * process afterwards, whatever the outcome. Returns 0, or a negative errno with a sentence in why
 * that names the option, variable or file and what was expected (the verb exits EX_CONFIG).
 * -ENOKEY: there is a mode, and a key nowhere.
 */
int signing_key_open(const struct signing_options *options, struct signing_key **ret,
		     char why[SIGN_WHY_MAX]);
/* One more owner; signing_key_free() gives one up. Any thread. */
struct signing_key *signing_key_ref(struct signing_key *key);
void signing_key_free(struct signing_key *key);

/* A key, to be sent to another process. Wipe it after use. */
struct signing_key_bytes {
	enum sign_algorithm algorithm;
	char kid[SIGN_KID_MAX + 1];
	uint8_t public_key[32];
	uint8_t secret[SIGN_SECRET_MAX];
};

void signing_key_export(const struct signing_key *key, struct signing_key_bytes *ret);
/* Returns 0, -ENOMEM, or the errno of signing_key_lock(). */
int signing_key_import(const struct signing_key_bytes *bytes, bool allow_unlocked,
		       struct signing_key **ret);
/* Lock its memory in this process; a child does not inherit locks. 0 or a negative errno. */
int signing_key_lock(const struct signing_key *key);

enum sign_algorithm signing_key_algorithm(const struct signing_key *key);
const char *signing_key_kid(const struct signing_key *key); /* "" with SIGN_OFF; borrowed */
/* Of an ed25519 key, 32 bytes; zeros otherwise. */
const uint8_t *signing_key_public(const struct signing_key *key);

/* Returns the signature's bytes. Not with SIGN_OFF. */
size_t signing_key_sign(const struct signing_key *key, const void *data, size_t len,
			uint8_t ret[static SIGN_SIGNATURE_MAX]);
