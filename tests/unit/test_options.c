/* SPDX-License-Identifier: MIT */
/* The common command line: what is stored, what is refused, and with which words. */
#include <limits.h>
#include <syslog.h>

#include "common/options.h"
#include "common/util.h"
#include "tests/unit/unit.h"

#define ARGUMENTS_MAX 16

struct values {
	bool flag;
	int constant, level, signed_number;
	unsigned number;
	const char *text, *word, *called;
};

static int set_called(void *target, const struct option_row *row, const char *value,
		      char why[OPTION_WHY_MAX])
{
	struct values *v = target;

	ck_assert_str_eq(row->name, "call");
	if (strcmp(value, "bad") == 0) {
		snprintf(why, OPTION_WHY_MAX, "expected something good");
		return -EINVAL;
	}
	v->called = value;
	return 0;
}

static const struct option_row rows[] = {
	{"flag", NULL, "a flag", .letter = 'f', OPTION_SETS_FLAG(struct values, flag)},
	{"constant", NULL, "a constant", OPTION_SETS_CONSTANT(struct values, constant, 7)},
	{"text", "TEXT", "a text\nof two lines", OPTION_SETS_TEXT(struct values, text)},
	{"number", "N", "a number", OPTION_SETS_NUMBER(struct values, number, 10, 20)},
	{"signed", "N", NULL, OPTION_SETS_INT(struct values, signed_number, 0, INT_MAX)},
	{"log-level", "LEVEL", NULL, OPTION_SETS_LOG_LEVEL(struct values, level)},
	{"call", "VALUE", NULL, OPTION_CALLS(set_called)},
	OPTION_ROW_VERSION,
};
static const struct option_row more[] = {
	{"word", "WORD", NULL, OPTION_SETS_WORD(struct values, word, "one, two, three")},
	OPTION_ROW_HELP,
};

static const char *arguments[ARGUMENTS_MAX + 2];
static int n_arguments;
static struct values got;
static bool dashes;

/* line: arguments separated by spaces. Returns what option_parse() does. */
static int parse(const char *line, unsigned operands_max, bool command)
{
	static char copy[256];
	const struct option_program program = {
		.name = "test",
		.before = "Usage: test\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &got},
			   {"More:", more, ARRAY_SIZE(more), &got}},
		.operands_max = operands_max,
		.command = command,
	};
	char *at = copy, *word;

	snprintf(copy, sizeof(copy), "%s", line);
	got = (struct values){.level = -1};
	dashes = false;
	n_arguments = 0;
	arguments[n_arguments++] = "test";
	while ((word = strsep(&at, " "))) {
		ck_assert_int_lt(n_arguments, ARGUMENTS_MAX);
		if (*word)
			arguments[n_arguments++] = word;
	}
	arguments[n_arguments] = NULL;
	return option_parse(&program, n_arguments, (char **)(uintptr_t)arguments, &dashes);
}

UNIT_TEST(values_are_stored)
{
	ck_assert_int_eq(
		parse("--flag --constant --text a=b --number=10 --signed 5 --word two", 0, false),
		n_arguments);
	ck_assert(got.flag && got.constant == 7 && got.number == 10 && got.signed_number == 5);
	ck_assert_str_eq(got.text, "a=b");
	ck_assert_str_eq(got.word, "two");
	ck_assert_int_eq(parse("-f --log-level debug --call=good --number 20 --text=", 0, false),
			 n_arguments);
	ck_assert(got.flag && got.level == LOG_DEBUG && got.number == 20);
	ck_assert_str_eq(got.called, "good");
	ck_assert_str_eq(got.text, "");
	/* The last one wins. */
	ck_assert_int_gt(parse("--number 11 --number 12", 0, false), 0);
	ck_assert_uint_eq(got.number, 12);
}

UNIT_TEST(operands_go_to_the_end)
{
	int at = parse("a --flag b --text x - -- --flag c", UINT_MAX, false);

	ck_assert_int_eq(n_arguments - at, 5);
	ck_assert_str_eq(arguments[at], "a");
	ck_assert_str_eq(arguments[at + 1], "b");
	ck_assert_str_eq(arguments[at + 2], "-");
	ck_assert_str_eq(arguments[at + 3], "--flag");
	ck_assert_str_eq(arguments[at + 4], "c");
	ck_assert(dashes && got.flag);
	ck_assert_int_eq(parse("a b", 2, false), 1);
	ck_assert_int_eq(parse("a b", 1, false), -EINVAL);
	ck_assert_int_eq(parse("", 0, false), 1);
}

UNIT_TEST(a_command_ends_the_options)
{
	ck_assert_int_eq(parse("--flag command --nonsense", 0, true), 2);
	ck_assert(got.flag && !dashes);
	ck_assert_int_eq(parse("-f -- --nonsense", 0, true), 3);
	ck_assert(dashes);
	ck_assert_int_eq(parse("--text -- -f", 0, true), n_arguments);
	ck_assert_str_eq(got.text, "--");
	ck_assert(!dashes && got.flag);
}

static const struct {
	const char *line, *message;
} refused[] = {
	{"--number 9", "test: --number 9: expected a whole number of 10..20\n"},
	{"--number 21", "test: --number 21: expected a whole number of 10..20\n"},
	{"--number x", "test: --number x: expected a whole number of 10..20\n"},
	{"--number", "test: --number: expected a value: N\n"},
	{"--number=", "test: --number : expected a whole number of 10..20\n"},
	{"--signed 2147483648", "test: --signed 2147483648: expected a whole number of "
				"0..2147483647\n"},
	{"--word four", "test: --word four: expected one of one, two, three\n"},
	{"--word one,", "test: --word one,: expected one of one, two, three\n"},
	{"--word on", "test: --word on: expected one of one, two, three\n"},
	{"--log-level loud", "test: --log-level loud: expected emerg, alert, crit, err, warning, "
			     "notice, info, debug or 0..7\n"},
	{"--call bad", "test: --call bad: expected something good\n"},
	{"--flag=1", "test: --flag=1: this option takes no value\n"},
	{"stray", "test: stray: unexpected argument; --help says how it is used\n"},
	{"--nmber 5", "test: --nmber: no such option; did you mean --number? --help lists them\n"},
	{"--num=5", "test: --num=5: no such option; did you mean --number? --help lists them\n"},
	{"--help-me", "test: --help-me: no such option; --help lists them\n"},
	{"--quite-another", "test: --quite-another: no such option; --help lists them\n"},
	{"-x", "test: -x: no such option; --help lists them\n"},
	{"-ff", "test: -ff: no such option; --help lists them\n"},
	{"--012345678901234567890123456789012", /* longer than what a suggestion is made for */
	 "test: --012345678901234567890123456789012: no such option; --help lists them\n"},
};

/* What fn wrote to the stream of number fd. */
static const char *output_of(int fd, const char *line, int *ret)
{
	static char text[4096];
	FILE *file = tmpfile();
	int saved = dup(fd);
	size_t n;

	ck_assert(file && saved >= 0);
	fflush(stdout);
	dup2(fileno(file), fd);
	*ret = parse(line, 0, false);
	fflush(stdout);
	dup2(saved, fd);
	close(saved);
	rewind(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}

UNIT_TEST(mistakes_are_explained)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		int r;
		const char *text = output_of(STDERR_FILENO, refused[i].line, &r);

		ck_assert_int_eq(r, -EINVAL);
		ck_assert_str_eq(text, refused[i].message);
	}
}

UNIT_TEST(help_has_every_row)
{
	static const char *const ways[] = {"--help", "-h", "--flag --help --nonsense"};

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		int r;

		ck_assert_str_eq(output_of(STDOUT_FILENO, ways[i], &r),
				 "Usage: test\n"
				 "\n"
				 "  -f, --flag              a flag\n"
				 "  --constant              a constant\n"
				 "  --text TEXT             a text\n"
				 "                          of two lines\n"
				 "  --number N              a number\n"
				 "  --signed N              \n"
				 "  --log-level LEVEL       \n"
				 "  --call VALUE            \n"
				 "  --version               print the version\n"
				 "\n"
				 "More:\n"
				 "  --word WORD             one, two, three\n"
				 "  -h, --help              print this\n");
		ck_assert_int_eq(r, 0);
	}
}
