/* SPDX-License-Identifier: MIT */
/* What a cell is made of, without sockets: its options, its reports once a second, its state. */
#include <fcntl.h>
#include <sys/stat.h>

#include "host-receiver/cell/kept.h"
#include "host-receiver/cell/limiter.h"
#include "host-receiver/cell/state.h"
#include "tests/unit/unit.h"

#define SECOND NSEC_PER_SEC

UNIT_TEST(once_a_second_counts_what_it_does_not_tell)
{
	struct once_a_second o = {0};
	uint64_t now = 7 * SECOND;

	ck_assert_uint_eq(once_a_second_add(&o, 1, now), 1);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(once_a_second_add(&o, 1, now + i), 0);
	ck_assert_uint_eq(once_a_second_take(&o, now + SECOND - 1, false), 0);
	ck_assert_uint_eq(once_a_second_take(&o, now + SECOND, false), 10);
	ck_assert_uint_eq(once_a_second_take(&o, now + 9 * SECOND, false), 0);
	ck_assert_uint_eq(once_a_second_add(&o, 1, now + SECOND + 1), 0);
	ck_assert_uint_eq(once_a_second_take(&o, now + SECOND + 1, true), 1);
}

static const char hash[] =
	"sha256:0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";

static const struct {
	const char *name, *value;
	bool fine;
} values[] = {
	{"uds", "/x", true},
	{"uds", "", false},
	{"cell-id", "a", true},
	{"cell-id", "A-z_0.9:", true},
	{"cell-id", "", false},
	{"cell-id", "a/b", false},
	{"cell-id", "a b", false},
	{"cell-id", "a\n", false},
	{"run-id", "\xc3\xa9", false},
	{"spec-hash", hash, true},
	{"spec-hash", "sha256:", false},
	{"spec-hash", "SHA256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	 false},
	{"keepalive", "0", true},
	{"keepalive", "86400000", true},
	{"keepalive", "86400001", false},
	{"keepalive", " 1", false},
	{"keepalive", "1s", false},
	{"connect-within", "0", true},
	{"connect-within", "-1", false},
	{"rate", "1", true},
	{"rate", "1000000000", true},
	{"rate", "0", false},
	{"rate", "1000000001", false},
	{"rate", "18446744073709551617", false},
	{"peer-uid", "0", true},
	{"peer-uid", "4294967294", true},
	{"peer-uid", "4294967295", false},
	{"socket-owner", "0:4294967294", true},
	{"socket-owner", "1", false},
	{"socket-owner", ":1", false},
	{"socket-owner", "1:", false},
	{"socket-owner", "1:4294967295", false},
	{"socket-owner", "11111111111111111111:1", false},
	{"socket-mode", "0", true},
	{"socket-mode", "0777", true},
	{"socket-mode", "1777", false},
	{"socket-mode", "00660", false},
	{"socket-mode", "888", false},
	{"socket-mode", "", false},
};

UNIT_TEST(options_are_checked)
{
	char why[CELL_WHY_MAX], longest[CELL_ID_MAX + 2];
	struct cell_options o;

	cell_options_defaults(&o);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		int r;

		*why = '\0';
		r = cell_options_set(&o, values[i].name, values[i].value, why);
		ck_assert_msg((r == 0) == values[i].fine, "--%s %s", values[i].name,
			      values[i].value);
		ck_assert_msg(r == 0 || (r == -EINVAL && strstr(why, values[i].name)), "%s", why);
	}
	memset(longest, 'x', sizeof(longest));
	longest[CELL_ID_MAX + 1] = '\0';
	ck_assert_int_eq(cell_options_set(&o, "cell-id", longest, why), -EINVAL);
	longest[CELL_ID_MAX] = '\0';
	ck_assert_int_eq(cell_options_set(&o, "cell-id", longest, why), 0);
	for (size_t i = 0; i < CELL_OPTION_ROWS; i++)
		ck_assert_msg(cell_option_rows[i].help && cell_option_rows[i].argument,
			      "%s has no help", cell_option_rows[i].name);
}

UNIT_TEST(missing_options_are_named)
{
	static const char *const mandatory[] = {"uds", "cell-id", "run-id", "spec-hash"};
	const char *const given[] = {"/v", "c", "r", hash};
	char why[CELL_WHY_MAX];

	for (size_t left_out = 0; left_out <= ARRAY_SIZE(mandatory); left_out++) {
		struct cell_options o;

		cell_options_defaults(&o);
		for (size_t i = 0; i < ARRAY_SIZE(mandatory); i++)
			if (i != left_out)
				ck_assert_int_eq(cell_options_set(&o, mandatory[i], given[i], why),
						 0);
		if (left_out == ARRAY_SIZE(mandatory)) {
			ck_assert_int_eq(cell_options_check(&o, why), 0);
			continue;
		}
		ck_assert_int_eq(cell_options_check(&o, why), -EINVAL);
		ck_assert_msg(strstr(why, mandatory[left_out]), "%s", why);
	}
}

static char dir[64];
static unsigned seen, refused;
static uint8_t last_stream[UUID_SIZE];
static char last_why[128];

static void see(void *ctx, const char *file, const char *id, const struct cell_state *s)
{
	ck_assert_ptr_eq(ctx, &seen);
	ck_assert(strncmp(file, id, strlen(id)) == 0);
	if (s->why) {
		ck_assert_uint_eq(s->options.n, 0);
		snprintf(last_why, sizeof(last_why), "%s", s->why);
		refused++;
		return;
	}
	seen++;
	memcpy(last_stream, s->stream_id, UUID_SIZE);
	ck_assert_str_eq(id, "a.b");
	ck_assert_str_eq(option_texts_get(&s->options, "rate"), "7");
	ck_assert(s->since.segment == 3 && s->since.offset == 99);
}

static void each(int fd, bool staged, unsigned want_seen, unsigned want_refused)
{
	seen = refused = 0;
	ck_assert_int_eq(cell_state_each(fd, staged, see, &seen), 0);
	ck_assert_uint_eq(seen, want_seen);
	ck_assert_uint_eq(refused, want_refused);
}

static void see_any(void *ctx, const char *file, const char *id, const struct cell_state *s)
{
	(void)ctx;
	(void)file;
	(void)id;
	ck_assert_msg(!s->why, "%s", s->why);
	seen++;
}

static void put_text(struct option_texts *t, const char *name, const char *value)
{
	char why[CELL_WHY_MAX];

	ck_assert_msg(option_texts_add(t, wire_text(name), wire_text(value), why) == 0, "%s", why);
}

static void put_file(int fd, const char *name, const char *text, size_t len)
{
	int file = openat(fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(file, text, len), len);
	close(file);
}

/* The one file of the folder is refused for this reason. */
static void refused_for(int fd, const char *why)
{
	each(fd, false, 0, 1);
	ck_assert_msg(strstr(last_why, why), "%s", last_why);
}

UNIT_TEST(states_are_staged_published_and_removed)
{
	const struct evidence_position since = {.segment = 3, .offset = 99};
	struct option_texts options = {0};
	uint8_t one[UUID_SIZE] = {1}, two[UUID_SIZE] = {2};
	char *text, *next;
	int fd, bad;

	strcpy(dir, "/tmp/cellos-state-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	put_text(&options, "rate", "7");
	put_text(&options, "cell-id", "a.b");
	ck_assert_int_eq(cell_state_format(&options, one, &since, &text), 0);
	ck_assert_int_eq(cell_state_format(&options, two, &since, &next), 0);
	each(fd, false, 0, 0);
	ck_assert_int_eq(cell_state_stage(fd, "a.b", text), 0);
	each(fd, false, 0, 0);
	each(fd, true, 1, 0);
	ck_assert_int_eq(cell_state_commit(fd, "a.b"), 0);
	each(fd, false, 1, 0);
	each(fd, true, 0, 0);
	ck_assert_int_eq(memcmp(last_stream, one, UUID_SIZE), 0);
	ck_assert_int_eq(cell_state_stage(fd, "a.b", next), 0);
	ck_assert_int_eq(cell_state_discard(fd, "a.b"), 0);
	ck_assert_int_eq(cell_state_discard(fd, "a.b"), -ENOENT);
	each(fd, false, 1, 0);
	ck_assert_int_eq(memcmp(last_stream, one, UUID_SIZE), 0);
	ck_assert_int_eq(cell_state_stage(fd, "a.b", next), 0);
	ck_assert_int_eq(cell_state_publish(fd, "a.b"), 0);
	ck_assert_int_eq(cell_state_sync(fd), 0);
	each(fd, false, 1, 0);
	ck_assert_int_eq(memcmp(last_stream, two, UUID_SIZE), 0);
	/* What is no state is told, and left where it is. */
	bad = openat(fd, "bad.json", O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(write(bad, text, 20), 20);
	close(bad);
	ck_assert_int_eq(symlinkat("a.b.json", fd, "link.json"), 0);
	each(fd, false, 1, 2);
	ck_assert_int_eq(unlinkat(fd, "bad.json", 0), 0);
	ck_assert_int_eq(unlinkat(fd, "link.json", 0), 0);
	ck_assert_int_eq(cell_state_remove(fd, "a.b"), 0);
	ck_assert_int_eq(cell_state_remove(fd, "a.b"), -ENOENT);
	each(fd, false, 0, 0);
	close(fd);
	ck_assert_int_eq(rmdir(dir), 0);
	free(text);
	free(next);
	option_texts_free(&options);
}

/* A file that the daemon did not write, or that somebody changed. */
UNIT_TEST(states_that_cannot_be_used_say_why)
{
	static const struct {
		const char *text, *why;
	} files[] = {
		{"{\"options\":{\"cell-id\":\"a.b\"},\"streamId\":\"x\"}", "expected an object"},
		{"[]", "expected an object"},
		{"{\"options\":[],\"streamId\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
		 "expected an object"},
		{"{\"options\":{\"cell-id\":\"b.b\"},"
		 "\"streamId\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
		 "its cell-id is not its file's name"},
		{"{\"options\":{\"cell-id\":\"a.b\",\"uds\":\"/a\\nb\"},"
		 "\"streamId\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
		 "without control characters"},
		{"{\"options\":{\"cell-id\":\"a.b\"},\"since\":[1,-1],"
		 "\"streamId\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
		 "expected an object"},
		{"{\"options\":{\"cell-id\":\"a.b\",\"cell-id\":\"a.b\"},"
		 "\"streamId\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
		 "key"},
	};
	int fd;

	strcpy(dir, "/tmp/cellos-state-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		put_file(fd, "a.b.json", files[i].text, strlen(files[i].text));
		refused_for(fd, files[i].why);
	}
	ck_assert_int_eq(unlinkat(fd, "a.b.json", 0), 0);
	/* Without a reader or a writer: it must not hang. */
	ck_assert_int_eq(mkfifoat(fd, "a.b.json", 0600), 0);
	refused_for(fd, "not a regular file");
	ck_assert_int_eq(unlinkat(fd, "a.b.json", 0), 0);
	ck_assert_int_eq(mkdirat(fd, "a.b.json", 0700), 0);
	refused_for(fd, "not a regular file");
	ck_assert_int_eq(unlinkat(fd, "a.b.json", AT_REMOVEDIR), 0);
	close(fd);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* What can be formatted can be read again, whatever the position will be; one byte more is
 * refused when it is formatted. */
UNIT_TEST(states_end_at_their_limit)
{
	const struct evidence_position first = {.segment = 1},
				       last = {.segment = UINT64_MAX, .offset = UINT64_MAX};
	static char uds[CELL_STATE_FILE_MAX + 1], padded[CELL_STATE_FILE_MAX + 1];
	static const uint8_t one[UUID_SIZE] = {1};
	struct option_texts options = {0};
	size_t most;
	char *text;
	int fd;

	strcpy(dir, "/tmp/cellos-state-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	put_text(&options, "rate", "7");
	put_text(&options, "cell-id", "a.b");
	ck_assert_int_eq(cell_state_format(&options, one, &last, &text), 0);
	most = CELL_STATE_FILE_MAX - strlen(text) - strlen(",\"uds\":\"\"");
	free(text);
	memset(uds, 'u', sizeof(uds) - 1);
	for (size_t len = most - 1; len <= most + 1; len++) {
		const int want = len > most ? -E2BIG : 0;

		options.n = 2;
		uds[len] = '\0';
		put_text(&options, "uds", uds);
		uds[len] = 'u';
		ck_assert_int_eq(cell_state_format(&options, one, &first, &text), want);
		if (want == 0)
			free(text);
		ck_assert_int_eq(cell_state_format(&options, one, &last, &text), want);
		if (want == 0) {
			ck_assert_uint_eq(strlen(text), CELL_STATE_FILE_MAX - (most - len));
			put_file(fd, "a.b.json", text, strlen(text));
			free(text);
		}
		seen = refused = 0;
		ck_assert_int_eq(cell_state_each(fd, false, see_any, &seen), 0);
		ck_assert_uint_eq(seen, 1);
		free(options.text[2].name);
		free(options.text[2].value);
	}
	memset(padded, ' ', sizeof(padded));
	put_file(fd, "a.b.json", padded, CELL_STATE_FILE_MAX + 1);
	refused_for(fd, "longer than 16384 bytes");
	ck_assert_int_eq(unlinkat(fd, "a.b.json", 0), 0);
	close(fd);
	ck_assert_int_eq(rmdir(dir), 0);
	options.n = 2;
	option_texts_free(&options);
}

UNIT_TEST(kept_bytes_of_a_cell_follow_retention)
{
	struct kept k = {0};
	uint64_t all = 0;

	ck_assert_uint_eq(kept_update(&k, 0, 1, 1), 0);
	ck_assert_uint_eq(kept_update(&k, 100, 1, 1), 100);
	ck_assert_uint_eq(kept_update(&k, 150, 1, 1), 150);
	ck_assert_uint_eq(kept_update(&k, 150, 2, 1), 150);
	ck_assert_uint_eq(kept_update(&k, 160, 3, 1), 160);
	ck_assert_uint_eq(kept_update(&k, 160, 3, 2), 10);
	ck_assert_uint_eq(kept_update(&k, 160, 4, 4), 0);
	/* More segments than places: nothing is forgotten early, and all of it in the end. */
	for (uint64_t i = 0; i < 3 * KEPT_SEGMENTS_MAX; i++)
		all = kept_update(&k, 1000 * (i + 1), 10 + i, 10);
	ck_assert_uint_eq(all, 1000 * 3 * KEPT_SEGMENTS_MAX - 160);
	all = kept_update(&k, k.counted, 9 + 3 * KEPT_SEGMENTS_MAX, 9 + 3 * KEPT_SEGMENTS_MAX - 1);
	ck_assert_uint_eq(all, 2000);
}
