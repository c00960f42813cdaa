/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/group.h"

#include <time.h>

#include "common/util.h"
#include "host-receiver/event/json_writer.h"

#define SKIPPED_TYPE "dev.cellos.events.forward.v1.skipped"

struct group {
	const struct forward_settings *settings; /* borrowed */
	size_t max;
	struct group_place at; /* after the last line that is in a message */
	char subject[SUBJECT_MAX], id[GROUP_ID_MAX];

	/* Mode batches: the message that is being collected, and the line that had no room. */
	struct group_message batch;
	char *buf; /* GROUP_BYTES_MAX + EVIDENCE_LINE_MAX */
	bool given;
	struct walk_line pending; /* valid until the walk continues */
	bool has_pending;
};

int group_new(const struct forward_settings *settings, struct group **ret)
{
	struct group *group = calloc(1, sizeof(*group));

	if (!group)
		return -ENOMEM;
	group->settings = settings;
	group->max = GROUP_BYTES_MAX;
	group->at.origin = "";
	group->buf = malloc(GROUP_BYTES_MAX + EVIDENCE_LINE_MAX + 1);
	if (!group->buf) {
		group_free(group);
		return -ENOMEM;
	}
	*ret = group;
	return 0;
}

void group_free(struct group *group)
{
	if (!group)
		return;
	free(group->buf);
	free(group);
}

void group_reset(struct group *group, const struct group_place *at)
{
	if (at)
		group->at = *at;
	group->batch = (struct group_message){0};
	group->given = group->has_pending = false;
}

void group_set_max(struct group *group, size_t max)
{
	group->max = MIN(max, (size_t)GROUP_BYTES_MAX);
}

uint64_t group_time_ms(const char *time)
{
	struct tm tm = {0};
	unsigned ms = 0;

	if (sscanf(time, "%4d-%2d-%2dT%2d:%2d:%2d.%3uZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms) != 7)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return (uint64_t)timegm(&tm) * MSEC_PER_SEC + ms;
}

static void copy_text(char *out, size_t size, struct wire_text text)
{
	const size_t len = MIN(text.len, size - 1);

	if (len > 0)
		memcpy(out, text.data, len);
	out[len] = '\0';
}

static void keep_time(char out[static TIME_TEXT_MAX], struct wire_text time)
{
	if (time.len < TIME_TEXT_MAX)
		copy_text(out, TIME_TEXT_MAX, time);
}

/* Only an entry can be found again. So other lines leave the place at the previous entry. */
static void advance(struct group *group, const struct walk_line *line)
{
	if (line->kind == WALK_ENTRY)
		group->at = (struct group_place){
			.origin = line->origin,
			.index = line->index + 1,
			.at = line->start,
		};
}

/* ---- mode events ---- */

static void message_of_line(struct group *group, const struct walk_line *line,
			    struct group_message *ret)
{
	const bool entry = line->kind == WALK_ENTRY;

	if (entry)
		subject_entry(group->settings->subject, line->cell, line->type, group->subject);
	else
		subject_host(SUBJECT_CHECKPOINTS, line->origin, group->subject);
	copy_text(group->id, sizeof(group->id), line->id);
	*ret = (struct group_message){
		.subject = group->subject,
		.id = group->id,
		.origin = line->origin,
		.index = line->index,
		.data = line->text,
		.len = line->len,
		.entries = entry,
		.after = group->at,
	};
	keep_time(ret->time, line->time);
}

/* ---- mode batches ---- */

static const char *log_uuid(const char *origin)
{
	const char *slash = strrchr(origin, '/');

	return slash ? slash + 1 : origin;
}

static void add_line(struct group *group, const struct walk_line *line)
{
	struct group_message *m = &group->batch;

	memcpy(group->buf + m->len, line->text, line->len);
	m->len += line->len;
	group->buf[m->len++] = '\n';
	if (m->entries == 0)
		m->index = line->index;
	m->origin = line->origin;
	m->entries += line->kind == WALK_ENTRY;
	if (!*m->time)
		keep_time(m->time, line->time);
	m->after = group->at;
}

static void finish_batch(struct group *group, struct group_message *ret)
{
	struct group_message *m = &group->batch;
	const uint64_t end = m->index + m->entries;

	subject_host(SUBJECT_LOGS, m->origin, group->subject);
	snprintf(group->id, sizeof(group->id), "%.64s:%" PRIu64 "-%" PRIu64, log_uuid(m->origin),
		 m->index, end);
	m->subject = group->subject;
	m->id = group->id;
	m->data = group->buf;
	group->given = true;
	*ret = *m;
}

/* True when the batch must be sent before this line is added. */
static bool is_full(const struct group *group, const struct walk_line *line)
{
	return group->batch.len > 0 &&
	       (line->kind == WALK_SEGMENT || group->batch.len + line->len + 1 > group->max);
}

static int next_line(struct group *group, struct walk *walk, struct walk_line *ret)
{
	if (!group->has_pending)
		return walk_next(walk, ret);
	*ret = group->pending;
	group->has_pending = false;
	return 1;
}

static int next_batch(struct group *group, struct walk *walk, struct group_message *ret)
{
	struct walk_line line;
	int r;

	if (group->given)
		group->batch = (struct group_message){0};
	group->given = false;
	while ((r = next_line(group, walk, &line)) == 1) {
		if (is_full(group, &line)) {
			group->pending = line;
			group->has_pending = true;
			finish_batch(group, ret);
			return 1;
		}
		/* After a restart the rest of a group may be only its checkpoint. */
		if (line.kind == WALK_CHECKPOINT && group->batch.len == 0)
			continue;
		advance(group, &line);
		add_line(group, &line);
		if (line.kind == WALK_CHECKPOINT) {
			finish_batch(group, ret);
			return 1;
		}
	}
	return r;
}

static int next_event(struct group *group, struct walk *walk, struct group_message *ret)
{
	struct walk_line line;
	int r = walk_next(walk, &line);

	if (r != 1)
		return r;
	advance(group, &line);
	message_of_line(group, &line, ret);
	return 1;
}

int group_next(struct group *group, struct walk *walk, struct group_message *ret)
{
	return group->settings->mode == FORWARD_BATCHES ? next_batch(group, walk, ret)
							: next_event(group, walk, ret);
}

size_t group_notice(const struct group_message *m, size_t max_size,
		    char out[static GROUP_NOTICE_MAX], char id[static GROUP_ID_MAX])
{
	struct json_writer w;
	size_t len = 0;

	snprintf(id, GROUP_ID_MAX, "%.64s:%" PRIu64 ":skipped", log_uuid(m->origin), m->index);
	json_writer_init(&w, out, GROUP_NOTICE_MAX);
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	json_put_begin_object(&w);
	json_put_kv_uint(&w, "bytes", m->len);
	json_put_kv_uint(&w, "entries", m->entries);
	json_put_kv_uint(&w, "index", m->index);
	json_put_kv_uint(&w, "maxSize", max_size);
	json_put_kv_string(&w, "origin", m->origin);
	json_put_end_object(&w);
	json_put_kv_string(&w, "datacontenttype", "application/json");
	json_put_kv_string(&w, "id", id);
	json_put_kv_string(&w, "source", "cellos-host-telemetry/forwarder");
	json_put_kv_string(&w, "specversion", "1.0");
	json_put_kv_string(&w, "type", SKIPPED_TYPE);
	json_put_end_object(&w);
	json_writer_done(&w, &len);
	return len;
}
