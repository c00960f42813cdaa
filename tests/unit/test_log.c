/* SPDX-License-Identifier: MIT */
#include "common/log.h"

#include "tests/unit/unit.h"

/* What log_line() wrote to stderr while write_lines ran. */
static void capture(char *out, size_t size, void (*write_lines)(void))
{
	int saved = dup(STDERR_FILENO), fds[2];
	ssize_t n;

	ck_assert_int_eq(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	write_lines();
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read(fds[0], out, size - 1);
	close(fds[0]);
	ck_assert_int_ge(n, 0);
	out[n] = '\0';
}

static void two_lines(void)
{
	log_set_level(LOG_INFO);
	log_warning("msg=\"careful\" cell=%s", "c-1");
	log_debug("msg=\"not to be seen\"");
	log_info("msg=\"fine\"");
}

UNIT_TEST(lines_carry_priority_and_obey_level)
{
	char out[256];

	capture(out, sizeof(out), two_lines);
	ck_assert_str_eq(out, "<4>msg=\"careful\" cell=c-1\n<6>msg=\"fine\"\n");
}

static void long_line(void)
{
	static char filler[3 * LOG_LINE_MAX];

	memset(filler, 'x', sizeof(filler) - 1);
	log_info("%s", filler);
}

UNIT_TEST(a_long_line_is_cut_and_still_ends)
{
	char out[2 * LOG_LINE_MAX];
	size_t len;

	capture(out, sizeof(out), long_line);
	len = strlen(out);
	ck_assert_uint_lt(len, LOG_LINE_MAX);
	ck_assert_int_eq(out[len - 1], '\n');
	ck_assert_ptr_eq(strchr(out, '\n'), out + len - 1);
}

UNIT_TEST(escape_makes_guest_bytes_harmless)
{
	char out[64];

	ck_assert_str_eq(log_escape(out, sizeof(out), "a b", 3), "\"a b\"");
	ck_assert_str_eq(log_escape(out, sizeof(out), "\n\"\\\x1b\xff", 5),
			 "\"\\x0a\\x22\\x5c\\x1b\\xff\"");
}

UNIT_TEST(escape_fits_any_size)
{
	char out[32], in[64];

	memset(in, '\n', sizeof(in));
	for (size_t size = 1; size <= sizeof(out); size++) {
		memset(out, '#', sizeof(out));
		log_escape(out, size, in, sizeof(in));
		ck_assert_uint_lt(strlen(out), size);
	}
}

UNIT_TEST(levels_have_names_and_numbers)
{
	ck_assert_int_eq(log_level_from_string("warning"), LOG_WARNING);
	ck_assert_int_eq(log_level_from_string("7"), LOG_DEBUG);
	ck_assert_int_eq(log_level_from_string("8"), -EINVAL);
	ck_assert_int_eq(log_level_from_string("loud"), -EINVAL);
	ck_assert_int_eq(log_level_from_string(""), -EINVAL);
}

UNIT_TEST(numbers_are_whole_and_in_range)
{
	uint64_t v = 7;

	ck_assert_int_eq(parse_u64("0", 0, 10, &v), 0);
	ck_assert_uint_eq(v, 0);
	ck_assert_int_eq(parse_u64("18446744073709551615", 0, UINT64_MAX, &v), 0);
	ck_assert_uint_eq(v, UINT64_MAX);
	ck_assert_int_eq(parse_u64("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
	ck_assert_int_eq(parse_u64("11", 0, 10, &v), -ERANGE);
	ck_assert_int_eq(parse_u64("", 0, 10, &v), -EINVAL);
	ck_assert_int_eq(parse_u64("+1", 0, 10, &v), -EINVAL);
	ck_assert_int_eq(parse_u64(" 1", 0, 10, &v), -EINVAL);
	ck_assert_int_eq(parse_u64("1x", 0, 10, &v), -EINVAL);
	ck_assert_uint_eq(v, UINT64_MAX);
}
