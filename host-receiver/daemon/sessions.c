/* SPDX-License-Identifier: MIT */
/*
 * The numbers of the guests' sessions, kept in the log itself so that they survive the daemon
 * (delivery.md section 2). While the daemon runs, an entry with the sessions of all cells is
 * written every SESSIONS_EVERY bytes of evidence and at the beginning of each segment. At its start
 * the daemon reads back from the end of the log, far enough to find at least one of these entries.
 *
 * Loop thread; the reading happens before the cells are served.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/recall.h"
#include "host-receiver/daemon/internal.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/evidence/reader.h"
#include "host-receiver/evidence/segment.h"

#define SESSIONS_EVERY	   (16u * 1024u * 1024u)
#define SESSIONS_READ_BACK (32u * 1024u * 1024u)
#define SESSIONS_TEXT_MAX                                                                          \
	(48u * 1024u) /* sessions of one entry: its line stays below EVENT_LINE_MAX */
#define SESSION_MAX (CELL_ID_MAX + 128u)

/* ---- writing ---- */

static void write_entry(struct daemon *d, struct json_writer *w)
{
	struct event *e = log_stream_event(d->log_stream, EVENT_LOG_SESSIONS);
	struct wire_text text = {.data = w->buf};

	json_put_end_array(w);
	json_writer_done(w, &text.len);
	event_add_raw(e, EVENT_KEY_SESSIONS, pipeline_copy(d->pipeline, text));
	log_stream_submit(d->log_stream, e);
}

/* An array of sessions, written as several entries so that each fits into a line. */
struct sessions_writer {
	struct daemon *d;
	struct json_writer w;
	bool begun;
	char text[SESSIONS_TEXT_MAX];
};

static struct json_writer *begin_element(struct sessions_writer *s)
{
	if (!s->begun) {
		json_writer_init(&s->w, s->text, sizeof(s->text));
		json_put_begin_array(&s->w);
	}
	s->begun = true;
	return &s->w;
}

static void end_element(struct sessions_writer *s, bool last)
{
	if (!s->begun || (!last && s->w.len + SESSION_MAX < sizeof(s->text)))
		return;
	write_entry(s->d, &s->w);
	s->begun = false;
}

static void write_cell(struct sessions_writer *s, const struct cell *cell)
{
	recall_put_stream(begin_element(s), cell->stream.identity->stream_id,
			  cell->stream.sequence);
	end_element(s, false);
	for (size_t i = 0; i < SESSIONS_KEPT; i++) {
		/* The older one first, so that the reader forgets in the same order. */
		const struct session *session = sessions_by_age(&cell->sessions, i);
		const bool current = session && cell->active && cell->numbering.session == session;

		if (!session)
			continue;
		recall_put(begin_element(s), cell->options.cell_id,
			   current ? cell->active->number : 0, session);
		end_element(s, false);
	}
}

static void write_sessions(struct daemon *d)
{
	struct sessions_writer s = {.d = d};

	for (const struct cell *cell = d->registry.cells; cell; cell = cell->next)
		write_cell(&s, cell);
	end_element(&s, true);
}

void daemon_sessions_progress(struct daemon *d)
{
	const uint64_t bytes = pipeline_stats(d->pipeline)->bytes;
	const uint64_t segment = evidence_log_end(d->log).segment;

	if (!d->log_stream || d->life.stopping ||
	    (bytes - d->sessions_bytes < SESSIONS_EVERY && segment == d->sessions_segment))
		return;
	d->sessions_bytes = bytes;
	d->sessions_segment = segment;
	write_sessions(d);
}

/* ---- reading ---- */

/* The place SESSIONS_READ_BACK bytes before the end, or the beginning of the log. */
static struct evidence_position read_back_from(const struct daemon *d)
{
	struct evidence_position at = evidence_log_end(d->log);
	uint64_t left = SESSIONS_READ_BACK;
	_cleanup_close_ int dir = open(d->config.evidence_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	while (dir >= 0 && at.offset < left && at.segment > 0) {
		char name[SEGMENT_NAME_MAX];
		struct stat st;

		segment_format_name(at.segment - 1, name);
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			break;
		left -= at.offset;
		at.segment--;
		at.offset = (uint64_t)st.st_size;
	}
	at.offset = at.offset > left ? at.offset - left : 0;
	return at;
}

static int recall_all(struct evidence_reader *reader, struct recall *recall, bool skip_first)
{
	const char *line;
	size_t len;
	int r;

	while ((r = evidence_reader_next(reader, &line, &len)) != 0) {
		if (r == -EMSGSIZE || r == -ENODATA)
			continue;
		if (r < 0)
			return r;
		/* If the reading begins inside a segment, its first line is cut, and is skipped. */
		if (!skip_first && (r = recall_line(recall, line, len)) < 0)
			return r;
		skip_first = false;
	}
	return 0;
}

int daemon_recall_sessions(struct daemon *d)
{
	const struct evidence_position from = read_back_from(d);
	struct recall *recall = recall_new();
	struct evidence_reader *reader;
	int r = recall ? evidence_reader_open(d->config.evidence_dir, &from, &reader) : -ENOMEM;

	if (r == 0) {
		r = recall_all(reader, recall, from.offset > 0);
		evidence_reader_close(reader);
	}
	if (r < 0) {
		recall_free(recall);
		return r;
	}
	d->sessions_segment = evidence_log_end(d->log).segment;
	d->recall = recall;
	return 0;
}

void daemon_give_sessions(const struct daemon *d, struct cell *cell)
{
	const struct sessions *known =
		d->recall ? recall_find(d->recall, cell->options.cell_id) : NULL;

	for (size_t i = 0; known && i < SESSIONS_KEPT; i++) {
		const struct session *s = sessions_by_age(known, i);

		if (!s)
			continue;
		sessions_load(&cell->sessions, wire_text(s->name), s->next);
		/* Its agent may still run, and what it lost so far was counted. */
		cell->guest.baseline = true;
	}
}

void daemon_find_end(const struct daemon *d, const uint8_t stream_id[static UUID_SIZE],
		     struct stream_end *ret)
{
	/* It may be a member of *ret. */
	memmove(ret->stream_id, stream_id, UUID_SIZE);
	ret->sequence = d->recall ? recall_sequence(d->recall, stream_id) : 0;
}

bool daemon_was_lost(const struct daemon *d, const struct stream_end *end)
{
	return end->sequence == 0 && d->config.sync != EVIDENCE_SYNC_BATCH &&
	       d->log_start.reason == LOG_RESUMED;
}
