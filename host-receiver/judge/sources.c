/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/sources.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/evidence/segment.h"
#include "host-receiver/judge/walker.h"

static int fail(char *why, int r, const char *fmt, ...) _printf_(3, 4);

static int fail(char *why, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, SOURCES_WHY_MAX, fmt, ap);
	va_end(ap);
	return r;
}

static int no_memory(char *why)
{
	return fail(why, -ENOMEM, "no memory");
}

/* ---- the list ---- */

/* Takes path. */
static int add_file(struct sources *sources, char *path, bool listed, char *why)
{
	struct source *list =
		path ? reallocarray(sources->list, sources->n + 1, sizeof(*list)) : NULL;

	if (!list) {
		free(path);
		return no_memory(why);
	}
	sources->list = list;
	list[sources->n] = (struct source){
		.path = path, .order = sources->n, .group = sources->n, .listed = listed};
	sources->n++;
	return 0;
}

/* evidence-<number>.jsonl, and the same compressed. */
static int is_segment(const struct dirent *entry)
{
	static const char *const endings[] = {".gz", ".zst"};
	char name[SEGMENT_NAME_MAX + 4];
	uint64_t number;
	size_t len;

	if (snprintf(name, sizeof(name), "%s", entry->d_name) >= (int)sizeof(name))
		return 0;
	len = strlen(name);
	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		const size_t ending = strlen(endings[i]);

		if (len > ending && strcmp(name + len - ending, endings[i]) == 0)
			name[len - ending] = '\0';
	}
	return segment_parse_name(name, &number);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_folder(struct sources *sources, const char *path, char *why)
{
	struct dirent **entries;
	int n, r = 0;

	errno = 0;
	n = scandir(path, &entries, is_segment, by_name);
	if (n < 0)
		return fail(why, errno ? -errno : -ENOMEM, "%s: %s", path,
			    strerror(errno ? errno : ENOMEM));
	if (n == 0)
		sources->empty_folder = path;
	for (int i = 0; i < n; i++) {
		char *file = NULL;

		if (r == 0 && asprintf(&file, "%s/%s", path, entries[i]->d_name) < 0)
			file = NULL;
		if (r == 0)
			r = add_file(sources, file, true, why);
		free(entries[i]);
	}
	free(entries);
	return r;
}

int sources_add(struct sources *sources, const char *path, char why[SOURCES_WHY_MAX])
{
	struct stat st;

	if (strcmp(path, "-") != 0) {
		if (stat(path, &st) < 0)
			return fail(why, -errno, "%s: %s", path, strerror(errno));
		if (S_ISDIR(st.st_mode))
			return add_folder(sources, path, why);
	}
	return add_file(sources, strdup(path), false, why);
}

void sources_free(struct sources *sources)
{
	for (size_t i = 0; i < sources->n; i++) {
		free(sources->list[i].path);
		free(sources->list[i].origin);
	}
	free(sources->list);
	*sources = (struct sources){0};
}

uint64_t sources_bytes(const struct sources *sources)
{
	uint64_t bytes = 0;
	struct stat st;

	for (size_t i = 0; i < sources->n; i++)
		if (stat(sources->list[i].path, &st) == 0 && S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_size;
	return bytes;
}

/* ---- first lines ---- */

static int look_at(struct walker *walker, struct source *source, char *why)
{
	struct input_line line;
	struct line_facts facts;
	int r;

	if (strcmp(source->path, "-") == 0)
		return 0;
	r = walker_open(walker, source->path, why);
	if (r == -ENOENT && source->listed) {
		source->deleted = true;
		return 0;
	}
	if (r == 0)
		r = walker_next(walker, &line, &facts, why);
	if (r <= 0)
		return r;
	if (facts.class == CLASS_SEGMENT && facts.note.origin.len > 0) {
		source->first_index = facts.note.first_index;
		source->origin = strndup(facts.note.origin.data, facts.note.origin.len);
		if (!source->origin)
			return no_memory(why);
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (x->first_index != y->first_index)
		return x->first_index < y->first_index ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* What is deleted before it is read is as good as never listed. */
static void drop_deleted(struct sources *sources)
{
	size_t n = 0;

	for (size_t i = 0; i < sources->n; i++) {
		if (sources->list[i].deleted)
			free(sources->list[i].path);
		else
			sources->list[n++] = sources->list[i];
	}
	sources->changed = n < sources->n;
	sources->n = n;
}

int sources_order(struct sources *sources, char why[SOURCES_WHY_MAX])
{
	struct walker *walker = walker_new(NULL);
	size_t previous = 0;
	int r = walker ? 0 : no_memory(why);

	for (size_t i = 0; i < sources->n && r == 0; i++) {
		struct source *source = &sources->list[i];

		r = look_at(walker, source, why);
		if (r < 0 || !source->origin)
			continue;
		/* Most often the log of the file before. */
		if (!sources->list[previous].origin ||
		    strcmp(sources->list[previous].origin, source->origin) != 0)
			for (previous = 0; previous < i; previous++)
				if (sources->list[previous].origin &&
				    strcmp(sources->list[previous].origin, source->origin) == 0)
					break;
		source->group = sources->list[previous].group;
	}
	walker_free(walker);
	drop_deleted(sources);
	if (r == 0 && sources->n > 1)
		qsort(sources->list, sources->n, sizeof(*sources->list), compare);
	return r;
}

/* ---- reading again ---- */

struct earlier {
	struct tree_earlier face;
	const struct sources *sources;
	struct walker *walker;
	struct tree_hasher *hasher;
	size_t source;	/* that is open */
	uint64_t index; /* of the entry that comes next */
};

/* The first source of this log that begins with the largest index up to this one; n: none. */
static size_t find_source(const struct earlier *e, const char *origin, uint64_t index, bool exact)
{
	const struct sources *sources = e->sources;
	size_t found = sources->n;

	for (size_t i = 0; i < sources->n; i++) {
		const struct source *source = &sources->list[i];

		if (!source->origin || strcmp(source->origin, origin) != 0 ||
		    source->first_index > index || (exact && source->first_index != index))
			continue;
		if (found == sources->n || source->first_index > sources->list[found].first_index)
			found = i;
	}
	return found;
}

/* The next entry's leaf hash of the open source. 0: it ends. */
static int next_of_source(struct earlier *e, struct tree_hash *ret)
{
	char why[SOURCES_WHY_MAX];
	struct input_line line;
	struct line_facts facts;
	int r;

	for (;;) {
		r = walker_next(e->walker, &line, &facts, why);
		if (r <= 0)
			return r;
		if (facts.class == CLASS_SEGMENT || facts.class == CLASS_CHECKPOINT)
			continue;
		*ret = facts.leaf;
		e->index++;
		return 1;
	}
}

static int open_source(struct earlier *e, size_t source, struct line_facts *ret)
{
	const struct source *from = &e->sources->list[source];
	char why[SOURCES_WHY_MAX];
	struct input_line line;
	int r = walker_open(e->walker, from->path, why);

	if (r == -ENOENT && from->listed)
		return -ESTALE;
	if (r == 0)
		r = walker_next(e->walker, &line, ret, why);
	e->source = source;
	e->index = from->first_index;
	return r;
}

static int earlier_seek(void *data, const char *origin, uint64_t index, struct tree_frontier *ret)
{
	struct earlier *e = data;
	const size_t source = find_source(e, origin, index, false);
	struct line_facts facts;
	struct tree_hash leaf;
	int r;

	if (source == e->sources->n)
		return 0;
	r = open_source(e, source, &facts);
	if (r <= 0 || facts.class != CLASS_SEGMENT || facts.why)
		return MIN(r, 0);
	ret->size = facts.note.first_index;
	if (ret->size > 0)
		memcpy(ret->hashes, facts.note.frontier,
		       tree_frontier_count(ret->size) * sizeof(struct tree_hash));
	while (ret->size < index) {
		r = next_of_source(e, &leaf);
		if (r <= 0)
			return r;
		r = tree_frontier_append(e->hasher, ret, &leaf);
		if (r < 0)
			return r;
	}
	return 1;
}

static int earlier_next(void *data, struct tree_hash *ret)
{
	struct earlier *e = data;
	struct line_facts facts;
	size_t next;
	int r = next_of_source(e, ret);

	if (r != 0)
		return r;
	next = find_source(e, e->sources->list[e->source].origin, e->index, true);
	if (next == e->sources->n || next == e->source)
		return 0;
	r = open_source(e, next, &facts);
	return r <= 0 ? r : next_of_source(e, ret);
}

struct tree_earlier *sources_earlier_new(const struct sources *sources)
{
	struct earlier *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->sources = sources;
	e->walker = walker_new(NULL);
	e->hasher = tree_hasher_new();
	e->face = (struct tree_earlier){.data = e, .seek = earlier_seek, .next = earlier_next};
	if (!e->walker || !e->hasher) {
		sources_earlier_free(&e->face);
		return NULL;
	}
	return &e->face;
}

void sources_earlier_free(struct tree_earlier *earlier)
{
	struct earlier *e = (struct earlier *)earlier;

	if (!e)
		return;
	walker_free(e->walker);
	tree_hasher_free(e->hasher);
	free(e);
}
