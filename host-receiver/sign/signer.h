/* SPDX-License-Identifier: MIT */
/*
 * From the canonical bytes of an event to the line of the evidence log: off (the event itself),
 * ed25519 or hmac-sha256 in a transport CloudEvent (events.md section 5). Keys come from the
 * environment or a key file, fail closed: a mode with a missing, malformed or wrong key is an
 * error, never a fall-back. Key bytes are locked in memory and wiped on signer_free().
 *
 * A signer is immutable after signer_open(): any number of threads may sign with it at once.
 */
#pragma once

#include <stddef.h>

#include "common/wire.h"

enum sign_algorithm {
	SIGN_OFF,
	SIGN_ED25519,
	SIGN_HMAC_SHA256,
	_SIGN_ALGORITHM_MAX,
};

#define SIGN_KID_MAX 128u
#define SIGN_WHY_MAX 512u

/* Bytes that the envelope adds to the event's own at most; for sizing buffers. */
#define SIGN_ENVELOPE_MAX 1024u

/* The type of the transport CloudEvent. */
#define SIGN_ENVELOPE_TYPE "dev.cellos.events.signed_envelope.v1"

struct signer;

/* What the command line says; NULL members are taken from the environment. Borrowed for the call.
 */
struct signer_options {
	const char *algorithm, *kid, *key_file;
};

/* "off", "ed25519", "hmac-sha256"; -EINVAL. */
int sign_algorithm_from_string(const char *s, enum sign_algorithm *ret);
const char *sign_algorithm_name(enum sign_algorithm algorithm);

/*
 * Read the configuration and the key. The environment's signing variables are wiped from the
 * process afterwards, whatever the outcome. Returns 0, or a negative errno with a sentence in why
 * that names the option, variable or file and what was expected (the verb exits EX_CONFIG).
 */
int signer_open(const struct signer_options *options, struct signer **ret, char why[SIGN_WHY_MAX]);
void signer_free(struct signer *signer);

enum sign_algorithm signer_algorithm(const struct signer *signer);
const char *signer_kid(const struct signer *signer); /* "" with SIGN_OFF; borrowed */

/* The attributes of the event that its envelope repeats. */
struct signer_event {
	const char *json; /* the canonical bytes: what is signed */
	size_t json_len;
	struct wire_text id, source, time;
};

/*
 * Write the line, '\n' included, to out. Returns 0 and its length, or -ENOBUFS; size of
 * json_len + SIGN_ENVELOPE_MAX always suffices.
 */
int signer_write_line(const struct signer *signer, const struct signer_event *event, char *out,
		      size_t size, size_t *ret_len);
