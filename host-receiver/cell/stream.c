/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/stream.h"

#include "common/util.h"

/* Memory that must live as long as an event of the stream is in flight. */
struct record {
	struct stream_identity identity;
	struct pipeline_account
		account; /* the identity of the first stream, and of each one after it */
};

static void free_record(void *arg)
{
	struct record *r = arg;

	free(r->identity.cell_id);
	free(r->identity.run_id);
	free(r->identity.spec_hash);
	free(r);
}

static struct record *new_record(const char *cell_id, const char *run_id, const char *spec_hash,
				 const uint8_t id[static UUID_SIZE])
{
	struct record *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->identity.cell_id = strdup(cell_id);
	r->identity.run_id = strdup(run_id);
	r->identity.spec_hash = strdup(spec_hash);
	if (!r->identity.cell_id || !r->identity.run_id || !r->identity.spec_hash) {
		free_record(r);
		return NULL;
	}
	memcpy(r->identity.stream_id, id, UUID_SIZE);
	return r;
}

int stream_open(struct stream *s, struct pipeline *pipeline, uint64_t *counts, void *owner,
		const char *cell_id, const char *run_id, const char *spec_hash,
		const uint8_t id[static UUID_SIZE])
{
	struct record *r = new_record(cell_id, run_id, spec_hash, id);

	if (!r)
		return -ENOMEM;
	r->account.owner = owner;
	*s = (struct stream){
		.pipeline = pipeline,
		.identity = &r->identity,
		.first = &r->identity,
		.account = &r->account,
		.counts = counts,
	};
	return 0;
}

/* The identity is the first member of its record. */
int stream_succeed(struct stream *s, const uint8_t id[static UUID_SIZE])
{
	struct stream_identity *last = s->identity;
	struct record *r = new_record(last->cell_id, last->run_id, last->spec_hash, id);

	if (!r)
		return -ENOMEM;
	s->identity = &r->identity;
	s->sequence = 0;
	if (last != s->first)
		pipeline_defer(s->pipeline, free_record, last);
	return 0;
}

void stream_close(struct stream *s)
{
	if (!s->identity)
		return;
	s->account->owner = NULL;
	if (s->identity != s->first)
		pipeline_defer(s->pipeline, free_record, s->identity);
	if (s->sequence == 0 && s->identity == s->first)
		free_record(s->first);
	else
		pipeline_defer(s->pipeline, free_record, s->first);
	s->identity = s->first = NULL;
	s->account = NULL;
}

struct event *stream_begin(struct stream *s, enum event_type type)
{
	s->counts[type]++;
	return pipeline_event(s->pipeline, type, s->identity, ++s->sequence);
}

void stream_submit(struct stream *s, struct event *e)
{
	pipeline_submit_for(s->pipeline, e, s->account);
}

struct wire_text stream_copy(struct stream *s, struct wire_text text)
{
	return pipeline_copy(s->pipeline, text);
}

void stream_id_generate(uint8_t ret[static UUID_SIZE])
{
	struct uuid_source random = {0};

	uuid_generate(&random, ret);
}
