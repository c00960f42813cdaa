/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/signer.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_writer.h"

_Static_assert(SIGN_KID_MAX == LINE_KID_MAX, "one limit for kids");

struct signer {
	struct tree_signer tree; /* first */
	struct sign_key_info key;
	struct sign_client *client;
	/*
	 * The previous key, until this key has signed the tree. The committer's, after the first
	 * signature.
	 */
	uint32_t previous;
};

static int append(struct tree_signer *tree, uint64_t first, const struct tree_hash *leaves,
		  size_t n, uint64_t durable, char ret[static LINE_NOTE_MAX])
{
	struct signer *s = (struct signer *)tree;
	int r = sign_client_append(s->client, s->key.number, s->previous, tree->origin, first,
				   leaves, n, durable, ret);

	if (r > 0)
		s->previous = SIGN_NO_KEY;
	return r;
}

/* Without a signer process only the mode `off` is possible. */
static int open_unsigned(const struct signing_options *options, struct sign_key_info *ret,
			 char why[SIGN_WHY_MAX])
{
	struct signing_key *key;
	int r = signing_key_open(options, &key, why);

	if (r < 0)
		return r;
	*ret = (struct sign_key_info){
		.number = SIGN_NO_KEY,
		.algorithm = signing_key_algorithm(key),
	};
	signing_key_free(key);
	if (ret->algorithm == SIGN_OFF)
		return 0;
	snprintf(why, SIGN_WHY_MAX, "there is no signer process");
	return -ENOTCONN;
}

int signer_open(struct sign_client *client, const struct signing_options *options,
		struct signer **ret, char why[SIGN_WHY_MAX])
{
	static const struct tree_signer_ops ops = {.append = append};
	struct signer *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		snprintf(why, SIGN_WHY_MAX, "no memory");
		return -ENOMEM;
	}
	s->tree.ops = &ops;
	s->client = client;
	s->previous = SIGN_NO_KEY;
	r = client ? sign_client_open_key(client, options, &s->key, why)
		   : open_unsigned(options, &s->key, why);
	if (r < 0) {
		free(s);
		return r;
	}
	memcpy(s->tree.kid, s->key.kid, sizeof(s->tree.kid));
	*ret = s;
	return 0;
}

void signer_free(struct signer *signer)
{
	free(signer);
}

enum sign_algorithm signer_algorithm(const struct signer *signer)
{
	return signer->key.algorithm;
}

const char *signer_kid(const struct signer *signer)
{
	return signer->key.kid;
}

const uint8_t *signer_public_key(const struct signer *signer)
{
	return signer->key.public_key;
}

struct sign_client *signer_client(const struct signer *signer)
{
	return signer->client;
}

void signer_set_previous(struct signer *signer, const struct signer *previous)
{
	signer->previous = previous->key.number;
}

void signer_set_origin(struct signer *signer, const char *origin)
{
	snprintf(signer->tree.origin, sizeof(signer->tree.origin), "%s", origin);
}

const char *signer_origin(const struct signer *signer)
{
	return signer->tree.origin;
}

struct tree_signer *signer_tree(struct signer *signer)
{
	return sign_algorithm_has_tree(signer_algorithm(signer)) ? &signer->tree : NULL;
}

static int end_line(struct json_writer *w, size_t *ret_len)
{
	int r = json_writer_done(w, ret_len);

	if (r < 0 || *ret_len >= w->size)
		return -ENOBUFS;
	w->buf[(*ret_len)++] = '\n';
	return 0;
}

int signer_write_line(const struct signer *s, const struct signer_event *event,
		      const uint8_t *bytes, size_t bytes_size, char *out, size_t size,
		      size_t *ret_len)
{
	char signature[sodium_base64_ENCODED_LEN(SIGN_SIGNATURE_MAX,
						 sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	struct json_writer w;

	json_writer_init(&w, out, size);
	if (!sign_algorithm_has_envelope(signer_algorithm(s))) {
		json_put_raw(&w, event->json, event->json_len);
		return end_line(&w, ret_len);
	}
	sodium_bin2base64(signature, sizeof(signature), bytes, bytes_size,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	json_put_begin_object(&w);
	json_put_kv_string(&w, "algorithm", sign_algorithm_name(signer_algorithm(s)));
	json_put_key(&w, "event");
	json_put_raw(&w, event->json, event->json_len);
	json_put_kv_text(&w, "signature", wire_text(signature));
	json_put_kv_string(&w, "signerKid", signer_kid(s));
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

int signer_sign(const struct signer *s, unsigned channel, const uint32_t *lengths, unsigned n,
		uint8_t ret[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX])
{
	return sign_client_sign(s->client, channel, s->key.number, lengths, n, ret);
}
