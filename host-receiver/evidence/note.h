/* SPDX-License-Identifier: MIT */
/*
 * Checkpoints: signed notes that state the size and the root of a log's tree (C2SP tlog-checkpoint
 * and signed-note). This code writes, reads and checks their text. It never holds a private key:
 * the caller signs the body from note_format_body() and passes the signature in.
 *
 * Pure functions; safe on any thread after sodium_init().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host-receiver/evidence/tree.h"

#define NOTE_ORIGIN_MAX                                                                            \
	255u /* bytes: a prefix of 200, '/' and a uuid; other logs may have longer ones */
#define NOTE_KEY_ID_SIZE    4u
#define NOTE_SIGNATURE_SIZE 64u
#define NOTE_SIGNATURES_MAX 16u	 /* signature lines of a note that is read */
#define NOTE_OWN_MAX	    2u	 /* signature lines of a note that we write */
#define NOTE_BODY_MAX	    512u /* bytes of origin, size and root lines */
#define NOTE_TEXT_MAX	    8192u

struct note_checkpoint {
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t size;
	struct tree_hash root;
};

struct note_signature {
	uint8_t key_id[NOTE_KEY_ID_SIZE];
	uint8_t bytes[NOTE_SIGNATURE_SIZE];
};

/* A note that was read. Signature lines with a name other than the origin are only counted. */
struct note {
	struct note_checkpoint checkpoint;
	char body[NOTE_BODY_MAX]; /* the signed text */
	size_t body_len;
	unsigned lines; /* signature lines of any name */
	unsigned n;
	struct note_line {
		struct note_signature signature;
		bool whole; /* it has the length of an Ed25519 signature */
	} signatures[NOTE_SIGNATURES_MAX];
};

enum note_result {
	NOTE_SIGNED, /* this key signed the body, and no line of this key is wrong */
	NOTE_NO_KEY, /* no line has this key's id */
	NOTE_WRONG,  /* a line has this key's id and a wrong signature */
};

/* 1..NOTE_ORIGIN_MAX bytes of [A-Za-z0-9._/-]. */
bool note_origin_valid(const char *origin, size_t len);

/* The first bytes of SHA-256(origin || 0x0A || 0x01 || public key). Returns 0 or -EIO. */
int note_key_id(struct tree_hasher *hasher, const char *origin, const uint8_t public_key[static 32],
		uint8_t ret[static NOTE_KEY_ID_SIZE]);

/*
 * The bytes to be signed: "<origin>\n<size>\n<base64 root>\n". Returns their number. An origin that
 * is not valid or a size above TREE_SIZE_MAX: -EINVAL.
 */
int note_format_body(const struct note_checkpoint *checkpoint, char ret[static NOTE_BODY_MAX]);

/*
 * The whole note: body, empty line, 1..NOTE_OWN_MAX signature lines. Returns its bytes (a NUL
 * follows them), -EINVAL as above, -ENOBUFS.
 */
int note_format(const struct note_checkpoint *checkpoint, const struct note_signature *signatures,
		unsigned n, char *ret, size_t size);

/*
 * Read a note, strictly: it has the form above and 1..NOTE_SIGNATURES_MAX signature lines. Anything
 * else is -EBADMSG with a phrase in *ret_why (static).
 */
int note_parse(const char *text, size_t len, struct note *ret, const char **ret_why);

/* Whether this key signed the note. key_id is note_key_id() of the note's origin and this key. */
enum note_result note_check(const struct note *note, const uint8_t key_id[static NOTE_KEY_ID_SIZE],
			    const uint8_t public_key[static 32]);
