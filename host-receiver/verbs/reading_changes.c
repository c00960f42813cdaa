/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/reading_changes.h"

#include "common/util.h"

#define NAME_MAX_BYTES 256u

struct reading_changes {
	json_t *last; /* "cell source" -> name -> value */
};

struct reading_changes *reading_changes_new(void)
{
	struct reading_changes *readings = calloc(1, sizeof(*readings));

	if (readings)
		readings->last = json_object();
	return readings;
}

void reading_changes_free(struct reading_changes *readings)
{
	if (!readings)
		return;
	json_decref(readings->last);
	free(readings);
}

/* One reading while it is compared. Values are flattened: "memory.events.oom" -> number or word. */
struct printing {
	json_t *before; /* name -> value; NULL: the first reading */
	json_t *now;
	void (*print)(const char *name, const char *text);
	bool any;
};

static void print(struct printing *p, const char *name, const char *text)
{
	p->print(name, text);
	p->any = true;
}

static const char *word(const json_t *value)
{
	return json_is_string(value) ? json_string_value(value)
	       : json_is_null(value) ? "none"
				     : "?";
}

static bool is_number(const json_t *value)
{
	return json_is_integer(value) || json_is_real(value);
}

static void print_number(struct printing *p, const char *name, const json_t *value,
			 const json_t *before)
{
	const double by = json_number_value(value) - (before ? json_number_value(before) : 0);
	char text[64];

	if (by == 0)
		return;
	snprintf(text, sizeof(text), "%+.0f", by);
	print(p, name, before ? text : text + 1);
}

static void print_leaf(struct printing *p, const char *name, json_t *value)
{
	json_t *before = p->before ? json_object_get(p->before, name) : NULL;
	char text[128];

	if (is_number(value) && (!before || is_number(before))) {
		print_number(p, name, value, before);
	} else if (!before && !json_is_null(value)) {
		print(p, name, word(value));
	} else if (before && strcmp(word(before), word(value)) != 0) {
		snprintf(text, sizeof(text), "%.50s -> %.50s", word(before), word(value));
		print(p, name, text);
	}
	json_object_set(p->now, name, value);
}

static void flatten(struct printing *p, const char *prefix, const json_t *value);

/* A rule of nftables is identified by its chain and handle. */
static void flatten_row(struct printing *p, const json_t *row)
{
	static const char *const counts[] = {"packets", "bytes"};
	char name[NAME_MAX_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		snprintf(name, sizeof(name), "%.100s#%lld.%s", word(json_object_get(row, "chain")),
			 (long long)json_number_value(json_object_get(row, "handle")), counts[i]);
		flatten(p, name, json_object_get(row, counts[i]));
	}
}

static void flatten(struct printing *p, const char *prefix, const json_t *value)
{
	char name[NAME_MAX_BYTES];
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach(value, i, member) flatten_row(p, member);
	} else if (json_is_object(value)) {
		json_object_foreach((json_t *)(uintptr_t)value, key, member)
		{
			/*
			 * Skip the VMM's last document, because the totals include it, and the
			 * numbers of the parts, because they are no values.
			 */
			if (strcmp(key, "metrics") == 0 || strncmp(key, "part", 4) == 0)
				continue;
			snprintf(name, sizeof(name), "%.120s%s%.120s", prefix, *prefix ? "." : "",
				 key);
			flatten(p, name, member);
		}
	} else if (value) {
		print_leaf(p, prefix, (json_t *)(uintptr_t)value);
	}
}

/* The key of a cell's readings: this text, a blank, and the probe. */
static size_t key_of(char key[NAME_MAX_BYTES], const char *cell_id)
{
	return (size_t)snprintf(key, NAME_MAX_BYTES, "%.128s ", cell_id);
}

void reading_changes_forget(struct reading_changes *readings, const char *cell_id)
{
	char prefix[NAME_MAX_BYTES];
	const size_t len = key_of(prefix, cell_id);
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(readings->last, next, key, value)
	{
		if (strncmp(key, prefix, len) == 0)
			json_object_del(readings->last, key);
	}
}

bool reading_changes_print(struct reading_changes *readings, const json_t *data,
			   void (*print_change)(const char *name, const char *text))
{
	char key[NAME_MAX_BYTES];
	struct printing p = {.print = print_change};
	const size_t len = key_of(key, word(json_object_get(data, "cellId")));

	snprintf(key + len, sizeof(key) - len, "%.64s", word(json_object_get(data, "probeSource")));
	p.before = json_object_get(readings->last, key);
	/* The parts of one reading are added to one set of values. */
	p.now = p.before ? json_copy(p.before) : json_object();
	flatten(&p, "", json_object_get(data, "output"));
	json_object_set_new(readings->last, key, p.now);
	return p.any;
}
