/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/fetch.h"

#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/segment.h"
#include "host-receiver/forward/stream_reader.h"

/* How a notice of the forwarder ends; its members are sorted. */
#define SKIPPED_END "\"type\":\"dev.cellos.events.forward.v1.skipped\"}"

/* The order of lines with the same index. */
enum kind {
	KIND_CHECKPOINT,
	KIND_SEGMENT,
	KIND_ENTRY,
};

struct item {
	uint64_t index;
	enum kind kind;
	size_t len;
	char *text; /* owned */
};

/* The lines of one log. The lines before the entry `next` are written; the others wait in order. */
struct fetch_state {
	FILE *file;
	uint64_t segment; /* the number of its file */
	bool begun;	  /* a segment line has been written */
	uint64_t next;
	enum kind last; /* the last kind that was written at `next`; KIND_ENTRY: none */
	struct item *items;
	size_t first, n, room;
	size_t bytes;
	uint64_t skipped_first, skipped_end; /* the newest notice */
	off_t covered;	    /* offset in the file, after the last checkpoint line */
	uint64_t uncovered; /* entries after it */
};

static void state_free(struct fetch_state *s)
{
	if (!s)
		return;
	for (size_t i = s->first; i < s->n; i++)
		free(s->items[i].text);
	free(s->items);
	if (s->file)
		fclose(s->file);
	free(s);
}

void fetch_free(struct fetch *fetch)
{
	struct fetch_log *next;

	for (struct fetch_log *log = fetch->logs; log; log = next) {
		next = log->next;
		state_free(log->state);
		free(log->dir);
		free(log);
	}
	*fetch = (struct fetch){0};
}

/* ---- a log's lines ---- */

static bool ends_with(const char *text, size_t len, const char *end)
{
	const size_t n = strlen(end);

	return len >= n && memcmp(text + len - n, end, n) == 0;
}

static enum kind kind_of(const char *text, size_t len)
{
	static const enum kind kinds[] = {
		[LINE_ENTRY] = KIND_ENTRY,
		[LINE_SEGMENT] = KIND_SEGMENT,
		[LINE_CHECKPOINT] = KIND_CHECKPOINT,
	};

	return kinds[line_kind_of_canonical(text, len)];
}

static int begin_segment(struct fetch_log *log)
{
	struct fetch_state *s = log->state;
	char name[SEGMENT_NAME_MAX], path[1024];

	if (s->file && fclose(take_ptr(s->file)) == EOF)
		return -errno;
	segment_format_name(++s->segment, name);
	snprintf(path, sizeof(path), "%s/%s", log->dir, name);
	s->file = fopen(path, "wxe");
	if (!s->file)
		return -errno;
	s->begun = true;
	s->covered = 0;
	s->uncovered = 0;
	return 0;
}

static int write_item(struct fetch_log *log, const struct item *item)
{
	struct fetch_state *s = log->state;
	int r;

	if (item->kind == KIND_SEGMENT) {
		r = begin_segment(log);
		if (r < 0)
			return r;
	}
	if (fwrite(item->text, 1, item->len, s->file) != item->len || putc('\n', s->file) == EOF)
		return -EIO;
	s->last = item->kind;
	if (item->kind == KIND_ENTRY) {
		s->next = item->index + 1;
		s->uncovered++;
		log->entries++;
	} else {
		s->covered = ftello(s->file);
		s->uncovered = 0;
	}
	return 0;
}

/* True for a line that was written already, or that has no meaning. */
static bool is_repeat(const struct fetch_state *s, const struct item *item)
{
	if (!s->begun)
		return false;
	if (item->index != s->next || item->kind == KIND_ENTRY)
		return item->index < s->next;
	/* At an index: a checkpoint, then a segment line, then the entry. */
	return s->last != KIND_ENTRY && item->kind <= s->last;
}

static bool comes_next(const struct fetch_state *s, const struct item *item)
{
	if (!s->begun)
		return item->kind == KIND_SEGMENT;
	return item->index == s->next;
}

static void drop_first(struct fetch_state *s)
{
	struct item *item = &s->items[s->first++];

	s->bytes -= item->len;
	free(take_ptr(item->text));
	if (s->first == s->n)
		s->first = s->n = 0;
}

/* Write the waiting lines up to the first hole. */
static int write_ready(struct fetch_log *log)
{
	struct fetch_state *s = log->state;
	int r;

	while (s->n > s->first) {
		struct item *item = &s->items[s->first];

		if (is_repeat(s, item)) {
			log->repeats += item->kind == KIND_ENTRY;
		} else if (comes_next(s, item)) {
			if (!s->begun)
				s->next = item->index;
			r = write_item(log, item);
			if (r < 0)
				return r;
		} else {
			return 0;
		}
		drop_first(s);
	}
	return 0;
}

static void add_hole(struct fetch_log *log, uint64_t first, uint64_t last)
{
	const struct fetch_state *s = log->state;
	struct fetch_hole *hole = &log->holes[log->n_holes];

	log->missing += last - first + 1;
	if (log->n_holes == FETCH_HOLES_MAX)
		return;
	*hole = (struct fetch_hole){first, last,
				    s->skipped_first <= first && last < s->skipped_end};
	log->n_holes++;
}

/* The checkpoint of these entries covers the hole too, so they cannot be verified. Remove them. */
static int cut_uncovered(struct fetch_log *log)
{
	struct fetch_state *s = log->state;

	if (s->uncovered == 0)
		return 0;
	log->unanchored += s->uncovered;
	log->entries -= s->uncovered;
	s->uncovered = 0;
	if (fflush(s->file) == EOF || ftruncate(fileno(s->file), s->covered) < 0)
		return -errno;
	return fseeko(s->file, s->covered, SEEK_SET) < 0 ? -errno : 0;
}

/*
 * The missing lines will not come any more. After a hole nothing can be verified before the next
 * segment line, which has the frontier of the tree.
 */
static int pass_hole(struct fetch_log *log)
{
	struct fetch_state *s = log->state;
	const struct item *item = &s->items[s->first];

	if (s->begun && item->index > s->next) {
		int r = cut_uncovered(log);

		if (r < 0)
			return r;
		add_hole(log, s->next, item->index - 1);
	}
	while (s->n > s->first) {
		item = &s->items[s->first];
		if (item->kind == KIND_SEGMENT) {
			s->next = item->index;
			s->last = KIND_ENTRY;
			return write_ready(log);
		}
		if (item->kind == KIND_ENTRY) {
			log->unanchored++;
			s->next = item->index + 1;
		}
		drop_first(s);
	}
	s->begun = false;
	return 0;
}

/* Sorted by index and kind. The new item is nearly always the last one. */
static int insert(struct fetch_state *s, const struct item *item)
{
	size_t at;

	if (s->n == s->room) {
		const size_t used = s->n - s->first;
		struct item *items;

		if (used > 0)
			memmove(s->items, s->items + s->first, used * sizeof(*items));
		s->first = 0;
		s->n = used;
		s->room = MAX(2 * used, (size_t)64);
		items = reallocarray(s->items, s->room, sizeof(*items));
		if (!items)
			return -ENOMEM;
		s->items = items;
	}
	for (at = s->n; at > s->first; at--) {
		const struct item *before = &s->items[at - 1];

		if (before->index < item->index ||
		    (before->index == item->index && before->kind <= item->kind))
			break;
	}
	memmove(s->items + at + 1, s->items + at, (s->n - at) * sizeof(*item));
	s->items[at] = *item;
	s->n++;
	s->bytes += item->len;
	return 0;
}

static int add_line(struct fetch_log *log, const char *text, size_t len, uint64_t index)
{
	struct fetch_state *s = log->state;
	struct item item = {.index = index, .kind = kind_of(text, len), .len = len};
	int r;

	if (is_repeat(s, &item)) {
		log->repeats += item.kind == KIND_ENTRY;
		return 0;
	}
	item.text = malloc(len + 1);
	if (!item.text)
		return -ENOMEM;
	memcpy(item.text, text, len);
	r = insert(s, &item);
	if (r < 0) {
		free(item.text);
		return r;
	}
	r = write_ready(log);
	if (r == 0 && (s->n - s->first > FETCH_WINDOW_ITEMS || s->bytes > FETCH_WINDOW_BYTES))
		r = pass_hole(log);
	return r;
}

/* ---- messages ---- */

static struct fetch_log *find_log(struct fetch *fetch, const struct fetch_options *options,
				  const char *origin)
{
	struct fetch_log *log;

	for (log = fetch->logs; log; log = log->next)
		if (strcmp(log->origin, origin) == 0)
			return log;
	if (fetch->n_logs == FETCH_LOGS_MAX)
		return NULL;
	log = calloc(1, sizeof(*log));
	if (!log)
		return NULL;
	log->state = calloc(1, sizeof(*log->state));
	if (!log->state || asprintf(&log->dir, "%s/%u", options->dir, fetch->n_logs + 1) < 0 ||
	    mkdir(log->dir, 0700) < 0) {
		free(log->state);
		free(log->dir);
		free(log);
		return NULL;
	}
	log->state->last = KIND_ENTRY;
	snprintf(log->origin, sizeof(log->origin), "%s", origin);
	log->next = fetch->logs;
	fetch->logs = log;
	fetch->n_logs++;
	return log;
}

static bool is_wanted(const struct fetch_options *options, const char *origin)
{
	return !options->origin || strncmp(origin, options->origin, strlen(options->origin)) == 0;
}

/* The number of entries that a notice replaces; group_notice() writes it canonically. */
static uint64_t skipped_entries(const char *data, size_t len)
{
	static const char key[] = "\"entries\":";
	const char *at = memmem(data, len, key, sizeof(key) - 1);
	uint64_t n = 0;

	if (!at)
		return 1;
	for (at += sizeof(key) - 1; at < data + len && *at >= '0' && *at <= '9'; at++)
		n = MIN(n * 10 + (uint64_t)(*at - '0'), (uint64_t)UINT32_MAX);
	return n;
}

/* For both modes: one line, or several lines that each end with '\n'. */
static int take_lines(struct fetch_log *log, const char *data, size_t len, uint64_t index)
{
	if (ends_with(data, len, SKIPPED_END)) {
		log->state->skipped_first = index;
		log->state->skipped_end = index + skipped_entries(data, len);
		return 0;
	}
	while (len > 0) {
		const char *newline = memchr(data, '\n', len);
		const size_t n = newline ? (size_t)(newline - data) : len;
		int r = add_line(log, data, n, index);

		if (r < 0)
			return r;
		index += kind_of(data, n) == KIND_ENTRY;
		data += n + (newline != NULL);
		len -= n + (newline != NULL);
	}
	return 0;
}

static int take_message(struct fetch *fetch, const struct fetch_options *options, natsMsg *msg)
{
	const char *origin = NULL, *index_text = NULL;
	struct fetch_log *log;
	uint64_t index;

	fetch->messages++;
	if (natsMsgHeader_Get(msg, "Cellos-Log", &origin) != NATS_OK ||
	    natsMsgHeader_Get(msg, "Cellos-Index", &index_text) != NATS_OK ||
	    !note_origin_valid(origin, strlen(origin)) ||
	    parse_u64(index_text, 0, TREE_SIZE_MAX, &index) < 0 ||
	    natsMsg_GetDataLength(msg) <= 0) {
		fetch->strange++;
		return 0;
	}
	if (!is_wanted(options, origin))
		return 0;
	log = find_log(fetch, options, origin);
	return log ? take_lines(log, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg),
				index)
		   : -ENOMEM;
}

/* ---- the stream ---- */

struct taking {
	struct fetch *fetch;
	const struct fetch_options *options;
};

static int take(void *ctx, natsMsg *msg, char why[PUBLISHER_WHY_MAX])
{
	const struct taking *t = ctx;
	int r = take_message(t->fetch, t->options, msg);

	if (r < 0)
		snprintf(why, PUBLISHER_WHY_MAX, "cannot keep what was read in %.200s: %s",
			 t->options->dir, strerror(-r));
	return r;
}

static int finish(struct fetch *fetch, char why[PUBLISHER_WHY_MAX])
{
	int r = 0;

	for (struct fetch_log *log = fetch->logs; log && r == 0; log = log->next) {
		while (log->state->n > log->state->first && r == 0)
			r = pass_hole(log);
		if (log->state->file && fclose(take_ptr(log->state->file)) == EOF && r == 0)
			r = -errno;
	}
	if (r < 0)
		snprintf(why, PUBLISHER_WHY_MAX, "cannot write a log: %s", strerror(-r));
	return r;
}

int fetch_run(const struct fetch_options *options, struct fetch *ret, char why[PUBLISHER_WHY_MAX])
{
	struct taking taking = {.fetch = ret, .options = options};
	const struct stream_reading reading = {.take = take, .ctx = &taking};
	int r;

	*ret = (struct fetch){0};
	r = stream_read(options->settings, &reading, why);
	return r < 0 ? r : finish(ret, why);
}
