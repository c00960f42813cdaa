/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/core.h"

#include <pthread.h>

#include "common/util.h"

struct sign_core {
	pthread_mutex_t lock;
	unsigned refs;
	struct sign_state state;
};

int sign_core_new(int dir_fd, struct sign_core **ret)
{
	struct sign_core *core = calloc(1, sizeof(*core));
	int r;

	if (!core)
		return -ENOMEM;
	pthread_mutex_init(&core->lock, NULL);
	core->refs = 1;
	r = sign_state_open(&core->state, dir_fd);
	if (r < 0) {
		sign_core_unref(core);
		return r;
	}
	*ret = core;
	return 0;
}

struct sign_core *sign_core_ref(struct sign_core *core)
{
	pthread_mutex_lock(&core->lock);
	core->refs++;
	pthread_mutex_unlock(&core->lock);
	return core;
}

void sign_core_unref(struct sign_core *core)
{
	unsigned left;

	if (!core)
		return;
	pthread_mutex_lock(&core->lock);
	left = --core->refs;
	pthread_mutex_unlock(&core->lock);
	if (left > 0)
		return;
	sign_state_sync_wait(&core->state);
	sign_state_close(&core->state);
	pthread_mutex_destroy(&core->lock);
	free(core);
}

void sign_core_memory(struct sign_core *core, struct sign_memory *ret)
{
	pthread_mutex_lock(&core->lock);
	ret->last = core->state.last;
	ret->before = core->state.before;
	ret->synced = core->state.synced;
	memcpy(ret->kid, core->state.kid, sizeof(ret->kid));
	memcpy(ret->public_key, core->state.public_key, sizeof(ret->public_key));
	ret->lost = core->state.lost;
	pthread_mutex_unlock(&core->lock);
}

static int sign_with(struct sign_core *core, const struct signing_key *key,
		     const struct note_checkpoint *checkpoint, struct note_signature *ret)
{
	char body[NOTE_BODY_MAX];
	int len = note_format_body(checkpoint, body), r;

	if (len < 0)
		return len;
	r = note_key_id(core->state.hasher, checkpoint->origin, signing_key_public(key),
			ret->key_id);
	if (r == 0)
		signing_key_sign(key, body, (size_t)len, ret->bytes);
	return r;
}

/* Make the note of state.next, signed by one key or by both. */
static int sign_next(struct sign_core *core, const struct signing_key *key,
		     const struct signing_key *previous)
{
	struct sign_point *next = &core->state.next;
	struct note_checkpoint checkpoint = {.size = next->frontier.size};
	struct note_signature signatures[NOTE_OWN_MAX];
	unsigned n = 0;
	int r = tree_frontier_root(core->state.hasher, &next->frontier, &checkpoint.root);

	memcpy(checkpoint.origin, next->origin, sizeof(checkpoint.origin));
	if (r == 0 && previous)
		r = sign_with(core, previous, &checkpoint, &signatures[n++]);
	if (r == 0)
		r = sign_with(core, key, &checkpoint, &signatures[n++]);
	if (r == 0)
		r = note_format(&checkpoint, signatures, n, next->note, sizeof(next->note));
	if (r < 0)
		return r;
	next->note_len = (size_t)r;
	return 0;
}

static int append(struct sign_core *core, const struct signing_key *key,
		  const struct signing_key *previous, const char *origin, uint64_t first,
		  const struct tree_hash *leaves, size_t n, uint64_t durable)
{
	struct sign_state *state = &core->state;
	const bool new_log = strcmp(state->last.origin, origin) != 0;
	int r = sign_state_propose(state, origin, first, leaves, n);

	if (r <= 0)
		return r;
	/*
	 * Both keys sign the first checkpoint of a new key in the log of the old one, and no other.
	 */
	if (previous && (strcmp(state->kid, signing_key_kid(previous)) != 0 ||
			 strcmp(state->last.origin, origin) != 0))
		previous = NULL;
	r = sign_next(core, key, previous);
	if (r < 0)
		return r;
	sign_state_note_durable(state, origin, durable);
	r = sign_state_advance(state, signing_key_kid(key), signing_key_public(key));
	/* Otherwise a power cut leaves a log whose origin no state knows. */
	return r == 0 && new_log ? sign_state_sync_wait(state) : r;
}

int sign_core_append(struct sign_core *core, const struct signing_key *key,
		     const struct signing_key *previous, const char *origin, uint64_t first,
		     const struct tree_hash *leaves, size_t n, uint64_t durable,
		     char ret[static LINE_NOTE_MAX])
{
	int r;

	pthread_mutex_lock(&core->lock);
	r = append(core, key, previous, origin, first, leaves, n, durable);
	if (r == 0) {
		memcpy(ret, core->state.last.note, core->state.last.note_len + 1);
		r = (int)core->state.last.note_len;
	}
	pthread_mutex_unlock(&core->lock);
	return r;
}

int sign_core_sync(struct sign_core *core)
{
	bool due;
	int r;

	pthread_mutex_lock(&core->lock);
	due = sign_state_sync_begin(&core->state);
	pthread_mutex_unlock(&core->lock);
	if (!due)
		return 0;
	/* Without the lock, so that signatures do not wait for the disk. The file stays open. */
	r = sign_state_sync_wait(&core->state);
	pthread_mutex_lock(&core->lock);
	sign_state_sync_end(&core->state, r);
	pthread_mutex_unlock(&core->lock);
	return r;
}

int sign_core_retreat(struct sign_core *core, const char *origin, uint64_t size)
{
	int r;

	pthread_mutex_lock(&core->lock);
	r = sign_state_retreat(&core->state, origin, size);
	pthread_mutex_unlock(&core->lock);
	return r;
}

int sign_core_extend(struct sign_core *core, const struct tree_hash *leaves, size_t n,
		     const char *note, size_t note_len)
{
	int r;

	pthread_mutex_lock(&core->lock);
	r = sign_state_extend(&core->state, leaves, n, note, note_len);
	pthread_mutex_unlock(&core->lock);
	return r;
}
