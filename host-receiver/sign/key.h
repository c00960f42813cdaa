/* SPDX-License-Identifier: MIT */
/*
 * Keys and their files. Secrets are in locked memory that is wiped when it is freed (libsodium's
 * sodium_malloc). They are never logged and never part of an error message.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/privilege/users.h"

#define KEY_ED25519_SIZE 32u /* seed, and public key */
#define KEY_HMAC_MIN	 32u
#define KEY_BYTES_MAX	 1024u
#define KEY_FILE_MAX	 (1024u * 1024u)
#define KID_MAX		 128u

/* 1..KID_MAX bytes of [A-Za-z0-9._:-], and not "." or "..": it names files. */
bool kid_valid(const char *kid, size_t len);

/*
 * base64url, with or without padding, white space around it tolerated. Returns the bytes written
 * to out (KEY_BYTES_MAX of room), or -EINVAL.
 */
int key_decode(const char *text, size_t len, uint8_t out[static KEY_BYTES_MAX]);

/*
 * Read a whole file: regular, not through a symbolic link, at most KEY_FILE_MAX bytes. With secret,
 * neither group nor others may have any access to it. *ret is sodium_malloc memory of *ret_len + 1
 * bytes, NUL-terminated: sodium_free() it. On error why says what was expected of the file.
 */
int key_read_file(const char *path, bool secret, char **ret, size_t *ret_len, char *why,
		  size_t why_size);
/*
 * The same for a secret. It may also belong to owner, and is read as owner if the caller may not
 * read it. owner NULL: there is none.
 */
int key_read_secret(const char *path, const struct user_ids *owner, char **ret, size_t *ret_len,
		    char *why, size_t why_size);
