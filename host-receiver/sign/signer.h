/* SPDX-License-Identifier: MIT */
/*
 * Makes the line of the evidence log from the canonical bytes of an event, in one mode and under
 * one key: the event itself, or a transport CloudEvent with the event in it (evidence-log.md
 * section 2). It also has the signed tree over the lines, in the modes that have a tree. A change
 * of key or mode makes a new signer.
 *
 * Immutable after signer_set_origin(): any number of threads may sign with it at once.
 */
#pragma once

#include "common/wire.h"
#include "host-receiver/evidence/sink.h"
#include "host-receiver/sign/client.h"

/* Bytes that the envelope adds to the event's own at most; for sizing buffers. */
#define SIGN_ENVELOPE_MAX 1024u

/* The type of the transport CloudEvent. */
#define SIGN_ENVELOPE_TYPE "dev.cellos.events.signed_envelope.v1"

struct signer;

/*
 * See signing_key_open(). client is borrowed until signer_free(); NULL: nothing can be signed, and
 * every mode but off is an error.
 */
int signer_open(struct sign_client *client, const struct signing_options *options,
		struct signer **ret, char why[SIGN_WHY_MAX]);
void signer_free(struct signer *signer);

enum sign_algorithm signer_algorithm(const struct signer *signer);
const char *signer_kid(const struct signer *signer);		/* "" with SIGN_OFF; borrowed */
const uint8_t *signer_public_key(const struct signer *signer);	/* 32 bytes; borrowed */
struct sign_client *signer_client(const struct signer *signer); /* borrowed */

/* It follows `previous` in the same log: both sign its first checkpoint. */
void signer_set_previous(struct signer *signer, const struct signer *previous);
/* The origin of the log; "" in modes without a tree. */
void signer_set_origin(struct signer *signer, const char *origin);
const char *signer_origin(const struct signer *signer);

/* For the log's sink; NULL in modes without a tree. Borrowed. */
struct tree_signer *signer_tree(struct signer *signer);

/* The attributes of the event that its envelope repeats. */
struct signer_event {
	const char *json; /* the canonical bytes: what is signed */
	size_t json_len;
	struct wire_text id, source, time;
};

/*
 * Write the line, with its '\n', to out. signature: size bytes, in the modes with an envelope.
 * Returns 0 and the length, or -ENOBUFS; a size of json_len + SIGN_ENVELOPE_MAX is always enough.
 */
int signer_write_line(const struct signer *signer, const struct signer_event *event,
		      const uint8_t *signature, size_t signature_size, char *out, size_t size,
		      size_t *ret_len);

/*
 * Sign n entries that stand side by side in sign_client_entries(), in the modes with an envelope.
 * Returns the bytes of each signature or a negative errno.
 */
int signer_sign(const struct signer *signer, unsigned channel, const uint32_t *lengths, unsigned n,
		uint8_t ret[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX]);
