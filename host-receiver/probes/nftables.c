/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/nftables.h"

#include <nftables/libnftables.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/probes/nft_rule.h"

#define FAMILY_MAX 8u

struct nft_probe {
	struct nft_listing listing;
	uint64_t table_handle; /* of the table in the listing */
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

/* ---- how rules read ---- */

void nft_listing_done(struct nft_listing *listing)
{
	for (size_t i = 0; i < listing->n; i++)
		free(listing->rules[i].text);
	free(listing->rules);
	*listing = (struct nft_listing){0};
}

static int compare_listed(const void *a, const void *b)
{
	const struct nft_listed *x = a, *y = b;

	return x->handle < y->handle ? -1 : x->handle > y->handle;
}

const char *nft_listing_find(const struct nft_listing *listing, uint64_t handle)
{
	const struct nft_listed key = {.handle = handle};
	const struct nft_listed *found =
		listing->n ? bsearch(&key, listing->rules, listing->n, sizeof(key), compare_listed)
			   : NULL;

	return found ? found->text : NULL;
}

static int take_rule(struct nft_listing *listing, const struct json_document *doc,
		     const struct json_node *rule)
{
	char text[NFT_RULE_MAX];
	struct nft_listed *listed = &listing->rules[listing->n];
	size_t len;

	if (!json_member_uint(doc, rule, "handle", &listed->handle))
		return 0;
	len = nft_rule_format(doc, json_member(doc, rule, "expr"), text);
	listed->text = strndup(text, len);
	if (!listed->text)
		return -ENOMEM;
	listing->n++;
	return 0;
}

static int take_rules(struct nft_listing *listing, const struct json_document *doc)
{
	const struct json_node *all = json_member(doc, json_document_root(doc), "nftables");
	const struct json_node *first =
		all && all->type == JSON_ARRAY_NODE ? json_child(doc, all) : NULL;
	size_t n = 0;

	for (const struct json_node *i = first; i; i = json_sibling(doc, i))
		n++;
	listing->rules = calloc(n + 1, sizeof(*listing->rules));
	if (!listing->rules)
		return -ENOMEM;
	for (const struct json_node *i = first; i; i = json_sibling(doc, i)) {
		const struct json_node *table = json_member(doc, i, "table");
		const struct json_node *rule = json_member(doc, i, "rule");

		if (table)
			json_member_uint(doc, table, "handle", &listing->table_handle);
		if (rule && take_rule(listing, doc, rule) < 0)
			return -ENOMEM;
	}
	qsort(listing->rules, listing->n, sizeof(*listing->rules), compare_listed);
	return 0;
}

int nft_listing_parse(const char *json, size_t len, struct nft_listing *ret,
		      char why[PROBE_WHY_MAX])
{
	struct nft_listing listing = {0};
	struct json_document *doc;
	const char *what;
	size_t offset;
	int r;

	if (len > NFT_LISTING_MAX) {
		snprintf(why, PROBE_WHY_MAX, "nft list table: more than %u MiB of JSON",
			 NFT_LISTING_MAX >> 20);
		return -EFBIG;
	}
	doc = json_document_new(len);
	if (!doc)
		return -ENOMEM;
	r = json_document_read(doc, json, len, &what, &offset);
	if (r == -EBADMSG)
		snprintf(why, PROBE_WHY_MAX, "nft list table: its JSON is wrong at byte %zu: %s",
			 offset, what);
	if (r == 0)
		r = take_rules(&listing, doc);
	json_document_free(doc);
	if (r < 0) {
		nft_listing_done(&listing);
		return r;
	}
	*ret = listing;
	return 0;
}

/* The first line of libnftables' message. */
static int explain_listing(struct nft_ctx *nft, const char *command, char why[PROBE_WHY_MAX])
{
	const char *text = nft_ctx_get_error_buffer(nft);
	int len = text ? (int)strcspn(text, "\n") : 0;

	while (len > 0 && text[len - 1] == ' ')
		len--;
	snprintf(why, PROBE_WHY_MAX, "nft %.150s: %.*s", command, MIN(len, 150), len ? text : "");
	return -EIO;
}

/* Both names were checked: nft reads them as plain words. */
static int ask(const char *family, const char *table, struct nft_listing *ret,
	       char why[PROBE_WHY_MAX])
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	char command[NFT_TABLE_MAX + 32];
	int r = -ENOMEM;

	if (!nft) {
		snprintf(why, PROBE_WHY_MAX, "libnftables cannot start: %s", strerror(errno));
		return -EIO;
	}
	snprintf(command, sizeof(command), "list table %s %s", family, table);
	/* Terse: without the elements of sets, which may be many. */
	nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_HANDLE |
					      NFT_CTX_OUTPUT_TERSE);
	if (nft_ctx_buffer_output(nft) == 0 && nft_ctx_buffer_error(nft) == 0) {
		if (nft_run_cmd_from_buffer(nft, command) == 0) {
			const char *json = nft_ctx_get_output_buffer(nft);

			r = nft_listing_parse(json, strlen(json), ret, why);
		} else {
			r = explain_listing(nft, command, why);
		}
	}
	nft_ctx_free(nft);
	return r;
}

static bool is_known(const struct nft_probe *probe, const struct nft_dump *dump,
		     const struct nft_dump_table *table)
{
	if (probe->table_handle != table->handle)
		return false;
	for (size_t i = 0; i < table->n; i++)
		if (!nft_listing_find(&probe->listing, dump->rules[table->first + i].handle))
			return false;
	return true;
}

/*
 * The text of a rule never changes, because a new rule gets a new handle. Each table has handles of
 * its own.
 */
static int learn(struct nft_probe *probe, const struct nft_dump *dump,
		 const struct nft_dump_table *table, char why[PROBE_WHY_MAX])
{
	struct nft_listing listing;
	int r;

	if (is_known(probe, dump, table))
		return 0;
	if (probe->table_handle != table->handle)
		nft_listing_done(&probe->listing);
	probe->table_handle = table->handle;
	if (monotonic_ns() - dump->taken_ns > NFT_ASK_MS * NSEC_PER_MSEC)
		return 0;
	r = ask(probe->family, probe->table, &listing, why);
	if (r < 0)
		return r;
	/*
	 * The table was made again after the dump: these texts are of rules that only have the same
	 * handles.
	 */
	if (listing.table_handle != table->handle) {
		nft_listing_done(&listing);
		return 0;
	}
	nft_listing_done(&probe->listing);
	probe->listing = listing;
	return 0;
}

/* ---- a cell's reading ---- */

/* Where the parts of a reading are. */
struct cursor {
	const struct nft_probe *probe;
	const struct nft_dump *dump;
	const struct nft_dump_table *table;
	size_t next; /* rule of the table */
};

static void put_row(const struct cursor *c, const struct nft_dump_rule *rule, struct json_writer *w)
{
	const char *text = nft_listing_find(&c->probe->listing, rule->handle);

	json_put_begin_object(w);
	json_put_kv_uint(w, "bytes", rule->bytes);
	json_put_kv_string(w, "chain", rule->chain);
	json_put_kv_string(w, "family", c->table->family);
	json_put_kv_uint(w, "handle", rule->handle);
	json_put_kv_uint(w, "packets", rule->packets);
	if (text)
		json_put_kv_string(w, "ruleRepr", text);
	else
		json_put_kv_null(w, "ruleRepr");
	json_put_kv_string(w, "table", c->table->name);
	json_put_end_object(w);
}

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

		put_row(c, &c->dump->rules[c->table->first + c->next], w);
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

static int write_reading(struct cursor *cursor, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	const struct nft_dump_table *table = cursor->table;
	struct probe_reading reading = {.taken_ns = cursor->dump->taken_ns};
	int r = 0;

	/* Both names were checked: they need no escape. */
	if (asprintf(&reading.inputs, "{\"family\":\"%s\",\"table\":\"%s\"}", table->family,
		     table->name) < 0) {
		reading.inputs = NULL;
		r = -ENOMEM;
	}
	if (r == 0)
		r = probe_reading_put(&reading, put_rows, rewind_rows, cursor);
	if (r < 0) {
		if (r == -EFBIG)
			snprintf(why, PROBE_WHY_MAX,
				 "nft table %s %.128s: its %zu rules with counters are more than "
				 "%u lines of evidence hold",
				 table->family, table->name, table->n, PROBE_PARTS_MAX);
		probe_reading_done(&reading);
		return r;
	}
	for (size_t i = 0; i < table->n; i++)
		reading.packets += cursor->dump->rules[table->first + i].packets;
	*ret = reading;
	return 1;
}

int nft_reading(const struct nft_dump *dump, struct host_probe *probe, struct probe_reading *ret,
		char why[PROBE_WHY_MAX])
{
	struct nft_probe *own = (struct nft_probe *)probe;
	struct cursor cursor = {
		.probe = own,
		.dump = dump,
		.table = nft_dump_find(dump, own->family, own->table),
	};

	if (!cursor.table) {
		snprintf(why, PROBE_WHY_MAX, "nft table %s %s: not in the ruleset", own->family,
			 own->table);
		return -ENOENT;
	}
	/* If the texts cannot be read, the counters are reported without them. */
	learn(own, dump, cursor.table, why);
	return write_reading(&cursor, ret, why);
}

/* ---- the probe ---- */

static bool wanted(const struct probe_options *options)
{
	return options->nft_table != NULL;
}

static struct host_probe *open_probe(const struct probe_options *options)
{
	char family[FAMILY_MAX], table[NFT_TABLE_MAX + 1];
	struct nft_probe *probe;

	if (!nft_table_parse(options->nft_table, family, table))
		return NULL;
	probe = calloc(1, sizeof(*probe) + strlen(table) + 1);
	if (probe) {
		strcpy(probe->family, family);
		strcpy(probe->table, table);
	}
	return (struct host_probe *)probe;
}

static void close_probe(struct host_probe *probe)
{
	if (probe)
		nft_listing_done(&((struct nft_probe *)probe)->listing);
	free(probe);
}

const struct host_probe_ops probe_nftables = {
	.name = "nftables",
	.source = "host.nftables",
	.needs = "CAP_NET_ADMIN, in the network namespace of the table",
	.event = EVENT_HOST_NFTABLES,
	.wanted = wanted,
	.open = open_probe,
	.close = close_probe,
};
