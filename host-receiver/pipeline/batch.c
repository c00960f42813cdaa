/* SPDX-License-Identifier: MIT */
#include "host-receiver/pipeline/batch.h"

#include "common/util.h"

/* A batch whose lines needed more than this gives the memory back. */
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

	/* The size of all lines is known: memory is asked for once. */
	if (b->out_size - b->out_len >= more)
		return 0;
	out = realloc(b->out, size);
	if (!out)
		return -ENOMEM;
	b->out = out;
	b->out_size = size;
	return 0;
}

static int write_event(struct batch *b, const struct event *e, const struct signer *signer,
		       struct event_clock *clock)
{
	char json[EVENT_LINE_MAX];
	struct event_head head;
	struct signer_event event = {.json = json};
	size_t len;
	int r;

	r = event_write(e, clock, json, sizeof(json) - SIGN_ENVELOPE_MAX, &event.json_len, &head);
	if (r < 0)
		return r;
	event.id = head.id_text;
	event.source = head.source_text;
	event.time = head.time_text;
	r = reserve(b, event.json_len + SIGN_ENVELOPE_MAX);
	if (r < 0)
		return r;
	r = signer_write_line(signer, &event, b->out + b->out_len, b->out_size - b->out_len, &len);
	if (r < 0)
		return r;
	b->out_len += len;
	b->n_lines++;
	return 0;
}

int batch_write(struct batch *b, struct signer *signer, struct event_clock *clock,
		struct tree_hasher *hasher)
{
	const bool tree = signer_tree(signer) != NULL;

	for (size_t i = 0; i < b->n_events; i++) {
		const size_t begin = b->out_len;
		int r = write_event(b, &b->events[i], signer, clock);

		/* An entry is the line without its newline. */
		if (r == 0 && tree)
			r = tree_hash_leaf(hasher, b->out + begin, b->out_len - begin - 1,
					   &b->leaves[i]);
		if (r < 0)
			return r;
	}
	return 0;
}
