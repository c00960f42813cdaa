/* SPDX-License-Identifier: MIT */
/*
 * export: writes evidence in the form of other systems to standard output. The result is only a
 * view: it is unsigned, and export verifies nothing (verify does). A line that is no event is
 * skipped and counted, and the exit status reports it.
 */
#include <limits.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/export/ocsf.h"
#include "host-receiver/judge/sources.h"
#include "host-receiver/verbs/period.h"
#include "host-receiver/verbs/verbs.h"

struct export
{
	const char *format, *cell;
	struct period period;
	struct json_document *doc;
	char *event; /* OCSF_EVENT_MAX bytes */
	char origin[NOTE_ORIGIN_MAX +
		    1]; /* the log of the current segment; "": outside of any log */
	uint64_t index, events, skipped; /* events: before --cell, --since and --until */
};

static const struct option_row rows[] = {
	{"format", "NAME", "ocsf: JSON lines of OCSF " OCSF_VERSION " (the default)",
	 OPTION_SETS_WORD(struct export, format, "ocsf")},
	{"cell", "ID", "of this cell only, and of the log itself",
	 OPTION_SETS_TEXT(struct export, cell)},
	{"since", "TIME", "not before 2026-11-21T10:00:00Z, a date, or how long ago: 2h",
	 PERIOD_SETS_SINCE(struct export, period)},
	{"until", "TIME", "not after", PERIOD_SETS_UNTIL(struct export, period)},
	OPTION_ROW_HELP,
};

/* Returns the first path's index, 0 if --help was answered, -EINVAL after a message. */
static int parse(struct export *e, int argc, char **argv)
{
	const struct option_program program = {
		.name = "export",
		.before =
			"Usage: cellos-host-telemetry export [OPTIONS] PATH...\n"
			"Writes evidence for a SIEM to standard output: files (also .gz and .zst), "
			"folders of segments, or -\nfor standard input. It is a view, not evidence: "
			"unsigned, and nothing is verified.\n",
		.after = "Exit status: 0; 1 lines that are no events were skipped; 64 usage; 66 "
			 "cannot read the input;\n74 cannot write.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), e}},
		.operands_max = UINT_MAX,
	};
	int at;

	period_init(&e->period);
	at = option_parse(&program, argc, argv, NULL);
	if (at > 0 && at == argc)
		return option_usage_error(&program,
					  "expected a file, a folder of segments or - to read");
	return at;
}

/* A segment line names the log, and the index of the next entry. */
static void begin_segment(struct export *e)
{
	struct line_segment segment;
	const char *why;

	e->origin[0] = '\0';
	e->index = 0;
	if (line_read_segment(e->doc, json_document_root(e->doc), &segment, &why) < 0)
		return;
	snprintf(e->origin, sizeof(e->origin), "%s", segment.origin);
	e->index = segment.frontier.size;
}

static void take_line(struct export *e, const struct input_line *line)
{
	const struct ocsf_place place = {.origin = e->origin, .index = e->index};
	const char *why;
	size_t offset, len;
	bool read;

	read = !line->too_long &&
	       json_document_read(e->doc, line->data, line->len, &why, &offset) == 0;
	if (read && line_kind_of(e->doc, json_document_root(e->doc)) != LINE_ENTRY) {
		if (line_kind_of(e->doc, json_document_root(e->doc)) == LINE_SEGMENT)
			begin_segment(e);
		return;
	}
	e->index++;
	e->events++;
	if (read && !ocsf_is_wanted(e->doc, e->cell, e->period.since_ms, e->period.until_ms))
		return;
	if (!read || ocsf_write(e->doc, line->data, line->len, &place, e->event, &len) < 0) {
		e->skipped++;
		return;
	}
	fwrite(e->event, 1, len, stdout);
	putchar('\n');
}

static int read_source(struct export *e, const struct source *source)
{
	char why[INPUT_WHY_MAX];
	struct input_line line;
	struct input *input;
	int r = input_open(source->path, &input, why);

	/* What retention deletes before it is read is as good as never listed. */
	if (r == -ENOENT && source->listed)
		return EX_OK;
	e->origin[0] = '\0';
	if (r == 0) {
		while (!ferror(stdout) && (r = input_next(input, &line, why)) > 0)
			take_line(e, &line);
		input_close(input);
	}
	if (r < 0) {
		fprintf(stderr, "export: %s: %s\n", source->path, why);
		return EX_NOINPUT;
	}
	return EX_OK;
}

/* A write error of stdout is found at the end; read_source() only stops early after one. */
static int write_all_of(struct export *e, const struct sources *sources)
{
	int status = EX_OK;

	for (size_t i = 0; i < sources->n && status == EX_OK; i++)
		status = read_source(e, &sources->list[i]);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		fprintf(stderr, "export: cannot write: %s\n", strerror(errno));
		return EX_IOERR;
	}
	if (status == EX_OK && e->events == 0)
		fputs("export: there is no event\n", stderr);
	if (e->skipped > 0)
		fprintf(stderr,
			"export: skipped %" PRIu64 " line%s that %s no event; verify says "
			"more\n",
			e->skipped, e->skipped == 1 ? "" : "s", e->skipped == 1 ? "is" : "are");
	return status == EX_OK && e->skipped > 0 ? EXIT_FAILURE : status;
}

static int run(struct export *e, char **paths)
{
	char why[SOURCES_WHY_MAX] = "no memory";
	struct sources sources = {0};
	int r = 0, status = EX_NOINPUT;

	e->doc = json_document_new(INPUT_LINE_MAX);
	e->event = malloc(OCSF_EVENT_MAX);
	if (!e->doc || !e->event)
		r = -ENOMEM;
	for (; *paths && r == 0; paths++)
		r = sources_add(&sources, *paths, why);
	if (r == 0)
		r = sources_order(&sources, why);
	if (r == 0)
		status = write_all_of(e, &sources);
	else
		fprintf(stderr, "export: %s\n", why);
	sources_free(&sources);
	free(e->event);
	json_document_free(e->doc);
	return status;
}

int cmd_export(int argc, char **argv)
{
	struct export e = {
		.format = "ocsf",
	};
	const int at = parse(&e, argc, argv);

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	return run(&e, argv + at);
}
