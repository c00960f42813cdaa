/* SPDX-License-Identifier: MIT */
/* Inputs of verify: lines across the buffer, limits, compressed data, and what is refused; times.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include <zlib.h>
#include <zstd.h>

#include "common/util.h"
#include "host-receiver/evidence/input.h"
#include "host-receiver/evidence/timestamp.h"
#include "tests/unit/unit.h"

static char path[] = "/tmp/cellos-input-XXXXXX";

static void setup(void)
{
	int fd;

	strcpy(path + sizeof(path) - 7, "XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(path);
}

static void put(const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);

	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static struct input *open_input(void)
{
	char why[INPUT_WHY_MAX];
	struct input *input;

	ck_assert_msg(input_open(path, &input, why) == 0, "%s", why);
	return input;
}

/* The lines of the file are those of the text. */
static void lines_are(const char *text, size_t size)
{
	struct input *input = open_input();
	char why[INPUT_WHY_MAX];
	struct input_line line;

	while (size > 0) {
		const char *newline = memchr(text, '\n', size);
		const size_t len = newline ? (size_t)(newline - text) : size;

		ck_assert_int_eq(input_next(input, &line, why), 1);
		ck_assert_uint_eq(line.too_long, len > INPUT_LINE_MAX);
		ck_assert_uint_eq(line.cut, !newline);
		ck_assert_uint_eq(line.len, line.too_long ? 0 : len);
		ck_assert_int_eq(memcmp(line.data, text, line.len), 0);
		text += len + (newline != NULL);
		size -= len + (newline != NULL);
	}
	ck_assert_int_eq(input_next(input, &line, why), 0);
	ck_assert_int_eq(input_next(input, &line, why), 0);
	input_close(input);
}

static size_t gzip(const char *data, size_t len, char *out, size_t size)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)data,
		      .avail_in = (uInt)len,
		      .next_out = (Bytef *)out,
		      .avail_out = (uInt)size};

	ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

/* Each text as it is, and compressed; whole, and as two compressed files one after the other. */
static void all_formats(const char *text, size_t len)
{
	const size_t room = len + 65536, half = len / 2;
	char *out = malloc(room);
	size_t n;

	put(text, len);
	lines_are(text, len);
	n = gzip(text, len, out, room);
	put(out, n);
	lines_are(text, len);
	n = gzip(text, half, out, room);
	n += gzip(text + half, len - half, out + n, room - n);
	put(out, n);
	lines_are(text, len);
	n = ZSTD_compress(out, room, text, len, 3);
	put(out, n);
	lines_are(text, len);
	n = ZSTD_compress(out, room, text, half, 19);
	n += ZSTD_compress(out + n, room - n, text + half, len - half, 1);
	put(out, n);
	lines_are(text, len);
	free(out);
}

UNIT_TEST(lines_of_all_lengths)
{
	const size_t size = 1200000;
	char *text = malloc(size + 70000);

	for (size_t step = 1; step < 65000; step = step * 7 + 3) {
		size_t used = 0;

		for (unsigned n = 0; used < size; n++) {
			const size_t length = (n * step) % 65536;

			memset(text + used, 'a' + n % 26, length);
			used += length;
			text[used++] = '\n';
		}
		all_formats(text, used);
		all_formats(text, used - 1);
	}
	free(text);
}

UNIT_TEST(a_long_line_is_passed)
{
	static const size_t lengths[] = {INPUT_LINE_MAX - 1, INPUT_LINE_MAX, INPUT_LINE_MAX + 1,
					 300000, 1000000};
	char *text = malloc(1100000);

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(text, 'x', lengths[i]);
		memcpy(text + lengths[i], "\nshort\n\n", 8);
		all_formats(text, lengths[i] + 8);
		all_formats(text, lengths[i] + 1);
		all_formats(text, lengths[i]);
	}
	free(text);
}

UNIT_TEST(nothing_is_nothing)
{
	put("", 0);
	lines_are("", 0);
	put("\n", 1);
	lines_are("\n", 1);
	put("\x1f", 1);
	lines_are("\x1f", 1);
	put("\x28\xb5\x2f", 3);
	lines_are("\x28\xb5\x2f", 3);
}

/* Damaged or cut compressed data are an error, never an end of the lines. */
UNIT_TEST(damaged_data_are_an_error)
{
	static char text[100000], out[200000];
	uint64_t seed = 1;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + unit_random(&seed) % 20);
	for (int zstd = 0; zstd < 2; zstd++) {
		const size_t n = zstd ? ZSTD_compress(out, sizeof(out), text, sizeof(text), 3)
				      : gzip(text, sizeof(text), out, sizeof(out));

		for (size_t cut = 4; cut < n; cut += n / 40) {
			struct input *input;
			struct input_line line;
			char why[INPUT_WHY_MAX] = "";
			int r;

			put(out, cut);
			input = open_input();
			while ((r = input_next(input, &line, why)) == 1)
				;
			ck_assert_msg(r < 0 && *why, "%s cut at %zu", zstd ? "zstd" : "gzip", cut);
			input_close(input);
		}
	}
}

UNIT_TEST(only_regular_files_are_opened)
{
	char why[INPUT_WHY_MAX];
	struct input *input;

	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(input_open(path, &input, why), -EINVAL);
	ck_assert_str_eq(why, "not a regular file");
	ck_assert_int_eq(input_open("/dev/null", &input, why), -EINVAL);
	ck_assert_int_eq(input_open("/tmp", &input, why), -EISDIR);
	ck_assert_int_eq(input_open("/nonexistent", &input, why), -ENOENT);
}

UNIT_TEST(times_are_read_strictly)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} times[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T00:00:00.001Z", 1},
		{"2026-11-21T10:00:24.024Z", 1795255224024},
		{"2024-02-29T23:59:59.9Z", 1709251199900},
		{"2000-03-01T00:00:00.123456789Z", 951868800123},
		{"2023-02-29T00:00:00Z", -1},
		{"2100-02-29T00:00:00Z", -1},
		{"2026-13-01T00:00:00Z", -1},
		{"2026-00-01T00:00:00Z", -1},
		{"2026-01-32T00:00:00Z", -1},
		{"2026-01-01T24:00:00Z", -1},
		{"2026-01-01T00:60:00Z", -1},
		{"2026-01-01T00:00:00", -1},
		{"2026-01-01T00:00:00+00:00", -1},
		{"2026-01-01T00:00:00.Z", -1},
		{"2026-01-01 00:00:00Z", -1},
		{"2026-1-01T00:00:00Z", -1},
		{"2026-01-01T00:00:00ZZ", -1},
		{"", -1},
	};
	char text[TIMESTAMP_TEXT_MAX];
	int64_t ms;

	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		int r = timestamp_parse(times[i].text, strlen(times[i].text), &ms);

		ck_assert_msg(r == (times[i].ms < 0 ? -EINVAL : 0), "%s", times[i].text);
		if (r == 0)
			ck_assert_msg(ms == times[i].ms, "%s: %" PRId64, times[i].text, ms);
	}
	ck_assert_str_eq(timestamp_format(1795255224024, text), "2026-11-21T10:00:24.024Z");
	ck_assert_int_eq(timestamp_parse_argument("2026-11-21", 0, &ms), 0);
	ck_assert_int_eq(ms, 1795219200000);
	ck_assert_int_eq(timestamp_parse_argument("36h", 200000000, &ms), 0);
	ck_assert_int_eq(ms, 200000000 - 36 * 3600000);
	ck_assert_int_eq(timestamp_parse_duration("90s", &ms), 0);
	ck_assert_int_eq(ms, 90000);
	ck_assert_int_eq(timestamp_parse_duration("7d", &ms), 0);
	ck_assert_int_eq(ms, 7 * 86400000LL);
	ck_assert_int_eq(timestamp_parse_duration("7", &ms), -EINVAL);
	ck_assert_int_eq(timestamp_parse_duration("d", &ms), -EINVAL);
	ck_assert_int_eq(timestamp_parse_duration("-7d", &ms), -EINVAL);
	ck_assert_int_eq(timestamp_parse_duration("7w", &ms), -EINVAL);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
