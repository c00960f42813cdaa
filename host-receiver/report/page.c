/* SPDX-License-Identifier: MIT */
#include "host-receiver/report/page.h"

#include "common/util.h"
#include "host-receiver/judge/walker.h"
#include "host-receiver/report/design.h"
#include "host-receiver/report/packed.h"

_Static_assert(PAGE_WHY_MAX >= WALKER_WHY_MAX, "any reason of a walker fits");

/* The state of the reading. */
struct reading {
	const struct page_options *options;
	struct packed *packed;
	bool in_log;
	uint64_t index; /* of the next entry, in a log */
	uint64_t line, records;
};

static bool wanted(const struct page_options *o, const struct event_facts *event)
{
	const struct wire_text cell = event->texts[TEXT_CELL];

	if (event->time_ms != 0 && (event->time_ms < o->since_ms || event->time_ms > o->until_ms))
		return false;
	return !o->cell || cell.len == 0 || json_text_is(cell, o->cell);
}

static void write_origin(struct reading *r, const char *origin)
{
	packed_write(r->packed, "S\t", 2);
	packed_write_json(r->packed, origin);
	packed_write(r->packed, "\n", 1);
}

static void begin_segment(struct reading *r, const struct note_facts *note)
{
	char origin[NOTE_ORIGIN_MAX + 1];

	snprintf(origin, sizeof(origin), "%.*s", (int)note->origin.len, note->origin.data);
	r->in_log = true;
	r->index = note->first_index;
	write_origin(r, origin);
}

static void write_record(struct reading *r, const struct input_line *line)
{
	char place[64];
	int n;

	if (r->in_log)
		n = snprintf(place, sizeof(place), "%" PRIu64 "\t%" PRIu64 "\t", r->index, r->line);
	else
		n = snprintf(place, sizeof(place), "-\t%" PRIu64 "\t", r->line);
	packed_write(r->packed, place, (size_t)n);
	packed_write(r->packed, line->data, line->len);
	packed_write(r->packed, "\n", 1);
	r->records++;
}

static void take_line(struct reading *r, const struct input_line *line,
		      const struct line_facts *facts)
{
	static const struct event_facts no_event;

	r->line++;
	if (!line->too_long && facts->class == CLASS_SEGMENT) {
		begin_segment(r, &facts->note);
		return;
	}
	if (!line->too_long && facts->class == CLASS_CHECKPOINT)
		return;
	if (wanted(r->options, line->too_long ? &no_event : &facts->event))
		write_record(r, line);
	r->index++;
}

static int read_source(struct reading *r, struct walker *walker, const char *path,
		       char why[PAGE_WHY_MAX])
{
	struct input_line line;
	struct line_facts facts;
	int got = walker_open(walker, path, why);

	if (got < 0)
		return got;
	packed_write(r->packed, "F\t", 2);
	packed_write_json(r->packed, path);
	packed_write(r->packed, "\n", 1);
	r->in_log = false;
	r->line = 0;
	write_origin(r, "");
	while ((got = walker_next(walker, &line, &facts, why)) > 0) {
		take_line(r, &line, &facts);
		if (r->records > PAGE_RECORDS_MAX) {
			snprintf(why, PAGE_WHY_MAX,
				 "more than %u records: choose some with --cell, --since, --until",
				 PAGE_RECORDS_MAX);
			return -E2BIG;
		}
	}
	return got;
}

static int write_records(struct reading *r, const struct sources *sources, char why[PAGE_WHY_MAX])
{
	struct walker *walker = walker_new(NULL);
	int got = 0;

	if (!walker)
		return -ENOMEM;
	for (size_t i = 0; i < sources->n && got == 0; i++)
		got = read_source(r, walker, sources->list[i].path, why);
	walker_free(walker);
	return got;
}

int page_write(FILE *out, const struct page_options *options, const struct sources *sources,
	       uint64_t *ret_records, char why[PAGE_WHY_MAX])
{
	struct reading r = {.options = options, .packed = packed_new(out)};
	int got = r.packed ? 0 : -ENOMEM;

	snprintf(why, PAGE_WHY_MAX, "no memory");
	if (got == 0) {
		fputs(report_design_title, out);
		fputs(options->title, out);
		fputs(report_design_before, out);
		fputs(options->title, out);
		fputs(report_design_between, out);
		packed_write(r.packed, options->head, options->head_len);
		got = write_records(&r, sources, why);
	}
	if (got == 0) {
		got = packed_finish(r.packed);
		fputs(report_design_after, out);
		if (got == 0 && (fflush(out) == EOF || ferror(out)))
			got = errno ? -errno : -EIO;
		if (got < 0)
			snprintf(why, PAGE_WHY_MAX, "cannot write it: %s", strerror(-got));
	}
	packed_free(r.packed);
	*ret_records = r.records;
	return got;
}
