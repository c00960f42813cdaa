/* SPDX-License-Identifier: MIT */
#include "common/options.h"

#include "common/log.h"
#include "common/util.h"

#define HELP_COLUMN  26
#define NAME_MAX_LEN 32u /* no suggestion is made for longer names */
#define NEAR	     2u	 /* this many letters may differ from the suggested name */

const struct option_row *option_find(const struct option_row *rows, size_t n, const char *name,
				     size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
			return &rows[i];
	return NULL;
}

/* ---- messages ---- */

/* The Levenshtein distance, computed one row of the matrix at a time. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned row[NAME_MAX_LEN + 1];

	for (unsigned j = 0; j <= b_len; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			const unsigned above = row[j];
			const unsigned changed = diagonal + (a[i - 1] != b[j - 1]);
			const unsigned added = MIN(above, row[j - 1]) + 1;

			row[j] = MIN(changed, added);
			diagonal = above;
		}
	}
	return row[b_len];
}

void option_guess_try(struct option_guess *guess, const char *name)
{
	const size_t len = strlen(name), typed = guess->len;
	unsigned d;

	if (typed < 2 || typed > NAME_MAX_LEN || len > NAME_MAX_LEN)
		return;
	d = len > typed && memcmp(name, guess->typed, typed) == 0
		    ? 1
		    : distance(guess->typed, typed, name, len);
	if (d <= NEAR && d < typed && (!guess->name || d < guess->distance)) {
		guess->name = name;
		guess->distance = d;
	}
}

static const char *suggest(const struct option_program *program, const char *name, size_t len)
{
	struct option_guess guess = {.typed = name, .len = len};

	for (const struct option_group *g = program->groups; g->n > 0; g++)
		for (size_t i = 0; i < g->n; i++)
			option_guess_try(&guess, g->rows[i].name);
	return guess.name;
}

int option_no_such_verb(const char *program, const struct option_guess *guess)
{
	fprintf(stderr, "%s: %.100s: no such verb; ", program, guess->typed);
	if (guess->name)
		fprintf(stderr, "did you mean %s? ", guess->name);
	fputs("--help lists them\n", stderr);
	return -EINVAL;
}

static int unknown_option(const struct option_program *program, const char *arg)
{
	const bool is_long = arg[1] == '-';
	const char *name = is_long ? arg + 2 : arg + 1;
	const char *meant = suggest(program, name, strcspn(name, "="));

	if (meant)
		fprintf(stderr, "%s: %s: no such option; did you mean --%s? --help lists them\n",
			program->name, arg, meant);
	else
		fprintf(stderr, "%s: %s: no such option; --help lists them\n", program->name, arg);
	return -EINVAL;
}

int option_usage_error(const struct option_program *program, const char *why)
{
	fprintf(stderr, "%s: %s; --help says how it is used\n", program->name, why);
	return -EINVAL;
}

static void print_row(const struct option_row *row)
{
	const char *line = row->help ? row->help : row->words ? row->words : "";
	char left[64];
	int n;

	n = row->letter ? snprintf(left, sizeof(left), "-%c, ", row->letter) : 0;
	n += snprintf(left + n, sizeof(left) - (size_t)n, "--%s%s%s", row->name,
		      row->argument ? " " : "", row->argument ? row->argument : "");
	if (n < HELP_COLUMN - 2)
		printf("  %-*s", HELP_COLUMN - 2, left);
	else
		printf("  %s\n%*s", left, HELP_COLUMN, "");
	for (;;) {
		const size_t len = strcspn(line, "\n");

		printf("%.*s\n", (int)len, line);
		if (!line[len])
			return;
		line += len + 1;
		printf("%*s", HELP_COLUMN, "");
	}
}

void option_print_help(const struct option_program *program)
{
	fputs(program->before, stdout);
	for (const struct option_group *g = program->groups; g->n > 0; g++) {
		printf("\n%s%s", g->title ? g->title : "", g->title ? "\n" : "");
		for (size_t i = 0; i < g->n; i++)
			print_row(&g->rows[i]);
	}
	if (program->after)
		printf("\n%s", program->after);
}

/* ---- values ---- */

static int expected(char why[OPTION_WHY_MAX], const char *what)
{
	snprintf(why, OPTION_WHY_MAX, "expected %s", what);
	return -EINVAL;
}

static int set_word(const struct option_row *row, const char **ret, const char *value,
		    char why[OPTION_WHY_MAX])
{
	const char *word = row->words;

	for (;;) {
		const size_t len = strcspn(word, ",");

		if (strlen(value) == len && memcmp(value, word, len) == 0) {
			*ret = value;
			return 0;
		}
		if (!word[len])
			break;
		word += len + 2;
	}
	snprintf(why, OPTION_WHY_MAX, "expected one of %s", row->words);
	return -EINVAL;
}

static int set_number(const struct option_row *row, unsigned *ret, const char *value,
		      char why[OPTION_WHY_MAX])
{
	uint64_t v;

	if (parse_u64(value, row->min, row->max, &v) < 0) {
		snprintf(why, OPTION_WHY_MAX, "expected a whole number of %u..%u", row->min,
			 row->max);
		return -EINVAL;
	}
	*ret = (unsigned)v;
	return 0;
}

int option_set(const struct option_row *row, void *target, const char *value,
	       char why[OPTION_WHY_MAX])
{
	void *field = (char *)target + row->offset;
	int level;

	switch ((enum option_kind)row->kind) {
	case OPTION_FLAG: *(bool *)field = true; return 0;
	case OPTION_CONSTANT: *(int *)field = (int)row->min; return 0;
	case OPTION_TEXT: *(const char **)field = value; return 0;
	case OPTION_NUMBER: return set_number(row, field, value, why);
	case OPTION_WORD: return set_word(row, field, value, why);
	case OPTION_CALL: return row->set(target, row, value, why);
	case OPTION_LOG_LEVEL:
		level = log_level_from_string(value);
		if (level < 0)
			return expected(why,
					"emerg, alert, crit, err, warning, notice, info, debug "
					"or 0..7");
		*(int *)field = level;
		return 0;
	default: return -EINVAL;
	}
}

/* ---- parsing ---- */

static const struct option_row *find_row(const struct option_program *program, const char *arg,
					 const struct option_group **ret_group)
{
	for (const struct option_group *g = program->groups; g->n > 0; g++) {
		const struct option_row *row = NULL;

		if (arg[1] == '-')
			row = option_find(g->rows, g->n, arg + 2, strcspn(arg + 2, "="));
		for (size_t i = 0; arg[1] != '-' && !arg[2] && i < g->n; i++)
			if (g->rows[i].letter == arg[1])
				row = &g->rows[i];
		if (row) {
			*ret_group = g;
			return row;
		}
	}
	return NULL;
}

/* Parse the option at argv[*at], and advance *at. Returns 0; 1 if it was answered; -EINVAL. */
static int parse_option(const struct option_program *program, int *at, int end, char **argv)
{
	const char *arg = argv[(*at)++], *equals = strchr(arg, '='), *value = NULL;
	char why[OPTION_WHY_MAX] = "";
	const struct option_group *group;
	const struct option_row *row = find_row(program, arg, &group);

	if (!row)
		return unknown_option(program, arg);
	if (!row->argument && equals) {
		fprintf(stderr, "%s: %s: this option takes no value\n", program->name, arg);
		return -EINVAL;
	}
	if (row->argument)
		value = equals ? equals + 1 : *at < end ? argv[(*at)++] : NULL;
	if (row->argument && !value) {
		fprintf(stderr, "%s: %s: expected a value: %s\n", program->name, arg,
			row->argument);
		return -EINVAL;
	}
	if (row->kind == OPTION_HELP)
		option_print_help(program);
	if (row->kind == OPTION_VERSION)
		printf("%s " CELLOS_VERSION "\n", program->name);
	if (row->kind == OPTION_HELP || row->kind == OPTION_VERSION)
		return 1;
	if (option_set(row, group->target, value, why) == 0)
		return 0;
	fprintf(stderr, "%s: --%s%s%.100s: %s\n", program->name, row->name, value ? " " : "",
		value ? value : "", why);
	return -EINVAL;
}

int option_parse(const struct option_program *program, int argc, char **argv, bool *ret_dashes)
{
	/* The operands that were found so far are argv[end..argc). */
	int at = 1, end = argc;
	bool dashes = false;

	while (at < end) {
		char *arg = argv[at];
		int r;

		if (!dashes && strcmp(arg, "--") == 0) {
			dashes = true;
			at++;
		} else if (!dashes && arg[0] == '-' && arg[1]) {
			r = parse_option(program, &at, end, argv);
			if (r != 0)
				return MIN(r, 0);
			continue;
		}
		if (program->command)
			break;
		if (at == end)
			break;
		arg = argv[at];
		memmove(&argv[at], &argv[at + 1], (size_t)(argc - at - 1) * sizeof(*argv));
		argv[argc - 1] = arg;
		end--;
	}
	if (!program->command && (unsigned)(argc - end) > program->operands_max) {
		fprintf(stderr, "%s: %.100s: unexpected argument; --help says how it is used\n",
			program->name, argv[(unsigned)end + program->operands_max]);
		return -EINVAL;
	}
	if (ret_dashes)
		*ret_dashes = dashes;
	return program->command ? at : end;
}
