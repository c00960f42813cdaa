/* SPDX-License-Identifier: MIT */
/*
 * tail: prints the evidence log as lines for people, from the beginning or live, across rotation.
 * It checks no signature (verify does). It escapes texts of guests, so that they cannot control the
 * terminal.
 *
 * The way of a line: a reader (a file, a folder of segments, a log that grows, or a JetStream)
 * calls take_line(); the line is parsed, compared with the filters of the command line and printed.
 * With -n lines are kept until the end of the log is reached.
 */
#include <fnmatch.h>
#include <jansson.h>
#include <signal.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/event/event.h"
#include "host-receiver/evidence/input.h"
#include "host-receiver/evidence/reader.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/sign/signer.h"
#ifdef HAVE_NATS
#include "host-receiver/verbs/from_nats.h"
#endif
#include "host-receiver/verbs/period.h"
#include "host-receiver/verbs/reading_changes.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

#define POLL_US	  100000u
#define LINES_MAX 100000u /* the largest -n: so many lines are kept in memory */

#define COLOUR_DIM    "\033[2m"
#define COLOUR_CELL   "\033[36m"
#define COLOUR_NORMAL "\033[32m"
#define COLOUR_ALARM  "\033[31;1m"
#define COLOUR_STREAM "\033[34m"
#define COLOUR_OFF    "\033[0m"

/* The newest lines (-n). They are printed when the end of the log is reached. */
struct newest {
	char **lines; /* a ring, owned */
	unsigned size;
	uint64_t n; /* lines that were put in so far */
};

struct tail {
	const char *cell, *type, *dir, *config_path;
	struct period period;
	unsigned lines; /* 0: all */
	bool follow, json, terminal, colour;
	struct reading_changes *readings;
	struct newest newest;
	uint64_t events, matched;
#ifdef HAVE_NATS
	struct from_nats nats;
#endif
};

static const struct option_row rows[] = {
	{"cell", "ID", "of this cell only", OPTION_SETS_TEXT(struct tail, cell)},
	{"type", "GLOB", "of these types only: \"net.*\", capability.denied",
	 OPTION_SETS_TEXT(struct tail, type)},
	{"since", "TIME", "not before 2026-11-21T10:00:00Z, a date, or how long ago: 2h",
	 PERIOD_SETS_SINCE(struct tail, period)},
	{"until", "TIME", "not after", PERIOD_SETS_UNTIL(struct tail, period)},
	{"lines", "N", "only the newest N of them", .letter = 'n',
	 OPTION_SETS_NUMBER(struct tail, lines, 1, LINES_MAX)},
	{"follow", NULL, "begin at the end, and print what comes", .letter = 'f',
	 OPTION_SETS_FLAG(struct tail, follow)},
	{"json", NULL, "the lines as they are stored", OPTION_SETS_FLAG(struct tail, json)},
	{"config", "FILE", "names the folder when DIR does not (default " CONFIG_FILE_DEFAULT ")",
	 OPTION_SETS_TEXT(struct tail, config_path)},
	OPTION_ROW_HELP,
};

/* Types that an operator should look at. They are printed in another colour. */
static bool is_alarm(const char *type)
{
	static const char *const names[] = {
		"silenced",	"gap",	       "violation",	 "contested", "rejected",
		"rate_limited", "unwitnessed", "unknown_source", "dropped",   "denied",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strstr(type, names[i]))
			return true;
	return false;
}

static const char *colour_of(const struct tail *t, const char *type)
{
	if (!t->colour)
		return "";
	if (is_alarm(type))
		return COLOUR_ALARM;
	return strncmp(type, "stream.", 7) == 0 ? COLOUR_STREAM : COLOUR_NORMAL;
}

static const char *when(const struct tail *t, const char *colour)
{
	return t->colour ? colour : "";
}

/* Type names of our own receiver are plain. The names in a forged log may hold anything. */
static void print_plain(const char *s, int width)
{
	int n = 0;

	for (; *s; s++, n++)
		putchar(*s >= ' ' && *s < 0x7f ? *s : '?');
	for (; n < width; n++)
		putchar(' ');
}

/* Prints only ASCII without control bytes, because the text may be a guest's. */
static void print_value(const char *key, const json_t *value)
{
	_cleanup_free_ char *s =
		json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

	for (char *p = s; p && *p; p++)
		if (*p == 0x7f)
			*p = '?';
	putchar(' ');
	print_plain(key, 0);
	printf("=%s", s ? s : "?");
}

/* Print the fields of this type of event, without those that every event has. */
static void print_fields(const json_t *data)
{
	static const char *const common[] = {
		"authority",
		"cellId",
		"runId",
		"specSignatureHash",
		"hostReceivedAt",
		"streamId",
		"hostMonotonicNs",
		"sequence",
		"probeSource",
		"guestMonotonicNs",
		"connection",
		"contentVersion",
		"seq",
	};
	const char *key, *detail_key;
	json_t *value, *detail;

	json_object_foreach((json_t *)(uintptr_t)data, key, value)
	{
		bool skip = false;

		for (size_t i = 0; i < ARRAY_SIZE(common); i++)
			skip |= strcmp(key, common[i]) == 0;
		if (skip)
			continue;
		if (strcmp(key, "detail") == 0 && json_is_object(value)) {
			json_object_foreach(value, detail_key, detail)
				print_value(detail_key, detail);
			continue;
		}
		print_value(key, value);
	}
}

/* Print a value of a reading. The kernel's keys are plain; a VMM's keys may hold anything. */
static void print_change(const char *name, const char *value)
{
	putchar(' ');
	print_plain(name, 0);
	putchar('=');
	print_plain(value, 0);
}

static void print_event(const struct tail *t, const json_t *event, const char *type)
{
	const json_t *data = json_object_get(event, "data");

	fputs(when(t, COLOUR_DIM), stdout);
	print_plain(shared_text(event, "time"), 24);
	printf("%s %s", when(t, COLOUR_OFF), when(t, COLOUR_CELL));
	print_plain(shared_text(data, "cellId"), 12);
	printf("%s %7lld %s", when(t, COLOUR_OFF),
	       (long long)json_number_value(json_object_get(data, "sequence")), colour_of(t, type));
	print_plain(type, 28);
	fputs(when(t, COLOUR_OFF), stdout);
	if (strncmp(type, "host.", 5) == 0)
		fputs(reading_changes_print(t->readings, data, print_change) ? "" : " unchanged",
		      stdout);
	else
		print_fields(data);
	putchar('\n');
}

static const char *without_prefix(const char *type)
{
	const size_t prefix = sizeof(EVENT_TYPE_PREFIX) - 1;

	return strncmp(type, EVENT_TYPE_PREFIX, prefix) == 0 ? type + prefix : type;
}

/*
 * Whether the options select the event. type is its short name; a pattern may also match the long
 * name.
 */
static bool wanted(const struct tail *t, const json_t *event, const char *type)
{
	const char *time = shared_text(event, "time"), *full = shared_text(event, "type");
	int64_t ms = 0;

	if (t->cell && strcmp(t->cell, shared_text(json_object_get(event, "data"), "cellId")) != 0)
		return false;
	if (period_is_limited(&t->period) &&
	    (timestamp_parse(time, strlen(time), &ms) < 0 || !period_has(&t->period, ms)))
		return false;
	return !t->type || fnmatch(t->type, type, 0) == 0 || fnmatch(t->type, full, 0) == 0 ||
	       fnmatch(t->type, without_prefix(full), 0) == 0;
}

/*
 * Print the line as it is stored. A terminal may obey U+007F..U+009F, so they are printed as JSON
 * escapes; the other control characters are escaped in the log already.
 */
static void print_json(const struct tail *t, const char *line, size_t len)
{
	size_t i = 0;

	if (!t->terminal)
		i = fwrite(line, 1, len, stdout);
	for (; i < len; i++) {
		const unsigned char c = (unsigned char)line[i];
		const unsigned char next = i + 1 < len ? (unsigned char)line[i + 1] : 0;

		if (c == 0x7f)
			fputs("\\u007f", stdout);
		else if (c == 0xc2 && next >= 0x80 && next < 0xa0)
			printf("\\u00%02x", (unsigned char)line[++i]);
		else
			putchar(c);
	}
	putchar('\n');
}

/*
 * Parse a line, which may be an envelope. Returns the event, borrowed from *ret_outer, which the
 * caller releases; NULL: the line is no event.
 */
static const json_t *read_event(const char *line, size_t len, json_t **ret_outer,
				const char **ret_type)
{
	const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
	json_t *outer = json_loadb(line, len, flags, NULL);
	const json_t *event;

	/* jansson's integers end at 2^63-1, but guests may send larger ones. */
	if (!outer)
		outer = json_loadb(line, len, flags | JSON_DECODE_INT_AS_REAL, NULL);
	event = outer;
	if (strcmp(shared_text(outer, "type"), SIGN_ENVELOPE_TYPE) == 0)
		event = json_object_get(json_object_get(outer, "data"), "event");
	*ret_outer = outer;
	*ret_type = event_find_short_name(shared_text(event, "type"));
	if (!*ret_type)
		*ret_type = without_prefix(shared_text(event, "type"));
	return json_is_object(event) ? event : NULL;
}

static void print_line(const struct tail *t, const char *line, size_t len, const json_t *event,
		       const char *type)
{
	if (t->json)
		print_json(t, line, len);
	else
		print_event(t, event, type);
	if (strcmp(type, "stream.sealed") == 0)
		reading_changes_forget(t->readings,
				       shared_text(json_object_get(event, "data"), "cellId"));
}

/* Returns EX_OK or EX_OSERR. */
static int keep_line(struct newest *newest, const char *line, size_t len)
{
	char **place = &newest->lines[newest->n++ % newest->size];

	free(*place);
	*place = strndup(line, len);
	return *place ? EX_OK : EX_OSERR;
}

/*
 * The entry point of every reader: one line without its newline. Returns EX_OK, or an exit status
 * that ends the reading.
 */
static int take_line(struct tail *t, const char *line, size_t len)
{
	int status = EX_OK;
	const json_t *event;
	const char *type;
	json_t *outer;

	/* Lines of the log itself (segment, checkpoint) are not printed. */
	if (line_kind_of_canonical(line, len) != LINE_ENTRY)
		return EX_OK;
	event = read_event(line, len, &outer, &type);
	if (!event) {
		fputs("tail: a line that is no event; verify says more\n", stderr);
	} else {
		t->events++;
		if (wanted(t, event, type)) {
			t->matched++;
			if (t->newest.lines)
				status = keep_line(&t->newest, line, len);
			else
				print_line(t, line, len, event, type);
		}
	}
	json_decref(outer);
	return status;
}

static void free_newest(struct newest *newest)
{
	for (unsigned i = 0; newest->lines && i < newest->size; i++)
		free(newest->lines[i]);
	free(take_ptr(newest->lines));
}

/* The end of the log is reached: print the kept lines. All later lines are printed at once. */
static void print_newest(struct tail *t)
{
	struct newest *newest = &t->newest;

	if (!newest->lines)
		return;
	for (unsigned i = 0; i < newest->size; i++) {
		char *line = newest->lines[(newest->n + i) % newest->size];
		const json_t *event;
		const char *type;
		json_t *outer;

		if (!line)
			continue;
		event = read_event(line, strlen(line), &outer, &type);
		if (event)
			print_line(t, line, strlen(line), event, type);
		json_decref(outer);
	}
	free_newest(newest);
}

/* The end of the input. Returns the exit status. */
static int finish(struct tail *t)
{
	print_newest(t);
	if (t->events == 0)
		fputs("tail: there is no event\n", stderr);
	else if (t->matched == 0)
		fprintf(stderr, "tail: none of %" PRIu64 " event%s matches\n", t->events,
			t->events == 1 ? "" : "s");
	return fflush(stdout) == EOF ? EX_IOERR : EX_OK;
}

static void say_too_long(void)
{
	fputs("tail: passed a line above 64 KiB; verify says more\n", stderr);
}

/* ---- a file that does not grow ---- */

static int read_file(struct tail *t, const char *path)
{
	char why[INPUT_WHY_MAX];
	struct input_line line;
	struct input *input;
	int status = EX_OK, r = input_open(path, &input, why);

	if (r < 0) {
		fprintf(stderr, "tail: %s: %s\n", path, why);
		return EX_NOINPUT;
	}
	while (status == EX_OK && (r = input_next(input, &line, why)) > 0) {
		if (line.too_long)
			say_too_long();
		else
			status = take_line(t, line.data, line.len);
	}
	input_close(input);
	if (r < 0) {
		fprintf(stderr, "tail: %s: %s\n", path, why);
		return EX_NOINPUT;
	}
	return status == EX_OK ? finish(t) : status;
}

/* ---- a log that is being written ---- */

static int read_log(struct tail *t, struct evidence_reader *reader)
{
	for (;;) {
		const char *line;
		size_t len;
		int r = evidence_reader_next(reader, &line, &len), status;

		if (r > 0) {
			status = take_line(t, line, len);
			if (status != EX_OK)
				return status;
		} else if (r == -EMSGSIZE) {
			say_too_long();
		} else if (r == -ENODATA) {
			fputs("tail: segments are gone that were to come next\n", stderr);
		} else if (r < 0) {
			fprintf(stderr, "tail: %s: %s\n", t->dir,
				r == -EINVAL ? "a segment is not a regular file" : strerror(-r));
			return EX_NOINPUT;
		} else {
			if (!t->follow)
				return finish(t);
			print_newest(t);
			/* Standard output may be a pipe, and its reader waits for the lines. */
			if (fflush(stdout) != 0)
				return EX_IOERR;
			usleep(POLL_US);
		}
	}
}

static int read_folder(struct tail *t)
{
	/* -f begins at the end, unless -n or --since want older lines too. */
	const bool at_end = t->follow && t->lines == 0 && t->period.since_ms == INT64_MIN;
	struct evidence_reader *reader;
	int r = evidence_reader_open(t->dir, NULL, &reader), status;

	if (r == 0 && at_end) {
		r = evidence_reader_seek_end(reader);
		if (r < 0)
			evidence_reader_close(reader);
	}
	if (r < 0) {
		fprintf(stderr, "tail: %s: %s\n", t->dir, strerror(-r));
		return EX_NOINPUT;
	}
	status = read_log(t, reader);
	evidence_reader_close(reader);
	return status;
}

#ifdef HAVE_NATS
static int take_from_stream(void *ctx, const char *line, size_t len)
{
	struct tail *t = ctx;
	const int status = take_line(t, line, len);

	if (status == EX_OK && t->follow && fflush(stdout) != 0)
		return EX_IOERR;
	return status;
}

static int read_stream(struct tail *t)
{
	const int status = from_nats_lines(&t->nats, t->follow, take_from_stream, t);

	return status == EX_OK ? finish(t) : status;
}
#endif

static int run(struct tail *t)
{
	struct stat st;

	if (t->lines > 0) {
		t->newest.size = t->lines;
		t->newest.lines = calloc(t->lines, sizeof(*t->newest.lines));
		if (!t->newest.lines)
			return EX_OSERR;
	}
#ifdef HAVE_NATS
	if (t->nats.url)
		return read_stream(t);
#endif
	if (strcmp(t->dir, "-") != 0 && (stat(t->dir, &st) < 0 || S_ISDIR(st.st_mode)))
		return read_folder(t);
	if (!t->follow)
		return read_file(t, t->dir);
	fprintf(stderr, "tail: %s: -f follows a folder of segments, not a file\n", t->dir);
	return EX_USAGE;
}

/* Returns EX_OK, EX_USAGE after a message, or -1 if --help was answered. */
static int parse(struct tail *t, int argc, char **argv)
{
	const struct option_program program = {
		.name = "tail",
		.before =
			"Usage: cellos-host-telemetry tail [OPTIONS] [DIR|FILE]\n"
			"Prints the evidence log, a file of it (also .gz and .zst) or - as readable "
			"lines.\n",
		.after = "Exit status: 0; 64 usage; 66 it cannot be read; 78 configuration.\n",
		.groups =
			{
				{NULL, rows, ARRAY_SIZE(rows), t},
#ifdef HAVE_NATS
				{"Evidence that was forwarded:", from_nats_rows, FROM_NATS_ROWS,
				 &t->nats},
#endif
			},
		.operands_max = 1,
	};
	int at;

	period_init(&t->period);
	at = option_parse(&program, argc, argv, NULL);
	if (at <= 0)
		return at < 0 ? EX_USAGE : -1;
	if (at < argc)
		t->dir = argv[at];
	return EX_OK;
}

static bool reads_files(const struct tail *t)
{
#ifdef HAVE_NATS
	return !t->nats.url;
#else
	(void)t;
	return true;
#endif
}

int cmd_tail(int argc, char **argv)
{
	struct tail t = {0};
	struct config config = {0};
	int status = parse(&t, argc, argv);

	if (status != EX_OK)
		return status < 0 ? EX_OK : status;
	t.terminal = isatty(STDOUT_FILENO);
	t.colour = t.terminal && !getenv("NO_COLOR");
	if (reads_files(&t) && !t.dir)
		status = shared_find_evidence("tail", t.config_path, &config, &t.dir);
	if (status == EX_OK) {
		t.readings = reading_changes_new();
		status = t.readings ? run(&t) : EX_OSERR;
		reading_changes_free(t.readings);
		free_newest(&t.newest);
	}
	config_free(&config);
	return status;
}
