/* SPDX-License-Identifier: MIT */
/*
 * Command lines, the same for all programs: a table row for each option says its name, what its
 * value may be and where it is stored. The table also makes the --help text. A mistake is written
 * to stderr with the option's name and what was expected; nothing is opened, started or allocated.
 *
 * Options are --NAME VALUE, --NAME=VALUE or, for options without a value, -L. Names are written
 * in full. "--" ends the options.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTION_WHY_MAX	  400u
#define OPTION_GROUPS_MAX 4u

enum option_kind {
	OPTION_HELP,	  /* no value; prints the help */
	OPTION_VERSION,	  /* no value; prints the version */
	OPTION_FLAG,	  /* no value; the bool becomes true */
	OPTION_CONSTANT,  /* no value; the int becomes min */
	OPTION_TEXT,	  /* the const char * borrows the value from argv */
	OPTION_NUMBER,	  /* the unsigned or int becomes a whole number of min..max */
	OPTION_WORD,	  /* as OPTION_TEXT, but one of words */
	OPTION_LOG_LEVEL, /* the int becomes a priority of syslog(3) */
	OPTION_CALL,	  /* set() takes the value */
};

struct option_row {
	const char *name;     /* without the dashes */
	const char *argument; /* the value's name in --help; NULL: the option takes no value */
	const char *help;     /* lines, without the last newline */
	const char *words;    /* OPTION_WORD: separated by ", " */
	/*
	 * OPTION_CALL: stores value (NULL if the option takes none) in the group's target. Returns
	 * 0, or a negative errno with what was expected in why.
	 */
	int (*set)(void *target, const struct option_row *row, const char *value,
		   char why[OPTION_WHY_MAX]);
	uint32_t min, max;
	uint16_t offset; /* of the field in the group's target */
	uint8_t kind;	 /* enum option_kind */
	char letter;	 /* 0: none */
};

/* The offset of a field, which must have the type that the option's kind stores. */
#define OPTION_FIELD(wanted, type, member)                                                         \
	(offsetof(type, member) +                                                                  \
	 0 * sizeof(char[__builtin_types_compatible_p(wanted, __typeof__(((type *)NULL)->member))  \
				 ? 1                                                               \
				 : -1]))
#define OPTION_SETS_FLAG(type, member)                                                             \
	.kind = OPTION_FLAG, .offset = OPTION_FIELD(bool, type, member)
#define OPTION_SETS_TEXT(type, member)                                                             \
	.kind = OPTION_TEXT, .offset = OPTION_FIELD(const char *, type, member)
#define OPTION_SETS_NUMBER(type, member, least, most)                                              \
	.kind = OPTION_NUMBER, .offset = OPTION_FIELD(unsigned, type, member), .min = (least),     \
	.max = (most)
#define OPTION_SETS_INT(type, member, least, most)                                                 \
	.kind = OPTION_NUMBER, .offset = OPTION_FIELD(int, type, member), .min = (least),          \
	.max = (most)
#define OPTION_SETS_WORD(type, member, list)                                                       \
	.kind = OPTION_WORD, .offset = OPTION_FIELD(const char *, type, member), .words = (list)
#define OPTION_SETS_CONSTANT(type, member, value)                                                  \
	.kind = OPTION_CONSTANT, .offset = OPTION_FIELD(int, type, member), .min = (value)
#define OPTION_SETS_LOG_LEVEL(type, member)                                                        \
	.kind = OPTION_LOG_LEVEL, .offset = OPTION_FIELD(int, type, member)
#define OPTION_CALLS(function) .kind = OPTION_CALL, .set = (function)

/* The last rows of every program, and of every verb. */
#define OPTION_ROW_VERSION                                                                         \
	{                                                                                          \
		.name = "version", .kind = OPTION_VERSION, .help = "print the version"             \
	}
#define OPTION_ROW_HELP                                                                            \
	{                                                                                          \
		.name = "help", .letter = 'h', .kind = OPTION_HELP, .help = "print this"           \
	}

struct option_group {
	const char *title; /* a line before its options in --help; NULL: none */
	const struct option_row *rows;
	size_t n;
	void *target;
};

struct option_program {
	const char *name;   /* at the beginning of messages */
	const char *before; /* what --help prints before the options; it ends with a newline */
	const char *after;  /* and after them */
	struct option_group groups[OPTION_GROUPS_MAX + 1]; /* the first with n == 0 ends them */
	/* Arguments that are no options: at most so many. */
	unsigned operands_max;
	/* They are a command with its arguments: the first one ends the options. */
	bool command;
};

/*
 * Parse argv[1..argc). Operands are moved to the end of argv. Returns the index of the first
 * operand, argc if there is none; 0 if --help or --version was answered and nothing is left to do;
 * -EINVAL after a message. *ret_dashes, unless NULL: whether "--" ended the options.
 */
int option_parse(const struct option_program *program, int argc, char **argv, bool *ret_dashes);

/* NULL: there is no such row. */
const struct option_row *option_find(const struct option_row *rows, size_t n, const char *name,
				     size_t len);

/*
 * Store one value. Returns 0, or a negative errno with what was expected in why: "expected ...".
 * Never OPTION_HELP or OPTION_VERSION.
 */
int option_set(const struct option_row *row, void *target, const char *value,
	       char why[OPTION_WHY_MAX]);

void option_print_help(const struct option_program *program);

/*
 * The name that a mistyped one probably meant: the nearest of those that were tried, at most two
 * letters away; the beginning of a name counts as one wrong letter. typed and names are borrowed.
 */
struct option_guess {
	const char *typed;
	size_t len;	   /* of typed */
	const char *name;  /* NULL: none is near */
	unsigned distance; /* of name */
};

void option_guess_try(struct option_guess *guess, const char *name);

/* A line on stderr, with the guess if there is one. Returns -EINVAL. */
int option_no_such_verb(const char *program, const struct option_guess *guess);

/* A line on stderr: "NAME: WHY; --help says how it is used". Returns -EINVAL. */
int option_usage_error(const struct option_program *program, const char *why);
