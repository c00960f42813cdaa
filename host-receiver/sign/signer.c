/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/signer.h"

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_writer.h"

_Static_assert(SIGN_KID_MAX == LINE_KID_MAX, "one limit for kids");

struct signer {
	struct tree_signer tree; /* first */
	struct signing_key *key;
	struct sign_core *core;
	/* The key before this one, until the tree is under this. The committer's, once it signs. */
	struct signing_key *previous;
};

static int append(struct tree_signer *tree, uint64_t first, const struct tree_hash *leaves,
		  size_t n, char ret[static LINE_NOTE_MAX])
{
	struct signer *s = (struct signer *)tree;
	int r = sign_core_append(s->core, s->key, s->previous, tree->origin, first, leaves, n, ret);

	if (r > 0)
		signing_key_free(take_ptr(s->previous));
	return r;
}

int signer_open(const struct signing_options *options, struct signer **ret, char why[SIGN_WHY_MAX])
{
	static const struct tree_signer_ops ops = {.append = append};
	struct signer *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		snprintf(why, SIGN_WHY_MAX, "no memory");
		return -ENOMEM;
	}
	s->tree.ops = &ops;
	r = signing_key_open(options, &s->key, why);
	if (r < 0) {
		free(s);
		return r;
	}
	snprintf(s->tree.kid, sizeof(s->tree.kid), "%s", signing_key_kid(s->key));
	*ret = s;
	return 0;
}

void signer_free(struct signer *signer)
{
	if (!signer)
		return;
	sign_core_unref(signer->core);
	signing_key_free(signer->previous);
	signing_key_free(signer->key);
	free(signer);
}

enum sign_algorithm signer_algorithm(const struct signer *signer)
{
	return signing_key_algorithm(signer->key);
}

const char *signer_kid(const struct signer *signer)
{
	return signing_key_kid(signer->key);
}

const uint8_t *signer_public_key(const struct signer *signer)
{
	return signing_key_public(signer->key);
}

void signer_set_core(struct signer *signer, struct sign_core *core)
{
	signer->core = sign_core_ref(core);
}

struct sign_core *signer_core(const struct signer *signer)
{
	return signer->core;
}

void signer_set_previous(struct signer *signer, const struct signer *previous)
{
	signer->previous = signing_key_ref(previous->key);
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

int signer_write_line(const struct signer *s, const struct signer_event *event, char *out,
		      size_t size, size_t *ret_len)
{
	char signature[sodium_base64_ENCODED_LEN(SIGN_SIGNATURE_MAX,
						 sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	uint8_t bytes[SIGN_SIGNATURE_MAX];
	struct json_writer w;
	size_t n;

	json_writer_init(&w, out, size);
	if (!sign_algorithm_has_envelope(signer_algorithm(s))) {
		json_put_raw(&w, event->json, event->json_len);
		return end_line(&w, ret_len);
	}
	n = signing_key_sign(s->key, event->json, event->json_len, bytes);
	sodium_bin2base64(signature, sizeof(signature), bytes, n,
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
