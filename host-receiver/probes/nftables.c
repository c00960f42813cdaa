/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/nftables.h"

#include <nftables/libnftables.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/probes/nft_rule.h"

#define FAMILY_MAX 8u

struct row {
	const struct json_node *rule;	 /* the document's */
	const struct json_node *counter; /* an object with packets and bytes */
};

struct table {
	struct wire_text family, name;
	size_t first, n; /* of the rows */
};

/* A counter of its own, that rules name. */
struct named {
	struct table of;
	struct wire_text name;
	const struct json_node *counter;
};

struct nft_ruleset {
	uint64_t taken_ns;
	struct json_document *doc;
	char *json;	      /* what doc borrows */
	struct table *tables; /* sorted */
	size_t n_tables;
	struct named *named; /* sorted */
	size_t n_named;
	struct row *rows; /* sorted by table, in the ruleset's order */
};

struct nft_probe {
	char family[FAMILY_MAX];
	char table[];
};

/* ---- the option ---- */

bool nft_table_parse(const char *text, char ret_family[8], char ret_table[NFT_TABLE_MAX + 1])
{
	static const char *const families[] = {"ip", "ip6", "inet", "arp", "bridge", "netdev"};
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789_.-";
	const char *slash = strchr(text, '/'), *table = slash ? slash + 1 : text;
	const size_t len = strlen(table);
	bool known = !slash;

	for (size_t i = 0; slash && i < ARRAY_SIZE(families); i++)
		if (strlen(families[i]) == (size_t)(slash - text) &&
		    memcmp(families[i], text, (size_t)(slash - text)) == 0) {
			strcpy(ret_family, families[i]);
			known = true;
		}
	if (!slash)
		strcpy(ret_family, families[0]);
	if (!known || len < 1 || len > NFT_TABLE_MAX || strspn(table, allowed) != len)
		return false;
	strcpy(ret_table, table);
	return true;
}

/* ---- the ruleset ---- */

static int compare_text(struct wire_text a, struct wire_text b)
{
	const int r = memcmp(a.data, b.data, MIN(a.len, b.len));

	return r ? r : (a.len > b.len) - (a.len < b.len);
}

static int compare_tables(const void *a, const void *b)
{
	const struct table *x = a, *y = b;
	const int r = compare_text(x->family, y->family);

	return r ? r : compare_text(x->name, y->name);
}

/* Where in the ruleset something is; false: it does not say. */
static bool table_of(const struct json_document *doc, const struct json_node *node,
		     const char *name_key, struct table *ret)
{
	*ret = (struct table){0};
	return json_member_string(doc, node, "family", &ret->family) &&
	       json_member_string(doc, node, name_key, &ret->name);
}

/* Something of the ruleset, {"rule": {..}} and the like, if it is of this kind. */
static const struct json_node *item(const struct json_document *doc, const struct json_node *node,
				    const char *kind)
{
	return json_member(doc, node, kind);
}

static const struct json_node *items(const struct nft_ruleset *r)
{
	const struct json_node *all = json_member(r->doc, json_document_root(r->doc), "nftables");

	return all && all->type == JSON_ARRAY_NODE ? json_child(r->doc, all) : NULL;
}

static struct table *find_table(const struct nft_ruleset *r, const struct table *key)
{
	return bsearch(key, r->tables, r->n_tables, sizeof(*r->tables), compare_tables);
}

static int compare_named(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	const int r = compare_tables(&x->of, &y->of);

	return r ? r : compare_text(x->name, y->name);
}

/* What the rule counts in, or NULL. */
static const struct json_node *counter_of(const struct nft_ruleset *r, const struct json_node *rule,
					  const struct table *table)
{
	const struct json_node *expr = json_member(r->doc, rule, "expr");

	for (const struct json_node *n = expr ? json_child(r->doc, expr) : NULL; n;
	     n = json_sibling(r->doc, n)) {
		const struct json_node *counter = json_member(r->doc, n, "counter");

		if (counter && counter->type == JSON_OBJECT_NODE)
			return counter;
		if (counter && counter->type == JSON_STRING_NODE) {
			const struct named key = {.of = *table, .name = counter->text};
			const struct named *found = bsearch(&key, r->named, r->n_named,
							    sizeof(*r->named), compare_named);

			return found ? found->counter : NULL;
		}
	}
	return NULL;
}

struct found {
	size_t table, order;
	struct row row;
};

static int compare_found(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static size_t count_items(const struct nft_ruleset *r)
{
	size_t n = 0;

	for (const struct json_node *i = items(r); i; i = json_sibling(r->doc, i))
		n++;
	return n;
}

static void index_names(struct nft_ruleset *r)
{
	for (const struct json_node *n = items(r); n; n = json_sibling(r->doc, n)) {
		const struct json_node *table = item(r->doc, n, "table");
		const struct json_node *counter = item(r->doc, n, "counter");
		struct named *named = &r->named[r->n_named];

		if (table && table_of(r->doc, table, "name", &r->tables[r->n_tables]))
			r->n_tables++;
		named->counter = counter;
		if (counter && table_of(r->doc, counter, "table", &named->of) &&
		    json_member_string(r->doc, counter, "name", &named->name))
			r->n_named++;
	}
	qsort(r->tables, r->n_tables, sizeof(*r->tables), compare_tables);
	qsort(r->named, r->n_named, sizeof(*r->named), compare_named);
}

static size_t find_rows(const struct nft_ruleset *r, struct found *found)
{
	size_t n_found = 0;

	for (const struct json_node *n = items(r); n; n = json_sibling(r->doc, n)) {
		const struct json_node *rule = item(r->doc, n, "rule"), *counter;
		const struct table *table;
		struct table key;

		if (!rule || !table_of(r->doc, rule, "table", &key))
			continue;
		table = find_table(r, &key);
		counter = counter_of(r, rule, &key);
		if (!table || !counter)
			continue;
		found[n_found] = (struct found){
			.table = (size_t)(table - r->tables),
			.order = n_found,
			.row = {.rule = rule, .counter = counter},
		};
		n_found++;
	}
	qsort(found, n_found, sizeof(*found), compare_found);
	return n_found;
}

/* The tables, and the rows of each together. */
static int index_ruleset(struct nft_ruleset *r)
{
	const size_t max = count_items(r) + 1;
	_cleanup_free_ struct found *found = calloc(max, sizeof(*found));
	size_t n_found;

	r->tables = calloc(max, sizeof(*r->tables));
	r->named = calloc(max, sizeof(*r->named));
	r->rows = calloc(max, sizeof(*r->rows));
	if (!found || !r->tables || !r->named || !r->rows)
		return -ENOMEM;
	index_names(r);
	n_found = find_rows(r, found);
	for (size_t i = 0; i < n_found; i++) {
		struct table *table = &r->tables[found[i].table];

		if (table->n++ == 0)
			table->first = i;
		r->rows[i] = found[i].row;
	}
	return 0;
}

int nft_ruleset_parse(const char *json, size_t len, uint64_t taken_ns, struct nft_ruleset **ret,
		      char why[PROBE_WHY_MAX])
{
	struct nft_ruleset *ruleset = calloc(1, sizeof(*ruleset));
	const char *what;
	size_t offset;
	int r = -ENOMEM;

	if (len > NFT_DUMP_MAX) {
		free(ruleset);
		snprintf(why, PROBE_WHY_MAX, "nft list ruleset: more than %u MiB of JSON",
			 NFT_DUMP_MAX >> 20);
		return -EFBIG;
	}
	if (ruleset) {
		ruleset->taken_ns = taken_ns;
		ruleset->json = malloc(len + 1);
		ruleset->doc = json_document_new(len);
	}
	if (ruleset && ruleset->json && ruleset->doc) {
		memcpy(ruleset->json, json, len);
		r = json_document_read(ruleset->doc, ruleset->json, len, &what, &offset);
		if (r == -EBADMSG)
			snprintf(why, PROBE_WHY_MAX,
				 "nft list ruleset: its JSON is wrong at byte %zu: %s", offset,
				 what);
	}
	if (r == 0)
		r = index_ruleset(ruleset);
	if (r < 0) {
		nft_ruleset_free(ruleset);
		return r;
	}
	*ret = ruleset;
	return 0;
}

void nft_ruleset_free(struct nft_ruleset *r)
{
	if (!r)
		return;
	json_document_free(r->doc);
	free(r->json);
	free(r->tables);
	free(r->named);
	free(r->rows);
	free(r);
}

/* The first line of what libnftables says. */
static int explain_dump(struct nft_ctx *nft, char why[PROBE_WHY_MAX])
{
	const char *text = nft_ctx_get_error_buffer(nft);
	int len = text ? (int)strcspn(text, "\n") : 0;

	while (len > 0 && text[len - 1] == ' ')
		len--;
	snprintf(why, PROBE_WHY_MAX, "nft list ruleset: %.*s%s", MIN(len, 200), len ? text : "",
		 len ? "" : "refused; CAP_NET_ADMIN is needed");
	return -EIO;
}

int nft_ruleset_dump(struct nft_ruleset **ret, char why[PROBE_WHY_MAX])
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	const uint64_t now_ns = monotonic_ns();
	int r = -ENOMEM;

	if (!nft) {
		snprintf(why, PROBE_WHY_MAX, "libnftables cannot start: %s", strerror(errno));
		return -EIO;
	}
	/* Terse: without the elements of sets, which are no counters and may be many. */
	nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_HANDLE |
					      NFT_CTX_OUTPUT_TERSE);
	if (nft_ctx_buffer_output(nft) == 0 && nft_ctx_buffer_error(nft) == 0) {
		if (nft_run_cmd_from_buffer(nft, "list ruleset") == 0) {
			const char *json = nft_ctx_get_output_buffer(nft);

			r = nft_ruleset_parse(json, strlen(json), now_ns, ret, why);
		} else {
			r = explain_dump(nft, why);
		}
	}
	nft_ctx_free(nft);
	return r;
}

/* ---- a cell's reading ---- */

/* libnftables writes the kernel's unsigned numbers as signed ones (json_pack's "I"). */
static uint64_t count(const struct json_document *doc, const struct json_node *counter,
		      const char *key)
{
	const struct json_node *node = json_member(doc, counter, key);
	char digits[24];

	if (!node || node->type != JSON_INTEGER_NODE || node->text.len >= sizeof(digits))
		return 0;
	memcpy(digits, node->text.data, node->text.len);
	digits[node->text.len] = '\0';
	return *digits == '-' ? (uint64_t)strtoll(digits, NULL, 10) : strtoull(digits, NULL, 10);
}

static void put_row(const struct nft_ruleset *r, const struct table *table, const struct row *row,
		    struct json_writer *w)
{
	struct wire_text chain = wire_text("");
	char rule[NFT_RULE_MAX];
	uint64_t handle = 0;

	json_member_string(r->doc, row->rule, "chain", &chain);
	json_member_uint(r->doc, row->rule, "handle", &handle);
	json_put_begin_object(w);
	json_put_kv_uint(w, "bytes", count(r->doc, row->counter, "bytes"));
	json_put_kv_text(w, "chain", chain);
	json_put_kv_text(w, "family", table->family);
	json_put_kv_uint(w, "handle", handle);
	json_put_kv_uint(w, "packets", count(r->doc, row->counter, "packets"));
	json_put_key(w, "ruleRepr");
	json_put_string(w, rule,
			nft_rule_format(r->doc, json_member(r->doc, row->rule, "expr"), rule));
	json_put_kv_text(w, "table", table->name);
	json_put_end_object(w);
}

/* Where the parts of a reading are. */
struct cursor {
	const struct nft_ruleset *ruleset;
	const struct table *table;
	size_t next; /* row of the table */
};

static void rewind_rows(void *ctx)
{
	((struct cursor *)ctx)->next = 0;
}

static enum probe_part put_rows(void *ctx, size_t part, size_t parts, struct json_writer *w)
{
	struct cursor *c = ctx;
	const size_t first = c->next;

	json_put_begin_object(w);
	probe_part_number(w, part, parts);
	json_put_key(w, "rows");
	json_put_begin_array(w);
	for (; c->next < c->table->n; c->next++) {
		const struct json_writer before = *w;

		put_row(c->ruleset, c->table, &c->ruleset->rows[c->table->first + c->next], w);
		if (probe_part_full(w)) {
			*w = before;
			break;
		}
	}
	json_put_end_array(w);
	json_put_end_object(w);
	if (c->next == c->table->n)
		return PROBE_PART_LAST;
	return c->next > first ? PROBE_PART_MORE : PROBE_PART_STUCK;
}

int nft_ruleset_reading(const struct nft_ruleset *r, const struct probe *probe,
			struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	const struct nft_probe *own = (const struct nft_probe *)probe;
	const struct table key = {.family = wire_text(own->family), .name = wire_text(own->table)};
	const struct table *table = find_table(r, &key);
	struct probe_reading reading = {.taken_ns = r->taken_ns};
	struct cursor cursor = {.ruleset = r, .table = table};
	int error = 0;

	if (!table) {
		snprintf(why, PROBE_WHY_MAX, "nft table %s %s: not in the ruleset", own->family,
			 own->table);
		return -ENOENT;
	}
	/* Both names were checked: they need no escape. */
	if (asprintf(&reading.inputs, "{\"family\":\"%s\",\"table\":\"%s\"}", own->family,
		     own->table) < 0) {
		reading.inputs = NULL;
		error = -ENOMEM;
	}
	if (error == 0)
		error = probe_reading_put(&reading, put_rows, rewind_rows, &cursor);
	if (error < 0) {
		if (error == -EFBIG)
			snprintf(why, PROBE_WHY_MAX,
				 "nft table %s %s: its %zu rules with counters are more than %u "
				 "lines of evidence hold",
				 own->family, own->table, table->n, PROBE_PARTS_MAX);
		probe_reading_done(&reading);
		return error;
	}
	for (size_t i = 0; i < table->n; i++)
		reading.packets += count(r->doc, r->rows[table->first + i].counter, "packets");
	*ret = reading;
	return 1;
}

/* ---- the probe ---- */

static bool wanted(const struct probe_options *options)
{
	return options->nft_table != NULL;
}

static struct probe *open_probe(const struct probe_options *options)
{
	char family[FAMILY_MAX], table[NFT_TABLE_MAX + 1];
	struct nft_probe *probe;

	if (!nft_table_parse(options->nft_table, family, table))
		return NULL;
	probe = malloc(sizeof(*probe) + strlen(table) + 1);
	if (probe) {
		strcpy(probe->family, family);
		strcpy(probe->table, table);
	}
	return (struct probe *)probe;
}

static void close_probe(struct probe *probe)
{
	free(probe);
}

const struct probe_ops probe_nftables = {
	.name = "nftables",
	.source = "host.nftables",
	.needs = "CAP_NET_ADMIN, in the network namespace of the table",
	.event = EVENT_HOST_NFTABLES,
	.wanted = wanted,
	.open = open_probe,
	.close = close_probe,
};
