/* SPDX-License-Identifier: MIT */
/*
 * The keys that verify evidence: kid -> Ed25519 public key, and kid -> HMAC key. Two maps, so that
 * a public key can never serve as an HMAC key. A file is a JSON object kid -> base64url; a kid that
 * stands twice, a wrong length, a symbolic link are refused, with the file and the kid named.
 */
#pragma once

#include <stdint.h>

#include "common/wire.h"
#include "host-receiver/sign/signer.h"

#define KEYRING_WHY_MAX 512u

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
