/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/batch.h"

#include "common/util.h"

/* A batch with a larger buffer than this frees it before its next use. */
#define OUT_KEEP_MAX BATCH_LINES_MAX

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
	free(b->out);
	free(b);
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
	if (b->out_size > OUT_KEEP_MAX) {
		free(take_ptr(b->out));
		b->out_size = 0;
	}
	b->n_events = b->n_shares = b->lines_size = b->cost = b->out_len = 0;
	b->n_lines = 0;
	b->durable = false;
	b->deferred = NULL;
	b->error = 0;
}

size_t batch_footprint(const struct batch *b)
{
	return sizeof(*b) + b->blocks_size + MAX(b->out_size, b->lines_size);
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

static int reserve(struct batch *b, size_t more)
{
	const size_t size = MAX(b->lines_size + SIGN_ENVELOPE_MAX, b->out_len + more);
	char *out;

	/* The size of all lines is known, so memory is allocated once. */
	if (b->out_size - b->out_len >= more)
		return 0;
	out = realloc(b->out, size);
	if (!out)
		return -ENOMEM;
	b->out = out;
	b->out_size = size;
	return 0;
}

/* An entry is the line without its newline. */
static int add_line(struct batch *b, struct signer *signer, struct batch_writer *writer,
		    const struct signer_event *event, const uint8_t *signature, size_t size)
{
	size_t len;
	int r = reserve(b, event->json_len + SIGN_ENVELOPE_MAX);

	if (r == 0)
		r = signer_write_line(signer, event, signature, size, b->out + b->out_len,
				      b->out_size - b->out_len, &len);
	if (r == 0 && signer_tree(signer))
		r = tree_hash_leaf(writer->hasher, b->out + b->out_len, len - 1,
				   &b->leaves[b->n_lines]);
	if (r < 0)
		return r;
	b->out_len += len;
	b->n_lines++;
	return 0;
}

static struct signer_event event_of(const char *json, size_t len, const struct event_head *head)
{
	return (struct signer_event){
		.json = json,
		.json_len = len,
		.id = head->id_text,
		.source = head->source_text,
		.time = head->time_text,
	};
}

static int write_bare(struct batch *b, struct signer *signer, struct batch_writer *writer)
{
	char json[EVENT_LINE_MAX];

	for (size_t i = 0; i < b->n_events; i++) {
		struct signer_event event;
		size_t len;
		int r = event_write(&b->events[i], &writer->clock, json,
				    sizeof(json) - SIGN_ENVELOPE_MAX, &len, &writer->heads[i]);

		if (r < 0)
			return r;
		event = event_of(json, len, &writer->heads[i]);
		r = add_line(b, signer, writer, &event, NULL, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Write the events from first to end - 1; their JSON stands side by side. */
static int sign_and_add(struct batch *b, struct signer *signer, struct batch_writer *writer,
			const char *json, size_t first, size_t end)
{
	const int size = signer_sign(signer, writer->channel, writer->lengths + first,
				     (unsigned)(end - first), writer->signatures);

	if (size < 0)
		return size;
	for (size_t i = first; i < end; json += writer->lengths[i++]) {
		const struct signer_event event =
			event_of(json, writer->lengths[i], &writer->heads[i]);
		int r = add_line(b, signer, writer, &event, writer->signatures[i - first],
				 (size_t)size);

		if (r < 0)
			return r;
	}
	return 0;
}

static int write_enveloped(struct batch *b, struct signer *signer, struct batch_writer *writer)
{
	char *json = sign_client_entries(signer_client(signer), writer->channel);
	size_t first = 0, used = 0;
	int r = 0;

	if (!json)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < b->n_events; i++) {
		size_t len;

		if (SIGN_SHARED_SIZE - used < EVENT_LINE_MAX) {
			r = sign_and_add(b, signer, writer, json, first, i);
			first = i;
			used = 0;
		}
		if (r == 0)
			r = event_write(&b->events[i], &writer->clock, json + used,
					EVENT_LINE_MAX - SIGN_ENVELOPE_MAX, &len,
					&writer->heads[i]);
		if (r == 0) {
			writer->lengths[i] = (uint32_t)len;
			used += len;
		}
	}
	if (r == 0 && first < b->n_events)
		r = sign_and_add(b, signer, writer, json, first, b->n_events);
	return r;
}

int batch_write(struct batch *b, struct signer *signer, struct batch_writer *writer)
{
	return sign_algorithm_has_envelope(signer_algorithm(signer))
		       ? write_enveloped(b, signer, writer)
		       : write_bare(b, signer, writer);
}
