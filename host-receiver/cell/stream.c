/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/stream.h"

#include "common/util.h"

/* Memory that must live as long as an event of the stream is in flight. */
struct record {
	struct stream_identity identity;
	struct pipeline_account account;
};

static void free_record(void *arg)
{
	struct record *r = arg;

	free(r->identity.cell_id);
	free(r->identity.run_id);
	free(r->identity.spec_hash);
	free(r);
}

int stream_open(struct stream *s, struct pipeline *pipeline, uint64_t *counts, void *owner,
		const char *cell_id, const char *run_id, const char *spec_hash,
		const uint8_t id[static UUID_SIZE])
{
	struct record *r = calloc(1, sizeof(*r));
	struct stream_identity *identity;

	if (!r)
		return -ENOMEM;
	identity = &r->identity;
	r->account.owner = owner;
	identity->cell_id = strdup(cell_id);
	identity->run_id = strdup(run_id);
	identity->spec_hash = strdup(spec_hash);
	if (!identity->cell_id || !identity->run_id || !identity->spec_hash) {
		free_record(r);
		return -ENOMEM;
	}
	memcpy(identity->stream_id, id, UUID_SIZE);
	*s = (struct stream){
		.pipeline = pipeline,
		.identity = identity,
		.account = &r->account,
		.counts = counts,
	};
	return 0;
}

void stream_close(struct stream *s)
{
	if (!s->identity)
		return;
	s->account->owner = NULL;
	/* The identity is the record's first member. */
	if (s->sequence == 0)
		free_record(s->identity);
	else
		pipeline_defer(s->pipeline, free_record, s->identity);
	s->identity = NULL;
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
