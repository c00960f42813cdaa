/* SPDX-License-Identifier: MIT */
/*
 * The keys that verify evidence: kid -> Ed25519 public key, and kid -> HMAC key. Two maps, so that
 * a public key can never serve as an HMAC key.
 *
 * A file is a JSON object. Each value is a key in base64url, or for public keys an object
 * {"key": KEY, "origins": [PREFIX...], "notAfterSize": N}: such a key counts only for logs with one
 * of these origins, and only for checkpoints of at most N entries. A kid that occurs twice, a wrong
 * length, an unknown member or a symbolic link is refused, with the file and the kid named.
 *
 * Loading belongs to one thread; after it any thread may read.
 */
#pragma once

#include <stdint.h>

#include "common/wire.h"
#include "host-receiver/evidence/note.h"
#include "host-receiver/sign/signer.h"

#define KEYRING_WHY_MAX	    512u
#define KEYRING_KEYS_MAX    4096u
#define KEYRING_ORIGINS_MAX 64u /* for each key */

struct keyring;

struct keyring_key {
	const uint8_t *bytes; /* borrowed from the keyring */
	size_t len;
};

/* NULL when there is no memory. */
struct keyring *keyring_new(void);
void keyring_free(struct keyring *ring);

/*
 * Add a file's keys, for SIGN_ED25519 or SIGN_HMAC_SHA256 (then the file must be closed to group
 * and others). Returns 0 or a negative errno with the reason in why.
 */
int keyring_load(struct keyring *ring, const char *path, enum sign_algorithm algorithm,
		 char why[KEYRING_WHY_MAX]);

/* The same from text; path is for the messages. */
int keyring_parse(struct keyring *ring, const char *text, size_t len, const char *path,
		  enum sign_algorithm algorithm, char why[KEYRING_WHY_MAX]);

/* False when there is no such kid for that algorithm. */
bool keyring_find(const struct keyring *ring, enum sign_algorithm algorithm, struct wire_text kid,
		  struct keyring_key *ret);

/* How many keys there are, of both maps. */
size_t keyring_count(const struct keyring *ring);

/* ---- checkpoints ---- */

enum keyring_verdict {
	KEYRING_SIGNED,	     /* a key of the keyring signed the note */
	KEYRING_UNKNOWN_KEY, /* the keyring has none of the note's keys */
	KEYRING_NOT_FOR_IT,  /* the keyring has the key, but not for this origin or this size */
	KEYRING_WRONG,	     /* a signature that names a key of the keyring is wrong */
};

/*
 * Whether a key of the ring signed the note. *ret_kid is the kid of the key that signed, whose
 * signature is wrong, or that is not for this note (borrowed from the ring); NULL: none. Returns 0
 * or -EIO.
 */
int keyring_check_note(const struct keyring *ring, struct tree_hasher *hasher,
		       const struct note *note, enum keyring_verdict *ret, const char **ret_kid);

/*
 * Whether the note can be from the key that its line names. It cannot if the ring knows that kid
 * and the note does not have its key id, or if the ring knows all keys of the note and none has
 * this kid. Returns 1, 0 or -EIO.
 */
int keyring_kid_fits(const struct keyring *ring, struct tree_hasher *hasher,
		     const struct note *note, struct wire_text kid);

/* An origin begins with the prefix, and the prefix ends where a part of the origin ends. */
bool origin_has_prefix(const char *origin, const char *prefix);
