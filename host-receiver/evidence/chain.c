/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/chain.h"

#include <assert.h>

#include "common/util.h"

int chain_init(struct chain *chain)
{
	*chain = (struct chain){.hasher = tree_hasher_new()};
	return chain->hasher ? 0 : -ENOMEM;
}

void chain_done(struct chain *chain)
{
	tree_hasher_free(take_ptr(chain->hasher));
}

void chain_begin(struct chain *chain, const char *origin)
{
	assert(!chain->pending);
	snprintf(chain->origin, sizeof(chain->origin), "%s", origin);
	chain->frontier.size = 0;
	chain->note_len = 0;
}

void chain_resume(struct chain *chain, const char *origin, const struct tree_frontier *frontier,
		  const char *note, size_t note_len)
{
	chain_begin(chain, origin);
	chain->frontier = *frontier;
	memcpy(chain->note, note, note_len);
	chain->note_len = note_len;
}

/* The signer must have signed the root that is computed here. */
static int check_signed(const struct chain *chain)
{
	struct note note;
	struct tree_hash root;
	const char *why;
	int r = tree_frontier_root(chain->hasher, &chain->next, &root);

	if (r < 0)
		return r;
	if (note_parse(chain->next_note, chain->next_note_len, &note, &why) < 0 ||
	    note.checkpoint.size != chain->next.size ||
	    strcmp(note.checkpoint.origin, chain->origin) != 0 ||
	    !tree_hash_equal(&note.checkpoint.root, &root))
		return -EPROTO;
	return 0;
}

int chain_sign(struct chain *chain, const struct evidence_group *group, uint64_t durable)
{
	struct tree_signer *signer = group->signer;
	int r;

	if (chain->pending) {
		assert(chain->pending_lines == group->n_lines);
		return 0;
	}
	chain->next = chain->frontier;
	for (uint64_t i = 0; i < group->n_lines; i++) {
		r = tree_frontier_append(chain->hasher, &chain->next, &group->leaves[i]);
		if (r < 0)
			return r;
	}
	r = signer->ops->append(signer, chain->frontier.size, group->leaves, group->n_lines,
				durable, chain->next_note);
	if (r < 0)
		return r;
	chain->next_note_len = (size_t)r;
	r = check_signed(chain);
	if (r < 0)
		return r;
	r = line_write_checkpoint(chain->origin, chain->next.size, signer->kid, chain->next_note,
				  chain->next_note_len, clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC,
				  chain->line);
	if (r < 0)
		return r;
	chain->line_len = (size_t)r;
	chain->pending_lines = group->n_lines;
	chain->pending = true;
	return 0;
}

void chain_accept(struct chain *chain)
{
	chain->pending = false;
	chain->frontier = chain->next;
	chain->note_len = chain->next_note_len;
	memcpy(chain->note, chain->next_note, chain->note_len);
}

int chain_segment_line(const struct chain *chain, char ret[static LINE_OWN_MAX])
{
	return line_write_segment(chain->origin, &chain->frontier,
				  chain->note_len > 0 ? chain->note : NULL, chain->note_len,
				  clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC, ret);
}
