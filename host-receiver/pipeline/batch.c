/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/batch.h"

#include "common/util.h"

/* A batch with a larger buffer than this frees it before its next use. */
#define TEXT_KEEP_MAX (BATCH_LINES_MAX + EVENT_LINE_MAX)
#define TEXT_SIZE_MIN 4096u

struct batch *batch_new(void)
{
	return calloc(1, sizeof(struct batch));
}

static void free_blocks(struct batch_block *block)
{
	while (block) {
		struct batch_block *next = block->next;

		free(block);
		block = next;
	}
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	free_blocks(b->blocks);
	free(b->events.data);
	free(b->envelopes.data);
	free(b);
}

static void empty(struct batch_text *t)
{
	if (t->size > TEXT_KEEP_MAX) {
		free(take_ptr(t->data));
		t->size = 0;
	}
	t->len = 0;
}

void batch_reset(struct batch *b)
{
	if (b->blocks) {
		free_blocks(b->blocks->next);
		b->blocks->next = NULL;
		b->blocks->used = 0;
		if (b->blocks->size > BATCH_BLOCK_SIZE) {
			free(b->blocks);
			b->blocks = NULL;
		}
	}
	b->blocks_size = b->blocks ? sizeof(*b->blocks) + b->blocks->size : 0;
	empty(&b->events);
	empty(&b->envelopes);
	b->n_events = b->n_shares = b->lines_size = b->cost = 0;
	b->lines = NULL;
	b->durable = false;
	b->deferred = NULL;
	b->error = 0;
}

size_t batch_footprint(const struct batch *b)
{
	/* Lines that are longer than their events will be envelopes. */
	const size_t envelopes = b->lines_size > b->events.len ? b->lines_size : 0;

	return sizeof(*b) + b->blocks_size + b->events.size + MAX(b->envelopes.size, envelopes);
}

void *batch_alloc(struct batch *b, size_t size)
{
	const size_t aligned = (size + 15) & ~(size_t)15;
	struct batch_block *block = b->blocks;
	void *p;

	if (!block || block->size - block->used < aligned) {
		const size_t block_size = MAX(aligned, (size_t)BATCH_BLOCK_SIZE);

		block = malloc(sizeof(*block) + block_size);
		if (!block)
			return NULL;
		block->next = b->blocks;
		block->used = 0;
		block->size = block_size;
		b->blocks = block;
		b->blocks_size += sizeof(*block) + block_size;
	}
	p = block->data + block->used;
	block->used += aligned;
	return p;
}

struct wire_text batch_copy(struct batch *b, struct wire_text text, bool *ok)
{
	char *copy;

	if (text.len == 0)
		return (struct wire_text){.data = "", .len = 0};
	copy = batch_alloc(b, text.len);
	if (!copy) {
		*ok = false;
		return (struct wire_text){.data = "", .len = 0};
	}
	memcpy(copy, text.data, text.len);
	return (struct wire_text){.data = copy, .len = text.len};
}

/* ---- events ---- */

static int reserve(struct batch_text *t, size_t size)
{
	char *data;

	if (t->size >= size)
		return 0;
	data = realloc(t->data, size);
	if (!data)
		return -ENOMEM;
	t->data = data;
	t->size = size;
	return 0;
}

int batch_add(struct batch *b, const struct event *e, struct event_clock *clock)
{
	const size_t longest = EVENT_LINE_MAX - SIGN_ENVELOPE_MAX;
	struct batch_text *t = &b->events;
	size_t len;
	int r;

	for (;;) {
		const size_t room = t->size - t->len;

		r = room == 0 ? -ENOBUFS
			      : event_write(e, clock, t->data + t->len, MIN(room - 1, longest),
					    &len, &b->heads[b->n_events]);
		if (r != -ENOBUFS || room > longest)
			break;
		/* The buffer is kept for the next batch, so it seldom grows. */
		r = reserve(t, MAX(2 * t->size, (size_t)TEXT_SIZE_MIN));
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	t->len += len;
	t->data[t->len++] = '\n';
	b->lengths[b->n_events++] = (uint32_t)len;
	return (int)len;
}

/* ---- lines ---- */

/* An entry is the line without its newline. */
static int hash_events(struct batch *b, struct batch_writer *writer)
{
	const char *at = b->events.data;
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->n_events; at += b->lengths[i++] + 1)
		r = tree_hash_leaf(writer->hasher, at, b->lengths[i], &b->leaves[i]);
	return r;
}

static int add_envelope(struct batch *b, size_t i, const char *json, struct signer *signer,
			struct batch_writer *writer, const uint8_t *signature, size_t size)
{
	const struct signer_event event = {
		.json = json,
		.json_len = b->lengths[i],
		.id = b->heads[i].id_text,
		.source = b->heads[i].source_text,
		.time = b->heads[i].time_text,
	};
	struct batch_text *t = &b->envelopes;
	size_t len;
	int r = signer_write_line(signer, &event, signature, size, t->data + t->len,
				  t->size - t->len, &len);

	if (r == 0 && signer_tree(signer))
		r = tree_hash_leaf(writer->hasher, t->data + t->len, len - 1, &b->leaves[i]);
	if (r == 0)
		t->len += len;
	return r;
}

/* The events from first to end - 1; their JSON stands side by side. */
static int sign_and_add(struct batch *b, struct signer *signer, struct batch_writer *writer,
			const char *json, size_t first, size_t end)
{
	const int size = signer_sign(signer, writer->channel, b->lengths + first,
				     (unsigned)(end - first), writer->signatures);
	int r = MIN(size, 0);

	for (size_t i = first; r == 0 && i < end; json += b->lengths[i++])
		r = add_envelope(b, i, json, signer, writer, writer->signatures[i - first],
				 (size_t)size);
	return r;
}

static int write_envelopes(struct batch *b, struct signer *signer, struct batch_writer *writer)
{
	char *json = sign_client_entries(signer_client(signer), writer->channel);
	const char *at = b->events.data;
	size_t first = 0, used = 0;
	int r = json ? reserve(&b->envelopes, b->lines_size + SIGN_ENVELOPE_MAX) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < b->n_events; at += b->lengths[i++] + 1) {
		if (SIGN_SHARED_SIZE - used < b->lengths[i]) {
			r = sign_and_add(b, signer, writer, json, first, i);
			first = i;
			used = 0;
		}
		memcpy(json + used, at, b->lengths[i]);
		used += b->lengths[i];
	}
	if (r == 0 && first < b->n_events)
		r = sign_and_add(b, signer, writer, json, first, b->n_events);
	return r;
}

int batch_sign(struct batch *b, struct signer *signer, struct batch_writer *writer)
{
	if (sign_algorithm_has_envelope(signer_algorithm(signer))) {
		b->lines = &b->envelopes;
		return write_envelopes(b, signer, writer);
	}
	b->lines = &b->events;
	return signer_tree(signer) ? hash_events(b, writer) : 0;
}
