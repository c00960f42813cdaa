/* SPDX-License-Identifier: MIT */
#include "common/utf8.h"

#include <string.h>

#include "tests/unit/unit.h"

#define VALID(s) utf8_valid(s, sizeof(s) - 1)

UNIT_TEST(accepts_exactly_rfc3629)
{
	ck_assert(utf8_valid("", 0));
	ck_assert(VALID("plain ascii, longer than eight bytes"));
	ck_assert(VALID("\xc2\x80\xdf\xbf"));
	ck_assert(VALID("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"));
	ck_assert(VALID("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
	ck_assert_msg(!VALID("\x80"), "a lone continuation byte");
	ck_assert_msg(!VALID("\xc1\xbf"), "overlong, two bytes");
	ck_assert_msg(!VALID("\xe0\x9f\xbf"), "overlong, three bytes");
	ck_assert_msg(!VALID("\xf0\x8f\xbf\xbf"), "overlong, four bytes");
	ck_assert_msg(!VALID("\xed\xa0\x80"), "a surrogate");
	ck_assert_msg(!VALID("\xf4\x90\x80\x80"), "above U+10FFFF");
	ck_assert_msg(!VALID("\xf5\x80\x80\x80"), "a lead byte there is not");
	ck_assert_msg(!VALID("ascii ascii \xe2\x82"), "cut inside a character");
	ck_assert_msg(!VALID("12345678\xff"), "behind a whole word of ascii");
}

static void sanitizes_to(const char *in, size_t len, const char *want)
{
	char out[64];
	size_t n = utf8_sanitize(in, len, out, sizeof(out));

	ck_assert_uint_eq(n, strlen(want));
	ck_assert_mem_eq(out, want, n);
}

UNIT_TEST(replaces_each_invalid_byte)
{
	sanitizes_to("ok", 2, "ok");
	sanitizes_to("a\xff\xfe", 3, "a\xef\xbf\xbd\xef\xbf\xbd");
	sanitizes_to("\xe2\x82", 2, "\xef\xbf\xbd\xef\xbf\xbd");
	sanitizes_to("\xe2\x82\xac", 3, "\xe2\x82\xac");
}

UNIT_TEST(sanitize_never_cuts_a_character)
{
	char out[4];

	ck_assert_uint_eq(utf8_sanitize("ab\xe2\x82\xac", 5, out, 4), 2);
	ck_assert_uint_eq(utf8_sanitize("ab\xff", 3, out, 4), 2);
	ck_assert_uint_eq(utf8_sanitize("a\xe2\x82\xac", 4, out, 4), 4);
}

UNIT_TEST(cut_ends_at_a_character)
{
	ck_assert_uint_eq(utf8_cut("abc", 3, 3), 3);
	ck_assert_uint_eq(utf8_cut("abc", 3, 2), 2);
	ck_assert_uint_eq(utf8_cut("a\xe2\x82\xac", 4, 3), 1);
	ck_assert_uint_eq(utf8_cut("a\xe2\x82\xac", 4, 4), 4);
	ck_assert_uint_eq(utf8_cut("\xe2\x82\xac", 3, 0), 0);
}
