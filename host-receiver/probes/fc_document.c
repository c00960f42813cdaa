/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/fc_document.h"

#include "common/util.h"

struct adding {
	const struct json_document *sums, *doc;
	struct json_writer *w;
	const char *what;
};

static bool text_is(struct wire_text text, const char *s)
{
	return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}

static bool starts_with(struct wire_text text, const char *s)
{
	return text.len >= strlen(s) && memcmp(text.data, s, strlen(s)) == 0;
}

/*
 * These are last values and not counts (logger/metrics.rs: SharedStoreMetric), so a sum of them has
 * no meaning.
 */
static bool is_stored(struct wire_text device, struct wire_text name)
{
	if (text_is(device, "latencies_us"))
		return true;
	if (text_is(device, "signals"))
		return !text_is(name, "sigpipe");
	return (text_is(device, "api_server") && starts_with(name, "process_startup_time")) ||
	       (text_is(device, "seccomp") && text_is(name, "num_faults")) ||
	       (text_is(device, "vmm") && text_is(name, "panic_count")) ||
	       text_is(name, "min_us") || text_is(name, "max_us");
}

static bool read_count(const struct json_node *node, uint64_t *ret)
{
	char digits[24];

	if (node->text.len >= sizeof(digits))
		return false;
	memcpy(digits, node->text.data, node->text.len);
	digits[node->text.len] = '\0';
	return parse_u64(digits, 0, UINT64_MAX, ret) == 0;
}

static const struct json_node *next_of(const struct json_document *doc,
				       const struct json_node *node)
{
	return node ? json_sibling(doc, node) : NULL;
}

static bool add_objects(struct adding *a, const struct json_node *sum, const struct json_node *node,
			struct wire_text device);

/* A counter that both documents may have; false: it is not an unsigned number. */
static bool add_counts(struct adding *a, const struct json_node *sum, const struct json_node *node)
{
	uint64_t x = 0, y = 0, both;

	if ((sum && (sum->type != JSON_INTEGER_NODE || !read_count(sum, &x))) ||
	    (node && !read_count(node, &y))) {
		a->what = "a counter is not an unsigned 64-bit number";
		return false;
	}
	json_put_key_text(a->w, node ? node->key : sum->key);
	json_put_uint(a->w, __builtin_add_overflow(x, y, &both) ? UINT64_MAX : both);
	return true;
}

/* Add one member of a metric to the sums. It may be in the sums, in the document, or in both. */
static bool add_member(struct adding *a, const struct json_node *sum, const struct json_node *node,
		       struct wire_text device)
{
	const struct json_node *any = node ? node : sum;

	if (any->type == JSON_OBJECT_NODE) {
		if (sum && sum->type != JSON_OBJECT_NODE) {
			a->what = "a counter became an object";
			return false;
		}
		json_put_key_text(a->w, any->key);
		return add_objects(a, sum, node, device.len ? device : any->key);
	}
	/* Members outside of any device: the time stamp and names. They are no counts. */
	if (any->type == JSON_INTEGER_NODE && device.len > 0 && !is_stored(device, any->key))
		return add_counts(a, sum, node);
	if (!sum)
		return true;
	json_put_key_text(a->w, sum->key);
	json_write_canonical(a->sums, sum, a->w);
	return true;
}

/* Both have their members in canonical order, and so does the result. */
static bool add_objects(struct adding *a, const struct json_node *sum, const struct json_node *node,
			struct wire_text device)
{
	const struct json_node *x = sum ? json_child(a->sums, sum) : NULL;
	const struct json_node *y = node ? json_child(a->doc, node) : NULL;

	json_put_begin_object(a->w);
	while (x || y) {
		const int order = !x ? 1 : !y ? -1 : json_compare_keys(x->key, y->key);

		if (!add_member(a, order <= 0 ? x : NULL, order >= 0 ? y : NULL, device))
			return false;
		if (order <= 0)
			x = next_of(a->sums, x);
		if (order >= 0)
			y = next_of(a->doc, y);
	}
	json_put_end_object(a->w);
	return true;
}

void fc_totals_done(struct fc_totals *totals)
{
	free(totals->json);
	*totals = (struct fc_totals){0};
}

int fc_totals_add(struct fc_totals *totals, const struct json_document *doc,
		  struct json_document *scratch, const char **ret_what)
{
	static const char nothing[] = "{}";
	const char *json = totals->json ? totals->json : nothing;
	_cleanup_free_ char *sums = malloc(FC_DOCUMENT_MAX);
	struct json_writer w;
	struct adding a = {.sums = scratch, .doc = doc, .w = &w};
	size_t offset, len;
	char *copy;
	int r;

	if (!sums)
		return -ENOMEM;
	r = json_document_read(scratch, json, totals->json ? totals->len : strlen(nothing),
			       ret_what, &offset);
	if (r < 0)
		return r;
	json_writer_init(&w, sums, FC_DOCUMENT_MAX);
	if (!add_objects(&a, json_document_root(scratch), json_document_root(doc),
			 (struct wire_text){0})) {
		*ret_what = a.what;
		return -EBADMSG;
	}
	if (json_writer_done(&w, &len) < 0)
		return -EFBIG;
	copy = malloc(len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, sums, len);
	free(totals->json);
	totals->json = copy;
	totals->len = len;
	return 0;
}
