/* SPDX-License-Identifier: MIT */
/* What the start reads of a signed log. The signer is one of the test's, without a key. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/evidence/own_mark.h"
#include "tests/unit/scarce.h"
#include "tests/unit/unit.h"

#define UUID   "12345678-1234-4234-8234-123456789abc"
#define ORIGIN "a/" UUID
#define LINES  64u
#define LINE   1000

static char dir[64];
static atomic_size_t bytes_read;

/* In the place of libc's: counts. */
ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
	ssize_t n = syscall(SYS_pread64, fd, buf, len, offset);

	if (n > 0)
		bytes_read += (size_t)n;
	return n;
}

static struct recover_point points[RECOVER_POINTS];
static struct tree_hasher *hasher;

static int append(struct tree_signer *signer, uint64_t first, const struct tree_hash *leaves,
		  size_t n, uint64_t durable, char ret[static LINE_NOTE_MAX])
{
	struct recover_point *last = &points[RECOVER_LAST];
	const struct note_signature signature = {.key_id = {1}};
	struct note_checkpoint checkpoint;

	ck_assert_uint_eq(first, last->size);
	ck_assert_uint_eq(durable, first);
	points[RECOVER_BEFORE] = points[RECOVER_SYNCED] = *last;
	strcpy(last->origin, signer->origin);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(tree_frontier_append(hasher, &last->frontier, &leaves[i]), 0);
	last->size = last->frontier.size;
	ck_assert_int_eq(tree_frontier_root(hasher, &last->frontier, &last->root), 0);
	checkpoint = (struct note_checkpoint){.size = last->size, .root = last->root};
	strcpy(checkpoint.origin, signer->origin);
	last->note_len =
		(size_t)note_format(&checkpoint, &signature, 1, last->note, sizeof(last->note));
	memcpy(ret, last->note, last->note_len + 1);
	return (int)last->note_len;
}

static const struct tree_signer_ops ops = {.append = append};
static struct tree_signer signer = {.ops = &ops, .origin = ORIGIN, .kid = "k"};

static struct evidence_log *open_log(void)
{
	const struct evidence_limits limits = {.rotate_size = EVIDENCE_ROTATE_SIZE_DEFAULT};
	char why[EVIDENCE_WHY_MAX] = "";
	struct evidence_log *log;

	bytes_read = 0;
	ck_assert_msg(evidence_log_open(dir, &limits, UINT64_MAX, points, &log, why) == 0, "%s",
		      why);
	return log;
}

static void close_log(struct evidence_log *log)
{
	struct evidence_sink *sink = evidence_log_sink(log);

	sink->ops->close(sink);
}

/* A group; own: its first line is the log's own record of this number. */
static void commit(struct evidence_log *log, unsigned own)
{
	static char text[LINES][LINE + 2];
	struct tree_hash leaves[LINES];
	struct iovec lines[LINES];
	const struct evidence_group group = {
		.lines = lines, .n = LINES, .n_lines = LINES, .leaves = leaves, .signer = &signer};
	struct evidence_sink *sink = evidence_log_sink(log);

	for (unsigned i = 0; i < LINES; i++) {
		int len = snprintf(text[i], sizeof(text[i]), "{\"pad\":\"%0*u\"}\n", LINE - 20, i);

		if (i == 0 && own > 0)
			len = snprintf(text[i], sizeof(text[i]),
				       "{\"data\":{\"sequence\":%u,\"streamId\":\"" UUID "\"},"
				       "\"source\":\"" LINE_SOURCE_LOG "\","
				       "\"type\":\"x.log.v1.pruned\"}\n",
				       own);
		lines[i] = (struct iovec){.iov_base = text[i], .iov_len = (size_t)len};
		ck_assert_int_eq(tree_hash_leaf(hasher, text[i], (size_t)len - 1, &leaves[i]), 0);
	}
	ck_assert_int_eq(sink->ops->commit(sink, &group), 0);
	if (own > 0)
		evidence_log_note_own(log, ORIGIN, own);
}

/* A log of so many groups; one of them has own record 7. The process dies. */
static void make_log(unsigned groups, unsigned own_at)
{
	struct evidence_log *log;

	strcpy(dir, "/tmp/cellos-recover-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	memset(points, 0, sizeof(points));
	log = open_log();
	evidence_log_begin(log);
	for (unsigned i = 0; i < groups; i++)
		commit(log, i == own_at ? 7 : 0);
	close_log(log);
}

static void remove_log(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void cut(uint64_t bytes)
{
	char path[160];
	struct stat st;

	snprintf(path, sizeof(path), "%s/evidence-%020u.jsonl", dir, 1);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(truncate(path, st.st_size - (off_t)bytes), 0);
}

static const struct recovered *find(struct evidence_log **ret)
{
	*ret = open_log();
	return evidence_log_found(*ret);
}

UNIT_TEST(the_start_reads_the_end_of_a_large_segment)
{
	struct evidence_log *log;
	const struct recovered *found;

	make_log(160, 100);
	found = find(&log);
	ck_assert(found->tree && !found->damaged && found->own);
	ck_assert_uint_eq(found->frontier.size, 160 * LINES);
	ck_assert_uint_eq(found->own_sequence, 7);
	ck_assert_uint_eq(found->cut_bytes, 0);
	ck_assert(points[RECOVER_LAST].matches);
	/* Of 10 MB: the first line, the end, and the own record's place. */
	ck_assert_uint_ge(evidence_log_bytes(log), 10000000);
	ck_assert_uint_lt(bytes_read, 5000000);
	close_log(log);
	remove_log();

	/* The own record is in the end itself. */
	make_log(160, 159);
	found = find(&log);
	ck_assert_uint_eq(found->own_sequence, 7);
	ck_assert_uint_lt(bytes_read, 700000);
	close_log(log);
	remove_log();
}

/* The mark is a hint: without it, or with another log's, all is read and found. */
UNIT_TEST(the_own_stream_is_found_without_its_mark)
{
	char path[160];
	struct evidence_log *log;
	struct own_mark mark, last = {0};

	make_log(30, 2);
	snprintf(path, sizeof(path), "%s/" OWN_MARK_FILE, dir);
	ck_assert(own_mark_read(open(dir, O_RDONLY | O_DIRECTORY), &mark));
	ck_assert_str_eq(mark.origin, ORIGIN);
	ck_assert_uint_eq(mark.sequence, 7);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_uint_eq(find(&log)->own_sequence, 7);
	close_log(log);
	for (unsigned i = 0; i < 3; i++) {
		struct own_mark other = mark;

		other.sequence = 99;
		if (i == 0)
			strcpy(other.origin, "a/x");
		if (i == 1)
			other.segment = 2;
		if (i == 2)
			other.offset += 1u << 30;
		last.segment = 0;
		own_mark_write(open(dir, O_RDONLY | O_DIRECTORY), &other, &last);
		ck_assert_uint_eq(find(&log)->own_sequence, 7);
		close_log(log);
	}
	remove_log();
}

/* A log that has no record of its own has no stream, also after a log that has one. */
UNIT_TEST(the_own_stream_is_of_this_log)
{
	static const char other[] = "b/" UUID;
	struct evidence_log *log;
	const struct recovered *found;

	make_log(3, 3);
	found = find(&log);
	ck_assert(found->tree && !found->damaged && !found->own);
	close_log(log);
	remove_log();

	make_log(3, 1);
	ck_assert(find(&log)->own);
	evidence_log_begin(log);
	memset(points, 0, sizeof(points));
	strcpy(signer.origin, other);
	for (unsigned i = 0; i < 2; i++)
		commit(log, 0);
	strcpy(signer.origin, ORIGIN);
	close_log(log);
	found = find(&log);
	ck_assert(found->tree && !found->damaged);
	ck_assert_str_eq(found->origin, other);
	ck_assert_uint_eq(found->frontier.size, 2 * LINES);
	ck_assert(!found->own);
	close_log(log);
	remove_log();
}

UNIT_TEST(what_is_not_the_last_tree_is_read_whole)
{
	struct evidence_log *log;
	const struct recovered *found;
	char path[160];
	int fd;

	/* The checkpoint line is torn. */
	make_log(30, 2);
	cut(5);
	found = find(&log);
	ck_assert(!found->damaged);
	ck_assert_uint_eq(found->frontier.size, 29 * LINES);
	ck_assert_uint_eq(found->cut_lines, LINES + 1);
	ck_assert(points[RECOVER_BEFORE].matches);
	close_log(log);
	remove_log();

	/* A byte of the last group has changed. */
	make_log(30, 2);
	snprintf(path, sizeof(path), "%s/evidence-%020u.jsonl", dir, 1);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "1", 1, lseek(fd, 0, SEEK_END) - 5000), 1);
	close(fd);
	ck_assert(find(&log)->damaged);
	close_log(log);
	remove_log();
}

/* Lines after the last checkpoint are no evidence: the log ends before them. */
UNIT_LOOP_TEST(the_log_ends_at_its_last_checkpoint, 2)
{
	static const char more[] = "{\"a\":1}\n{\"a\":2}\n{\"a\"";
	const struct recovered *found;
	struct evidence_log *log;
	char path[160];
	struct stat st;
	int fd;

	/* Read whole, and only at its end. */
	make_log(_i == 0 ? 3 : 10, 1);
	snprintf(path, sizeof(path), "%s/evidence-%020u.jsonl", dir, 1);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(write(fd, more, sizeof(more) - 1), (ssize_t)sizeof(more) - 1);
	close(fd);
	found = find(&log);
	ck_assert(!found->damaged && points[RECOVER_LAST].matches);
	ck_assert_uint_eq(found->end, (uint64_t)st.st_size);
	ck_assert_uint_eq(found->cut_bytes, sizeof(more) - 1);
	ck_assert_uint_eq(found->cut_lines, 3);
	close_log(log);
	remove_log();
}

/* Without memory a start fails. It never takes a log for damaged, or for one without its stream. */
UNIT_LOOP_TEST(no_memory_is_no_damage, 2)
{
	char why[FOLDER_WHY_MAX];
	unsigned failed = 0, calls = 1;

	/* Small enough to be read whole, and so large that its end is enough. */
	make_log(_i == 0 ? 3 : 10, 1);
	for (bool again = true; again; calls++) {
		struct recovered found = {0};
		struct folder folder;
		uint64_t end = 0;
		int r;

		scarce_from(calls);
		r = folder_open(&folder, dir, why);
		if (r == 0)
			r = recover_read(&folder, points, &found);
		if (r == 0)
			r = recover_end_of_segment(&folder, 1, &end);
		again = scarce_end();
		failed += r == -ENOMEM;
		ck_assert_int_eq(r, r == 0 ? 0 : -ENOMEM);
		ck_assert(!found.damaged);
		if (r == 0) {
			ck_assert(found.tree && found.own && found.own_sequence == 7);
			ck_assert_str_eq(found.origin, ORIGIN);
			ck_assert_uint_eq(end, found.frontier.size);
		}
		recovered_free(&found);
		folder_close(&folder);
	}
	ck_assert_uint_gt(failed, 2);
	remove_log();
}

static void set_up(void)
{
	hasher = tree_hasher_new();
}

static void tear_down(void)
{
	tree_hasher_free(hasher);
}

UNIT_SUITE(.setup = set_up, .teardown = tear_down);
