/* SPDX-License-Identifier: MIT */
/*
 * The memory of a signer: what it lets be signed, what of it is in the file,
 * and what is left of it after a failing write, a torn slot and a power cut.
 */
#include "host-receiver/sign/state.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/util.h"
#include "tests/unit/unit.h"

#define LOG	  "a/1"
#define OTHER	  "a/2"
#define SLOT_SIZE 16384u /* of state.c, which is what is on disk */

static char folder[] = "/tmp/cellos-sign-state-XXXXXX";
static int dir_fd;
static struct sign_state state;
static struct tree_hash leaves[16];
static const uint8_t keys[2][32] = {{1}, {2}};

static uint64_t now_ns;

/* Replaces the C library's: the time of these tests. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void)clock;
	ret->tv_sec = (time_t)(now_ns / NSEC_PER_SEC);
	ret->tv_nsec = (long)(now_ns % NSEC_PER_SEC);
	return 0;
}

static void setup(void)
{
	now_ns = NSEC_PER_SEC;
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dir_fd, 0);
	for (uint8_t i = 0; i < ARRAY_SIZE(leaves); i++)
		leaves[i].bytes[0] = i;
	ck_assert_int_eq(sign_state_open(&state, dir_fd), 0);
}

static void teardown(void)
{
	sign_state_close(&state);
	unlinkat(dir_fd, SIGN_STATE_FILE, 0);
	close(dir_fd);
	rmdir(folder);
}

static void open_again(void)
{
	sign_state_close(&state);
	ck_assert_int_eq(sign_state_open(&state, dir_fd), 0);
}

/* A note of the tree of the first leaves. */
static size_t note_of(const char *origin, uint64_t size, char ret[static LINE_NOTE_MAX])
{
	const struct note_signature signature = {.key_id = "key", .bytes = "signature"};
	struct tree_frontier frontier = {.size = 0};
	struct note_checkpoint c = {.origin = "", .size = size};
	int len;

	snprintf(c.origin, sizeof(c.origin), "%s", origin);
	for (uint64_t i = 0; i < size; i++)
		ck_assert_int_eq(tree_frontier_append(state.hasher, &frontier, &leaves[i]), 0);
	ck_assert_int_eq(tree_frontier_root(state.hasher, &frontier, &c.root), 0);
	len = note_format(&c, &signature, 1, ret, LINE_NOTE_MAX);
	ck_assert_int_gt(len, 0);
	return (size_t)len;
}

static int advance(unsigned key)
{
	struct sign_point *next = &state.next;

	next->note_len = note_of(next->origin, next->frontier.size, next->note);
	return sign_state_advance(&state, key ? "second" : "first", keys[key]);
}

/* The log's next entries are signed. */
static void grow(const char *origin, uint64_t first, size_t n)
{
	ck_assert_int_eq(sign_state_propose(&state, origin, first, leaves + first, n), 1);
	ck_assert_int_eq(advance(0), 0);
}

static void ends_at(const struct sign_point *p, const char *origin, uint64_t size)
{
	char note[LINE_NOTE_MAX];

	ck_assert_str_eq(p->origin, origin);
	ck_assert_uint_eq(p->frontier.size, size);
	if (size == 0)
		return;
	ck_assert_uint_eq(p->note_len, note_of(origin, size, note));
	ck_assert_str_eq(p->note, note);
}

UNIT_TEST(it_is_read_as_it_was_written)
{
	grow(LOG, 0, 3);
	grow(LOG, 3, 2);
	open_again();
	ck_assert(!state.lost);
	ends_at(&state.last, LOG, 5);
	ends_at(&state.before, LOG, 3);
	ck_assert_str_eq(state.kid, "first");
	ck_assert_mem_eq(state.public_key, keys[0], 32);
	/* It goes on there, and nowhere else. */
	ck_assert_int_eq(sign_state_propose(&state, LOG, 0, leaves + 1, 5), -ESTALE);
	ck_assert_int_eq(sign_state_propose(&state, LOG, 4, leaves + 4, 2), -ESTALE);
	ck_assert_int_eq(sign_state_propose(&state, LOG, 6, leaves + 6, 1), -ESTALE);
	ck_assert_int_eq(sign_state_propose(&state, OTHER, 5, leaves + 5, 1), -ESTALE);
	/* The last request once more. */
	ck_assert_int_eq(sign_state_propose(&state, LOG, 3, leaves + 3, 2), 0);
	grow(LOG, 5, 3);
	ends_at(&state.last, LOG, 8);
}

/* What is not in the file was not signed, by nobody. */
UNIT_TEST(a_failing_write_changes_nothing)
{
	const int writable = fcntl(state.fd, F_DUPFD_CLOEXEC, 0);
	const int read_only = openat(dir_fd, SIGN_STATE_FILE, O_RDONLY | O_CLOEXEC);

	grow(LOG, 0, 3);
	grow(LOG, 3, 2);
	ck_assert_int_eq(sign_state_propose(&state, LOG, 5, leaves + 5, 1), 1);
	ck_assert_int_ge(dup2(read_only, state.fd), 0);
	ck_assert_int_eq(advance(1), -EBADF);
	ends_at(&state.last, LOG, 5);
	ends_at(&state.before, LOG, 3);
	ck_assert_str_eq(state.kid, "first");
	ck_assert_mem_eq(state.public_key, keys[0], 32);
	ck_assert_int_ge(dup2(writable, state.fd), 0);
	ck_assert_int_eq(sign_state_propose(&state, LOG, 5, leaves + 5, 2), 1);
	ck_assert_int_eq(advance(1), 0);
	ends_at(&state.before, LOG, 5);
	ck_assert_str_eq(state.kid, "second");
	ck_assert_mem_eq(state.public_key, keys[1], 32);
	close(writable);
	close(read_only);
}

/* At a start the log may end at the tree before the last one. */
UNIT_TEST(a_retreat_goes_to_what_the_log_has)
{
	grow(LOG, 0, 3);
	grow(LOG, 3, 2);
	ck_assert_int_eq(sign_state_retreat(&state, LOG, 4), -ESTALE);
	ck_assert_int_eq(sign_state_retreat(&state, LOG, 0), -ESTALE);
	ck_assert_int_eq(sign_state_retreat(&state, OTHER, 3), -ESTALE);
	ck_assert_int_eq(sign_state_retreat(&state, LOG, 3), 0);
	open_again();
	ends_at(&state.last, LOG, 3);
	grow(LOG, 3, 4);
	ends_at(&state.last, LOG, 7);
}

/* After a power cut it may end at what was durable. */
UNIT_TEST(a_retreat_goes_to_what_was_durable)
{
	grow(LOG, 0, 3);
	sign_state_note_durable(&state, LOG, 3);
	grow(LOG, 3, 2);
	grow(LOG, 5, 1);
	open_again();
	ends_at(&state.synced, LOG, 3);
	ck_assert_int_eq(sign_state_retreat(&state, LOG, 3), 0);
	ends_at(&state.last, LOG, 3);
	ends_at(&state.before, LOG, 3);
	grow(LOG, 3, 1);
}

UNIT_TEST(the_first_group_may_be_lost)
{
	grow(OTHER, 0, 2);
	grow(LOG, 0, 3);
	ck_assert_int_eq(sign_state_retreat(&state, LOG, 0), 0);
	open_again();
	ends_at(&state.last, LOG, 0);
	ck_assert_uint_eq(state.last.note_len, 0);
	grow(LOG, 0, 1);
}

/* The log has more than the memory: only leaves that the note covers are taken.
 */
UNIT_TEST(an_extension_is_what_its_note_says)
{
	char note[LINE_NOTE_MAX];
	size_t len;

	grow(LOG, 0, 3);
	len = note_of(LOG, 5, note);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 3, 1, note, len), -ESTALE);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 4, 2, note, len), -ESTALE);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 3, 2, note, len - 5), -ESTALE);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 3, 2, note, LINE_NOTE_MAX), -ESTALE);
	len = note_of(OTHER, 5, note);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 3, 2, note, len), -ESTALE);
	ends_at(&state.last, LOG, 3);
	len = note_of(LOG, 5, note);
	ck_assert_int_eq(sign_state_extend(&state, leaves + 3, 2, note, len), 0);
	open_again();
	ends_at(&state.last, LOG, 5);
	ends_at(&state.before, LOG, 5);
}

static void damage(unsigned slot)
{
	const int fd = openat(dir_fd, SIGN_STATE_FILE, O_RDWR | O_CLOEXEC);
	const off_t at = (off_t)slot * SLOT_SIZE + 100;
	char byte;

	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void sync_slot(int result)
{
	ck_assert(sign_state_sync_begin(&state));
	ck_assert(!sign_state_sync_begin(&state));
	ck_assert_int_eq(sign_state_sync_wait(&state), 0);
	sign_state_sync_end(&state, result);
}

/* A power cut tears all slots that were written since the last sync: that of
 * the sync is whole. */
UNIT_TEST(the_synced_slot_is_not_written)
{
	unsigned synced;

	ck_assert(!sign_state_sync_begin(&state));
	grow(LOG, 0, 3);
	synced = state.slot;
	sync_slot(0);
	ck_assert(!sign_state_sync_begin(&state));
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_ne(state.slot, synced);
		grow(LOG, 3 + i, 1);
		/* During a sync neither of the two. */
		ck_assert(sign_state_sync_begin(&state));
		ck_assert_uint_ne(state.slot, synced);
		ck_assert_uint_ne(state.slot, state.syncing_slot);
		sign_state_sync_end(&state, -EIO);
		ck_assert_uint_eq(state.synced_slot, synced);
	}
	/* A failed sync is due again. */
	ck_assert(sign_state_sync_begin(&state));
	sign_state_sync_end(&state, -EIO);
	for (unsigned i = 0; i < SIGN_STATE_SLOTS; i++)
		if (i != synced)
			damage(i);
	open_again();
	ck_assert(!state.lost);
	ends_at(&state.last, LOG, 3);
	ck_assert_uint_ne(state.slot, synced);
}

/* The kernel may have dropped the slot that it could not write: the memory is
 * written again. */
UNIT_TEST(a_failed_sync_writes_again)
{
	grow(LOG, 0, 3);
	sync_slot(-EIO);
	damage(0);
	open_again();
	ends_at(&state.last, LOG, 3);
}

/* Each slot can be the one that is torn: then the one before it counts. */
UNIT_TEST(a_torn_slot_leaves_the_one_before_it)
{
	bool torn[SIGN_STATE_SLOTS] = {false};
	uint64_t size = 0;

	/* Each sync takes another slot; after these numbers each has its turn. */
	for (unsigned turn = 0; turn < SIGN_STATE_SLOTS; turn++) {
		for (unsigned i = 0; i < MIN(turn + 1, 2U); i++) {
			grow(LOG, size++, 1);
			sync_slot(0);
		}
		grow(LOG, size, 1);
		torn[state.slot] = true;
		damage(state.slot);
		open_again();
		ck_assert(!state.lost);
		ends_at(&state.last, LOG, size);
	}
	for (unsigned i = 0; i < SIGN_STATE_SLOTS; i++)
		ck_assert(torn[i]);
}

UNIT_TEST(a_file_without_a_whole_slot_is_lost)
{
	grow(LOG, 0, 3);
	damage(state.slot);
	open_again();
	ck_assert(state.lost);
	ends_at(&state.last, "", 0);
}

/* Slots of earlier versions have no point of the last sync: it is the one
 * before the last. */
UNIT_TEST(a_slot_of_two_points_is_read)
{
	struct {
		uint64_t magic, generation, len;
		struct tree_hash checksum;
	} head;
	static uint8_t slot[SLOT_SIZE];
	const size_t empty_point = 3 * sizeof(uint64_t);
	const int fd = openat(dir_fd, SIGN_STATE_FILE, O_RDWR | O_CLOEXEC);
	uint64_t numbers[2];

	grow(LOG, 0, 3);
	grow(LOG, 3, 2);
	ends_at(&state.synced, "", 0);
	ck_assert_int_gt(pread(fd, slot, sizeof(slot), 0), (ssize_t)sizeof(head));
	memcpy(&head, slot, sizeof(head));
	head.len -= empty_point;
	numbers[0] = head.generation;
	numbers[1] = head.len;
	ck_assert_int_eq(tree_hash_two(state.hasher, numbers, sizeof(numbers), slot + sizeof(head),
				       head.len, &head.checksum),
			 0);
	memcpy(slot, &head, sizeof(head));
	ck_assert_int_eq(pwrite(fd, slot, sizeof(slot), 0), (ssize_t)sizeof(slot));
	close(fd);
	open_again();
	ends_at(&state.last, LOG, 5);
	ends_at(&state.before, LOG, 3);
	ends_at(&state.synced, LOG, 3);
}

/* What is durable is at most the last tree, and one that this signer signed. */
UNIT_TEST(what_is_durable_was_signed)
{
	grow(LOG, 0, 3);
	grow(LOG, 3, 2);
	sign_state_note_durable(&state, LOG, 4);
	ck_assert_str_eq(state.synced.origin, "");
	grow(LOG, 5, 1);
	sign_state_note_durable(&state, LOG, 4);
	ck_assert_str_eq(state.synced.origin, "");
	sign_state_note_durable(&state, LOG, 5);
	ends_at(&state.synced, LOG, 5);
	sign_state_note_durable(&state, LOG, 6);
	ends_at(&state.synced, LOG, 6);
	/* A new log is empty on disk. */
	sign_state_note_durable(&state, OTHER, 0);
	ends_at(&state.synced, OTHER, 0);
	ck_assert_uint_eq(state.synced.note_len, 0);
}

/* A receiver that reports nothing: the signer's own clock says what cannot be
 * taken back. */
UNIT_TEST(what_is_old_counts_as_durable)
{
	grow(LOG, 0, 3);
	sign_state_note_durable(&state, LOG, 0);
	grow(LOG, 3, 2);
	sign_state_note_durable(&state, LOG, 0);
	ck_assert_str_eq(state.synced.origin, "");
	now_ns += SIGN_STATE_LAG_MS * NSEC_PER_MSEC;
	sign_state_note_durable(&state, LOG, 0);
	ck_assert_str_eq(state.synced.origin, "");
	now_ns++;
	sign_state_note_durable(&state, LOG, 0);
	ends_at(&state.synced, LOG, 3);
	ends_at(&state.candidate, LOG, 5);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
