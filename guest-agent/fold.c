/* SPDX-License-Identifier: MIT */
#include "guest-agent/fold.h"

#include <sys/mman.h>

#include "common/util.h"

#define WAYS 4u
#define SETS (FOLD_ENTRIES / WAYS)
_Static_assert((SETS & (SETS - 1)) == 0, "a mask picks the set");

/* What makes two observations equal, as bytes: source, comm and details. */
struct image {
	uint16_t len;
	uint8_t bytes[FOLD_BYTES_MAX];
};

struct slot {
	uint64_t hash;
	uint64_t until_ns;	    /* the end of the window; 0: the slot is free */
	uint64_t first_ns, last_ns; /* of the repeats */
	uint32_t repeat;
	struct image image;
};

struct fold {
	uint64_t next_ns; /* not later than the end of any window with repeats; 0: there is none */
	uint32_t pids[FOLD_ENTRIES];
	struct slot slots[FOLD_ENTRIES];
};

struct fold *fold_new(void)
{
	/* Of its own mapping only the slots that were used become resident. */
	void *memory = mmap(NULL, sizeof(struct fold), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

void fold_free(struct fold *fold)
{
	if (fold)
		munmap(fold, sizeof(*fold));
}

/* ---- the image of an observation ---- */

static bool put(struct image *image, const void *data, size_t len)
{
	if (len > sizeof(image->bytes) - image->len)
		return false;
	if (len > 0)
		memcpy(image->bytes + image->len, data, len);
	image->len = (uint16_t)(image->len + len);
	return true;
}

static bool put_byte(struct image *image, unsigned value)
{
	const uint8_t byte = (uint8_t)value;

	return put(image, &byte, 1);
}

static bool put_text(struct image *image, struct wire_text text)
{
	const uint16_t len = (uint16_t)text.len;

	return put(image, &len, sizeof(len)) && put(image, text.data, text.len);
}

static bool put_detail(struct image *image, const struct wire_detail *detail)
{
	if (!put_byte(image, detail->key))
		return false;
	switch (detail->type) {
	case WIRE_TYPE_UINT: return put(image, &detail->uint, sizeof(detail->uint));
	case WIRE_TYPE_BOOL: return put_byte(image, detail->boolean);
	case WIRE_TYPE_TEXT: return put_text(image, detail->text);
	case _WIRE_TYPE_MAX: break;
	}
	return false;
}

static bool make_image(struct image *image, const struct declaration *d)
{
	image->len = 0;
	if (!put_byte(image, d->source) || !put_text(image, d->guest_comm))
		return false;
	for (size_t i = 0; i < d->n_details; i++)
		if (!put_detail(image, &d->details[i]))
			return false;
	return true;
}

static struct wire_text take_text(const uint8_t **at)
{
	struct wire_text text = {.data = (const char *)*at + sizeof(uint16_t)};
	uint16_t len;

	memcpy(&len, *at, sizeof(len));
	text.len = len;
	*at += sizeof(len) + len;
	return text;
}

/* The image was made here, so it is whole. Texts are borrowed from it. */
static void read_image(const struct image *image, struct declaration *d)
{
	const uint8_t *at = image->bytes, *end = at + image->len;
	uint64_t value;

	d->source = (enum wire_source) * at++;
	d->guest_comm = take_text(&at);
	d->n_details = 0;
	while (at < end) {
		const enum wire_key key = (enum wire_key) * at++;

		switch (wire_key_type(key)) {
		case WIRE_TYPE_UINT:
			memcpy(&value, at, sizeof(value));
			at += sizeof(value);
			declaration_add_uint(d, key, value);
			break;
		case WIRE_TYPE_BOOL: declaration_add_bool(d, key, *at++); break;
		case WIRE_TYPE_TEXT: declaration_add_text(d, key, take_text(&at)); break;
		case _WIRE_TYPE_MAX: return;
		}
	}
}

/* FNV-1a by words of eight bytes; it only spreads, equality is decided by the bytes. */
static uint64_t hash_of(uint32_t pid, const struct image *image)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ pid, word;
	size_t i = 0;

	for (; i + sizeof(word) <= image->len; i += sizeof(word)) {
		memcpy(&word, image->bytes + i, sizeof(word));
		hash = (hash ^ word) * UINT64_C(0x100000001b3);
		hash ^= hash >> 32;
	}
	for (; i < image->len; i++)
		hash = (hash ^ image->bytes[i]) * UINT64_C(0x100000001b3);
	return hash ^ hash >> 29;
}

/* ---- the table ---- */

static bool foldable(const struct declaration *d)
{
	return d->source != WIRE_PROCESS_SPAWNED && d->source != WIRE_PROCESS_EXITED &&
	       d->n_details + 2 <= WIRE_DETAIL_PAIRS_MAX;
}

static void count(struct fold *fold, struct slot *s, uint64_t at_ns)
{
	if (s->repeat == 0) {
		s->first_ns = s->last_ns = at_ns;
		fold->next_ns = fold->next_ns ? MIN(fold->next_ns, s->until_ns) : s->until_ns;
	}
	s->repeat++;
	s->last_ns = MAX(s->last_ns, at_ns);
}

bool fold_take(struct fold *fold, const struct declaration *d)
{
	const uint64_t at_ns = d->guest_monotonic_ns;
	struct slot *oldest = NULL;
	struct image image;
	uint64_t hash;
	size_t first;

	if (!foldable(d) || !make_image(&image, d))
		return false;
	hash = hash_of(d->guest_pid, &image);
	first = (hash & (SETS - 1)) * WAYS;
	for (size_t i = first; i < first + WAYS; i++) {
		struct slot *s = &fold->slots[i];

		if (s->until_ns > 0 && s->hash == hash && fold->pids[i] == d->guest_pid &&
		    s->image.len == image.len &&
		    memcmp(s->image.bytes, image.bytes, image.len) == 0) {
			if (at_ns < s->until_ns && s->repeat < UINT32_MAX) {
				count(fold, s, at_ns);
				return true;
			}
			/* The old repeats are not sent yet, so the observation begins no window. */
			if (s->repeat > 0)
				return false;
			oldest = s;
			break;
		}
		if (s->repeat == 0 && (!oldest || s->until_ns < oldest->until_ns))
			oldest = s;
	}
	if (!oldest)
		return false;
	fold->pids[oldest - fold->slots] = d->guest_pid;
	oldest->hash = hash;
	oldest->until_ns = at_ns + FOLD_WINDOW_MS * NSEC_PER_MSEC;
	oldest->image.len = image.len;
	memcpy(oldest->image.bytes, image.bytes, image.len);
	return false;
}

static void take_out(struct fold *fold, size_t i, struct declaration *ret, uint32_t *ret_count)
{
	struct slot *s = &fold->slots[i];

	read_image(&s->image, ret);
	ret->guest_pid = fold->pids[i];
	ret->guest_monotonic_ns = s->first_ns;
	declaration_add_uint(ret, WIRE_KEY_REPEAT, s->repeat);
	declaration_add_uint(ret, WIRE_KEY_LAST_NS, s->last_ns);
	*ret_count = s->repeat;
	s->repeat = 0;
}

bool fold_due(struct fold *fold, uint64_t now_ns, struct declaration *ret, uint32_t *ret_count)
{
	uint64_t next_ns = 0;

	if (fold->next_ns == 0 || now_ns < fold->next_ns)
		return false;
	for (size_t i = 0; i < FOLD_ENTRIES; i++) {
		struct slot *s = &fold->slots[i];

		if (s->repeat == 0)
			continue;
		if (s->until_ns <= now_ns) {
			take_out(fold, i, ret, ret_count);
			/* It came again, so it is likely to go on. */
			s->until_ns = now_ns + FOLD_WINDOW_MS * NSEC_PER_MSEC;
			return true;
		}
		next_ns = next_ns ? MIN(next_ns, s->until_ns) : s->until_ns;
	}
	fold->next_ns = next_ns;
	return false;
}

bool fold_forget(struct fold *fold, uint32_t pid, struct declaration *ret, uint32_t *ret_count)
{
	for (size_t i = 0; i < FOLD_ENTRIES; i++) {
		struct slot *s = &fold->slots[i];

		if (fold->pids[i] != pid || s->until_ns == 0)
			continue;
		s->until_ns = 0;
		if (s->repeat > 0) {
			take_out(fold, i, ret, ret_count);
			return true;
		}
	}
	return false;
}

uint64_t fold_next_ns(const struct fold *fold)
{
	return fold->next_ns;
}
