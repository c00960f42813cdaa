/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/log_finder.h"

#include <stdarg.h>

#include "common/util.h"
#include "host-receiver/judge/walker.h"

struct log_finder {
	const struct sources *sources;
	const char *origin; /* borrowed from a source */
	struct walker *walker;
	struct tree_hasher *hasher;
	struct json_document *doc;
};

/* Callbacks for the lines of a log. Returning 1 ends the walk. */
struct visitor {
	void *data;
	/* The segment where the walk begins. */
	int (*begin)(void *data, const struct tree_frontier *base);
	int (*entry)(void *data, uint64_t index, const struct tree_hash *leaf,
		     const struct input_line *line);
	/*
	 * A checkpoint with the root of the tree; also the one in the first line of a further
	 * segment.
	 */
	int (*checkpoint)(void *data, const struct found_note *note);
};

static int fail(char *why, int r, const char *fmt, ...) _printf_(3, 4);

static int fail(char *why, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, FINDER_WHY_MAX, fmt, ap);
	va_end(ap);
	return r;
}

int log_finder_open(const struct sources *sources, const char *prefix, struct log_finder **ret,
		    char why[FINDER_WHY_MAX])
{
	const struct source *newest = NULL;
	struct log_finder *finder;

	for (size_t i = 0; i < sources->n; i++) {
		const struct source *source = &sources->list[i];

		if (source->origin && (!prefix || origin_has_prefix(source->origin, prefix)) &&
		    (!newest || source->order > newest->order))
			newest = source;
	}
	if (!newest)
		return fail(why, -ENOENT, "there is no log%s%s", prefix ? " with the origin " : "",
			    prefix ? prefix : "");
	finder = calloc(1, sizeof(*finder));
	if (!finder)
		return fail(why, -ENOMEM, "no memory");
	finder->sources = sources;
	finder->origin = newest->origin;
	finder->walker = walker_new(NULL);
	finder->hasher = tree_hasher_new();
	finder->doc = json_document_new(FACTS_LINE_MAX);
	if (!finder->walker || !finder->hasher || !finder->doc) {
		log_finder_close(finder);
		return fail(why, -ENOMEM, "no memory");
	}
	*ret = finder;
	return 0;
}

void log_finder_close(struct log_finder *finder)
{
	if (!finder)
		return;
	json_document_free(finder->doc);
	tree_hasher_free(finder->hasher);
	walker_free(finder->walker);
	free(finder);
}

/* ---- walking ---- */

static bool is_ours(const struct log_finder *finder, const struct source *source)
{
	return source->origin && strcmp(source->origin, finder->origin) == 0;
}

/* The last source that begins at or before this index; n: there is none. */
static size_t source_of(const struct log_finder *finder, uint64_t index)
{
	size_t found = finder->sources->n;

	for (size_t i = 0; i < finder->sources->n; i++)
		if (is_ours(finder, &finder->sources->list[i]) &&
		    finder->sources->list[i].first_index <= index)
			found = i;
	return found;
}

/* Copy the text of the note from the line. Returns 1, 0 if there is none, or -ENOMEM. */
static int read_note(struct log_finder *finder, const struct input_line *line,
		     struct found_note *ret)
{
	const struct json_node *data;
	const char *why;
	struct wire_text text;
	struct note note;
	int r = json_document_try(finder->doc, line->data, line->len);

	if (r <= 0)
		return r;
	data = json_member(finder->doc, json_document_root(finder->doc), "data");
	if (!json_member_string(finder->doc, data, "checkpoint", &text) ||
	    note_parse(text.data, text.len, &note, &why) < 0)
		return 0;
	ret->checkpoint = note.checkpoint;
	ret->len = text.len;
	memcpy(ret->text, text.data, text.len);
	ret->text[text.len] = '\0';
	return 1;
}

static int meet_note(struct log_finder *finder, const struct visitor *visitor,
		     const struct input_line *line, const struct tree_frontier *frontier, char *why)
{
	struct found_note note;
	struct tree_hash root;
	int r;

	if (!visitor->checkpoint)
		return 0;
	r = read_note(finder, line, &note);
	if (r <= 0)
		return r < 0 ? fail(why, r, "no memory") : 0;
	r = tree_frontier_root(finder->hasher, frontier, &root);
	if (r < 0)
		return fail(why, r, "cannot hash");
	if (note.checkpoint.size != frontier->size ||
	    !tree_hash_equal(&note.checkpoint.root, &root))
		return fail(why, -EBADMSG,
			    "the checkpoint of %" PRIu64
			    " %s is not of the entries that stand before it; verify says more",
			    note.checkpoint.size, plural(note.checkpoint.size, "entry", "entries"));
	return visitor->checkpoint(visitor->data, &note);
}

static int meet_entry(struct log_finder *finder, const struct visitor *visitor,
		      const struct line_facts *facts, const struct input_line *line,
		      struct tree_frontier *frontier, char *why)
{
	int r = tree_frontier_append(finder->hasher, frontier, &facts->leaf);

	if (r < 0)
		return fail(why, r, "cannot hash");
	if (!visitor->entry)
		return 0;
	r = visitor->entry(visitor->data, frontier->size - 1, &facts->leaf, line);
	return r == -ENOMEM ? fail(why, r, "no memory") : r;
}

/* Walk through the rest of the open source. Returns 1 when the visitor ends the walk. */
static int walk_source(struct log_finder *finder, const struct visitor *visitor,
		       struct tree_frontier *frontier, char *why)
{
	struct input_line line;
	struct line_facts facts;
	int r;

	for (;;) {
		r = walker_next(finder->walker, &line, &facts, why);
		if (r <= 0)
			return r;
		/* The writer has not finished this line yet. */
		if (line.cut)
			return 0;
		if (facts.class == CLASS_CHECKPOINT)
			r = meet_note(finder, visitor, &line, frontier, why);
		else if (facts.class == CLASS_SEGMENT)
			r = fail(why, -EBADMSG, "a segment line stands in the middle of a segment");
		else
			r = meet_entry(finder, visitor, &facts, &line, frontier, why);
		if (r != 0)
			return r;
	}
}

/* Opens a source and reads its segment line. Returns 0, or a negative errno. */
static int open_source(struct log_finder *finder, size_t source, struct input_line *line,
		       struct tree_frontier *ret, char *why)
{
	const struct source *from = &finder->sources->list[source];
	struct line_facts facts;
	int r = walker_open(finder->walker, from->path, why);

	if (r == -ENOENT && from->listed)
		return -ESTALE;
	if (r == 0)
		r = walker_next(finder->walker, line, &facts, why);
	if (r < 0)
		return r;
	if (r == 0 || facts.class != CLASS_SEGMENT || facts.why)
		return fail(why, -EBADMSG, "%s: %s", from->path,
			    r > 0 && facts.why ? facts.why : "its first line is no segment line");
	ret->size = facts.note.first_index;
	if (ret->size > 0)
		memcpy(ret->hashes, facts.note.frontier,
		       tree_frontier_count(ret->size) * sizeof(struct tree_hash));
	return 0;
}

static int walk(struct log_finder *finder, size_t source, const struct visitor *visitor, char *why)
{
	struct tree_frontier frontier, next;
	struct input_line line;
	int r = open_source(finder, source, &line, &frontier, why);

	if (r == 0 && visitor->begin)
		r = visitor->begin(visitor->data, &frontier);
	if (r == 0)
		r = meet_note(finder, visitor, &line, &frontier, why);
	if (r == 0)
		r = walk_source(finder, visitor, &frontier, why);
	for (source++; r == 0 && source < finder->sources->n; source++) {
		/* Another file is a copy of entries that were read already. */
		if (!is_ours(finder, &finder->sources->list[source]) ||
		    finder->sources->list[source].first_index < frontier.size)
			continue;
		r = open_source(finder, source, &line, &next, why);
		if (r == 0 && next.size != frontier.size)
			r = fail(why, -EBADMSG, "entries %" PRIu64 "..%" PRIu64 " are missing",
				 frontier.size, next.size - 1);
		if (r == 0)
			r = meet_note(finder, visitor, &line, &frontier, why);
		if (r == 0)
			r = walk_source(finder, visitor, &frontier, why);
	}
	return r < 0 ? r : 0;
}

/* ---- the newest checkpoint ---- */

static int keep_note(void *data, const struct found_note *note)
{
	*(struct found_note *)data = *note;
	return 0;
}

int log_finder_newest(struct log_finder *finder, struct found_note *ret, char why[FINDER_WHY_MAX])
{
	const struct visitor visitor = {.data = ret, .checkpoint = keep_note};
	int r = 0;

	ret->len = 0;
	/* The last segment may end before its first checkpoint. */
	for (size_t i = finder->sources->n; i > 0 && r == 0 && ret->len == 0; i--)
		if (is_ours(finder, &finder->sources->list[i - 1]))
			r = walk(finder, i - 1, &visitor, why);
	if (r == 0 && ret->len == 0)
		return fail(why, -ENODATA, "log %s has no checkpoint yet", finder->origin);
	return r;
}

/* ---- an entry ---- */

struct search {
	struct log_finder *finder;
	const char *id;
	uint64_t index;
	bool found;
};

static int match_id(void *data, uint64_t index, const struct tree_hash *leaf,
		    const struct input_line *line)
{
	struct search *search = data;
	struct json_document *doc = search->finder->doc;
	struct wire_text id;
	int r;

	(void)leaf;
	if (!memmem(line->data, line->len, search->id, strlen(search->id)))
		return 0;
	r = json_document_try(doc, line->data, line->len);
	if (r <= 0)
		return r;
	if (!json_member_string(doc, json_document_root(doc), "id", &id) ||
	    !json_text_is(id, search->id))
		return 0;
	search->index = index;
	search->found = true;
	return 1;
}

int log_finder_index(struct log_finder *finder, const char *id, uint64_t *ret,
		     char why[FINDER_WHY_MAX])
{
	struct search search = {.finder = finder, .id = id};
	const struct visitor visitor = {.data = &search, .entry = match_id};
	size_t first = 0;
	int r;

	while (!is_ours(finder, &finder->sources->list[first]))
		first++;
	r = walk(finder, first, &visitor, why);
	if (r < 0)
		return r;
	if (!search.found)
		return fail(why, -ENOENT, "log %s has no event %s", finder->origin, id);
	*ret = search.index;
	return 0;
}

/* ---- proofs ---- */

struct proving {
	struct log_finder *finder;
	uint64_t index; /* of the entry, or the old size */
	bool consistency;
	uint64_t size; /* of the tree that the proof is for */
	struct tree_prover prover;
	struct found_entry *entry;
	struct found_note *note;
	bool have_entry;
	int error;
};

static int find_entry(void *data, uint64_t index, const struct tree_hash *leaf,
		      const struct input_line *line)
{
	struct proving *p = data;

	(void)leaf;
	if (index != p->index)
		return 0;
	p->entry->index = index;
	p->entry->len = line->len;
	memcpy(p->entry->data, line->data, line->len);
	p->have_entry = true;
	return 0;
}

static int find_cover(void *data, const struct found_note *note)
{
	struct proving *p = data;

	if (note->checkpoint.size <= p->index)
		return 0;
	*p->note = *note;
	return 1;
}

static int begin_proof(void *data, const struct tree_frontier *base)
{
	struct proving *p = data;

	p->error = p->consistency ? tree_prover_begin_consistency(p->finder->hasher, &p->prover,
								  p->index, p->size, base)
				  : tree_prover_begin_inclusion(p->finder->hasher, &p->prover,
								p->index, p->size, base);
	return p->error < 0;
}

static int add_leaf(void *data, uint64_t index, const struct tree_hash *leaf,
		    const struct input_line *line)
{
	struct proving *p = data;

	(void)line;
	if (index + 1 > p->size)
		return 1;
	p->error = tree_prover_add(p->finder->hasher, &p->prover, leaf);
	return p->error < 0 || tree_prover_done(&p->prover);
}

static int prove(struct proving *p, size_t source, struct tree_proof *ret, char *why)
{
	const struct visitor visitor = {.data = p, .begin = begin_proof, .entry = add_leaf};
	int r = walk(p->finder, source, &visitor, why);

	if (r < 0)
		return r;
	if (p->error < 0 || !tree_prover_done(&p->prover))
		return fail(why, p->error < 0 ? p->error : -ENODATA,
			    "what is left of log %s is not enough for this proof",
			    p->finder->origin);
	*ret = p->prover.proof;
	return 0;
}

int log_finder_inclusion(struct log_finder *finder, uint64_t index, struct found_entry *ret_entry,
			 struct found_note *ret_note, struct tree_proof *ret_proof,
			 char why[FINDER_WHY_MAX])
{
	struct proving p = {.finder = finder, .index = index, .entry = ret_entry, .note = ret_note};
	const struct visitor visitor = {.data = &p, .entry = find_entry, .checkpoint = find_cover};
	const size_t source = source_of(finder, index);
	int r;

	if (source == finder->sources->n)
		return fail(why, -ENOENT, "log %s has no entry %" PRIu64 " any more",
			    finder->origin, index);
	ret_note->len = 0;
	r = walk(finder, source, &visitor, why);
	if (r < 0)
		return r;
	if (!p.have_entry || ret_note->len == 0)
		return fail(why, -ENOENT,
			    p.have_entry ? "no checkpoint of log %s covers entry %" PRIu64 " yet"
					 : "log %s has no entry %" PRIu64,
			    finder->origin, index);
	p.size = ret_note->checkpoint.size;
	return prove(&p, source, ret_proof, why);
}

int log_finder_consistency(struct log_finder *finder, const struct note_checkpoint *old,
			   struct found_note *ret_note, struct tree_proof *ret_proof,
			   char why[FINDER_WHY_MAX])
{
	struct proving p = {.finder = finder, .index = old->size, .consistency = true};
	const struct note_checkpoint *new = &ret_note->checkpoint;
	size_t source;
	int r = log_finder_newest(finder, ret_note, why);

	if (r < 0)
		return r;
	if (strcmp(old->origin, finder->origin) != 0 || old->size > new->size)
		return fail(why, -EBADMSG, "log %s of %" PRIu64 " %s does not extend it",
			    finder->origin, new->size, plural(new->size, "entry", "entries"));
	p.size = new->size;
	source = source_of(finder, old->size);
	if (source == finder->sources->n)
		return fail(why, -ENODATA,
			    "log %s begins after it: a proof needs the entries that were pruned",
			    finder->origin);
	r = prove(&p, source, ret_proof, why);
	if (r < 0)
		return r;
	r = tree_check_consistency(finder->hasher, old->size, &old->root, new->size, &new->root,
				   ret_proof);
	return r < 0 ? fail(why, r, "log %s does not extend it: it was rewritten", finder->origin)
		     : 0;
}
