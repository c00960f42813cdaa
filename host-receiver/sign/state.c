/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/state.h"

#include <fcntl.h>

#include "common/util.h"

#define MAGIC	  UINT64_C(0x31746174736c6563) /* "celstat1" */
#define SLOT_SIZE 16384u
#define NO_SLOT	  SIGN_STATE_SLOTS

/* A slot. Numbers are in the machine's byte order, because the file never leaves the machine. */
struct slot_head {
	uint64_t magic, generation;
	uint64_t len;		   /* bytes after this head */
	struct tree_hash checksum; /* over generation, len and the bytes after this head */
};

struct slot_point {
	uint64_t size, note_len, origin_len;
};

/* ---- bytes ---- */

struct writer {
	uint8_t *at;
};

static void put(struct writer *w, const void *data, size_t len)
{
	memcpy(w->at, data, len);
	w->at += len;
}

static void put_point(struct writer *w, const struct sign_point *p)
{
	const struct slot_point head = {
		.size = p->frontier.size,
		.note_len = p->note_len,
		.origin_len = strlen(p->origin),
	};

	put(w, &head, sizeof(head));
	put(w, p->origin, head.origin_len);
	put(w, p->note, p->note_len);
	put(w, p->frontier.hashes,
	    tree_frontier_count(p->frontier.size) * sizeof(struct tree_hash));
}

#define POINT_BYTES_MAX                                                                            \
	(sizeof(struct slot_point) + NOTE_ORIGIN_MAX + LINE_NOTE_MAX + TREE_LEVELS * TREE_HASH_SIZE)
_Static_assert(sizeof(struct slot_head) + 3 * POINT_BYTES_MAX + LINE_KID_MAX + 1 + 32 <= SLOT_SIZE,
	       "a slot holds three points");

struct reader {
	const uint8_t *at, *end;
};

static bool take(struct reader *r, void *ret, size_t len)
{
	if ((size_t)(r->end - r->at) < len)
		return false;
	memcpy(ret, r->at, len);
	r->at += len;
	return true;
}

static bool take_point(struct reader *r, struct sign_point *p)
{
	struct slot_point head;

	if (!take(r, &head, sizeof(head)) || head.size > TREE_SIZE_MAX ||
	    head.origin_len > NOTE_ORIGIN_MAX || head.note_len >= LINE_NOTE_MAX ||
	    !take(r, p->origin, head.origin_len) || !take(r, p->note, head.note_len))
		return false;
	p->origin[head.origin_len] = '\0';
	p->note[head.note_len] = '\0';
	p->note_len = head.note_len;
	p->frontier.size = head.size;
	return take(r, p->frontier.hashes,
		    tree_frontier_count(head.size) * sizeof(struct tree_hash));
}

static int checksum(struct sign_state *state, const struct slot_head *head, const uint8_t *body,
		    struct tree_hash *ret)
{
	const uint64_t numbers[] = {head->generation, head->len};

	return tree_hash_two(state->hasher, numbers, sizeof(numbers), body, head->len, ret);
}

/* ---- slots ---- */

static int write_slot(struct sign_state *state)
{
	uint8_t slot[SLOT_SIZE];
	struct slot_head head = {.magic = MAGIC, .generation = state->generation + 1};
	struct writer w = {.at = slot + sizeof(head)};
	size_t len;
	ssize_t n;
	int r;

	if (state->fd < 0) {
		state->generation++;
		return 0;
	}
	put_point(&w, &state->before);
	put_point(&w, &state->last);
	put(&w, state->kid, sizeof(state->kid));
	put(&w, state->public_key, sizeof(state->public_key));
	put_point(&w, &state->synced);
	len = (size_t)(w.at - slot);
	head.len = len - sizeof(head);
	r = checksum(state, &head, slot + sizeof(head), &head.checksum);
	if (r < 0)
		return r;
	memcpy(slot, &head, sizeof(head));
	n = pwrite(state->fd, slot, len, (off_t)state->slot * SLOT_SIZE);
	if (n != (ssize_t)len)
		return n < 0 ? -errno : -EIO;
	state->generation = head.generation;
	return 0;
}

static bool read_slot(struct sign_state *state, unsigned number, const uint8_t *slot, size_t len)
{
	struct sign_state found = *state;
	struct slot_head head;
	struct tree_hash sum;
	struct reader r;

	if (len < sizeof(head))
		return false;
	memcpy(&head, slot, sizeof(head));
	if (head.magic != MAGIC || head.len > len - sizeof(head) ||
	    checksum(state, &head, slot + sizeof(head), &sum) < 0 ||
	    !tree_hash_equal(&sum, &head.checksum))
		return false;
	if (head.generation <= state->generation)
		return true;
	r = (struct reader){.at = slot + sizeof(head), .end = slot + sizeof(head) + head.len};
	if (!take_point(&r, &found.before) || !take_point(&r, &found.last) ||
	    !take(&r, found.kid, sizeof(found.kid)) ||
	    !take(&r, found.public_key, sizeof(found.public_key)))
		return false;
	/* Earlier versions stored two points. */
	if (r.at == r.end)
		found.synced = found.before;
	else if (!take_point(&r, &found.synced))
		return false;
	found.generation = head.generation;
	found.synced_slot = number;
	*state = found;
	return true;
}

static int read_slots(struct sign_state *state)
{
	const size_t size = SIGN_STATE_SLOTS * SLOT_SIZE;
	_cleanup_free_ uint8_t *file = malloc(size);
	ssize_t n;
	bool any = false;

	if (!file)
		return -ENOMEM;
	n = pread(state->fd, file, size, 0);
	if (n < 0)
		return -errno;
	for (unsigned i = 0; i < SIGN_STATE_SLOTS; i++)
		if ((size_t)n > i * SLOT_SIZE)
			any |= read_slot(state, i, file + i * SLOT_SIZE,
					 MIN((size_t)n - i * SLOT_SIZE, (size_t)SLOT_SIZE));
	state->lost = n > 0 && !any;
	return 0;
}

/* Neither the slot that the disk has, nor the one that it gets just now. */
static unsigned free_slot(const struct sign_state *state)
{
	unsigned i = 0;

	while (i == state->synced_slot || i == state->syncing_slot)
		i++;
	return i;
}

int sign_state_open(struct sign_state *state, int dir_fd)
{
	int r;

	*state = (struct sign_state){
		.fd = -1,
		.synced_slot = NO_SLOT,
		.syncing_slot = NO_SLOT,
		.hasher = tree_hasher_new(),
	};
	if (!state->hasher)
		return -ENOMEM;
	if (dir_fd < 0)
		return 0;
	state->fd = openat(dir_fd, SIGN_STATE_FILE,
			   O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (state->fd < 0)
		return -errno;
	r = read_slots(state);
	/* A signer that died may have left a slot that is not on disk yet. */
	if (r == 0 && (fdatasync(state->fd) < 0 || fsync(dir_fd) < 0))
		r = -errno;
	state->slot = free_slot(state);
	state->synced_generation = state->generation;
	return r;
}

void sign_state_close(struct sign_state *state)
{
	close_fd(take_fd(&state->fd));
	tree_hasher_free(take_ptr(state->hasher));
}

bool sign_state_sync_begin(struct sign_state *state)
{
	if (state->fd < 0 || state->syncing_slot != NO_SLOT ||
	    state->generation == state->synced_generation)
		return false;
	state->syncing_slot = state->slot;
	state->syncing_generation = state->generation;
	state->slot = free_slot(state);
	return true;
}

int sign_state_sync_wait(const struct sign_state *state)
{
	return state->fd >= 0 && fdatasync(state->fd) < 0 ? -errno : 0;
}

void sign_state_sync_end(struct sign_state *state, int result)
{
	const unsigned slot = state->syncing_slot;

	state->syncing_slot = NO_SLOT;
	if (result == 0) {
		state->synced_slot = slot;
		state->synced_generation = state->syncing_generation;
	} else {
		/* The kernel may have dropped what it could not write. */
		write_slot(state);
	}
}

/* ---- the tree ---- */

static int append_all(struct sign_state *state, struct tree_frontier *frontier,
		      const struct tree_hash *leaves, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = tree_frontier_append(state->hasher, frontier, &leaves[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int same_root(struct sign_state *state, const struct tree_frontier *a,
		     const struct tree_frontier *b)
{
	struct tree_hash x, y;
	int r = tree_frontier_root(state->hasher, a, &x);

	if (r == 0)
		r = tree_frontier_root(state->hasher, b, &y);
	if (r < 0)
		return r;
	return a->size == b->size && tree_hash_equal(&x, &y);
}

static bool ends_at(const struct sign_point *p, const char *origin, uint64_t size)
{
	return strcmp(p->origin, origin) == 0 && p->frontier.size == size;
}

int sign_state_propose(struct sign_state *state, const char *origin, uint64_t first,
		       const struct tree_hash *leaves, size_t n)
{
	const bool known = strcmp(state->last.origin, origin) == 0;
	const bool was_known = strcmp(state->before.origin, origin) == 0;
	struct sign_point *next = &state->next;
	bool again = false;
	int r;

	if (ends_at(&state->last, origin, first)) {
		next->frontier = state->last.frontier;
	} else if (known && (first == 0 || ends_at(&state->before, origin, first))) {
		/* A receiver that did not get the note repeats its request. */
		again = true;
		if (was_known)
			next->frontier = state->before.frontier;
		else
			next->frontier.size = 0;
		if (next->frontier.size != first)
			return -ESTALE;
	} else if (!known && !was_known && first == 0) {
		next->frontier.size = 0; /* a new log */
	} else {
		return -ESTALE;
	}
	snprintf(next->origin, sizeof(next->origin), "%s", origin);
	r = append_all(state, &next->frontier, leaves, n);
	if (r < 0 || !again)
		return r < 0 ? r : 1;
	r = same_root(state, &next->frontier, &state->last.frontier);
	return r < 0 ? r : r > 0 ? 0 : -ESTALE;
}

static void set_candidate(struct sign_state *state, uint64_t now_ns)
{
	state->candidate = state->last;
	state->candidate_ns = now_ns;
}

void sign_state_note_durable(struct sign_state *state, const char *origin, uint64_t size)
{
	const uint64_t now_ns = monotonic_ns();

	if (strcmp(state->last.origin, origin) != 0) {
		/* A new log: what is durable is that it is empty. */
		state->synced.frontier.size = state->synced.note_len = 0;
		snprintf(state->synced.origin, sizeof(state->synced.origin), "%s", origin);
		*state->candidate.origin = '\0';
	} else if (state->last.frontier.size <= size) {
		state->synced = state->last;
		*state->candidate.origin = '\0';
	} else if (!*state->candidate.origin) {
		set_candidate(state, now_ns);
	} else if (state->candidate.frontier.size <= size ||
		   now_ns - state->candidate_ns > SIGN_STATE_LAG_MS * NSEC_PER_MSEC) {
		state->synced = state->candidate;
		set_candidate(state, now_ns);
	}
}

int sign_state_advance(struct sign_state *state, const char *kid,
		       const uint8_t public_key[static 32])
{
	struct sign_point before = state->before;
	char old_kid[sizeof(state->kid)];
	uint8_t old_key[sizeof(state->public_key)];
	int r;

	memcpy(old_kid, state->kid, sizeof(old_kid));
	memcpy(old_key, state->public_key, sizeof(old_key));
	state->before = state->last;
	state->last = state->next;
	memset(state->kid, 0, sizeof(state->kid));
	snprintf(state->kid, sizeof(state->kid), "%s", kid);
	memcpy(state->public_key, public_key, sizeof(state->public_key));
	r = write_slot(state);
	if (r < 0) {
		/* The signature is not sent. */
		state->last = state->before;
		state->before = before;
		memcpy(state->kid, old_kid, sizeof(old_kid));
		memcpy(state->public_key, old_key, sizeof(old_key));
	}
	return r;
}

int sign_state_retreat(struct sign_state *state, const char *origin, uint64_t size)
{
	if (ends_at(&state->before, origin, size)) {
		state->last = state->before;
	} else if (ends_at(&state->synced, origin, size)) {
		state->last = state->before = state->synced;
	} else if (size == 0 && strcmp(state->last.origin, origin) == 0 &&
		   strcmp(state->before.origin, origin) != 0) {
		/* The log's very first group. */
		state->last.frontier.size = 0;
		state->last.note_len = 0;
	} else {
		return -ESTALE;
	}
	*state->candidate.origin = '\0';
	return write_slot(state);
}

int sign_state_extend(struct sign_state *state, const struct tree_hash *leaves, size_t n,
		      const char *note_text, size_t note_len)
{
	struct sign_point *next = &state->next;
	struct note note;
	struct tree_hash root;
	const char *why;
	int r;

	if (note_len >= LINE_NOTE_MAX || note_parse(note_text, note_len, &note, &why) < 0)
		return -ESTALE;
	*next = state->last;
	r = append_all(state, &next->frontier, leaves, n);
	if (r == 0)
		r = tree_frontier_root(state->hasher, &next->frontier, &root);
	if (r < 0)
		return r;
	if (note.checkpoint.size != next->frontier.size ||
	    strcmp(note.checkpoint.origin, next->origin) != 0 ||
	    !tree_hash_equal(&note.checkpoint.root, &root))
		return -ESTALE;
	memcpy(next->note, note_text, note_len);
	next->note[note_len] = '\0';
	next->note_len = note_len;
	state->before = state->last = *next;
	return write_slot(state);
}
