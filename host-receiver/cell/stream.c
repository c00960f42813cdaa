/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/stream.h"

#include "common/util.h"

static void free_identity(void *arg)
{
	struct stream_identity *identity = arg;

	free(identity->cell_id);
	free(identity->run_id);
	free(identity->spec_hash);
	free(identity);
}

int stream_open(struct stream *s, struct pipeline *pipeline, uint64_t *counts, const char *cell_id,
		const char *run_id, const char *spec_hash, const uint8_t id[static UUID_SIZE])
{
	struct stream_identity *identity = calloc(1, sizeof(*identity));

	if (!identity)
		return -ENOMEM;
	identity->cell_id = strdup(cell_id);
	identity->run_id = strdup(run_id);
	identity->spec_hash = strdup(spec_hash);
	if (!identity->cell_id || !identity->run_id || !identity->spec_hash) {
		free_identity(identity);
		return -ENOMEM;
	}
	memcpy(identity->stream_id, id, UUID_SIZE);
	*s = (struct stream){.pipeline = pipeline, .identity = identity, .counts = counts};
	return 0;
}

void stream_close(struct stream *s)
{
	if (!s->identity)
		return;
	if (s->sequence == 0)
		free_identity(take_ptr(s->identity));
	else
		pipeline_defer(s->pipeline, free_identity, take_ptr(s->identity));
}

struct event *stream_begin(struct stream *s, enum event_type type)
{
	s->counts[type]++;
	return pipeline_event(s->pipeline, type, s->identity, ++s->sequence);
}

void stream_submit(struct stream *s, struct event *e)
{
	pipeline_submit(s->pipeline, e);
}

struct wire_text stream_copy(struct stream *s, struct wire_text text)
{
	return pipeline_copy(s->pipeline, text);
}
