/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/nft_dump.h"

#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "common/util.h"

#define ATTEMPTS 8u /* a dump that changes while it is read is read again */

struct dumping {
	struct nft_dump *dump;
	size_t tables_size, rules_size;
	bool uses_named;
	int error; /* negative errno of ours */
};

static const char *family_name(uint32_t family)
{
	static const struct {
		uint32_t number;
		const char *name;
	} families[] = {
		{NFPROTO_IPV4, "ip"}, {NFPROTO_IPV6, "ip6"},	  {NFPROTO_INET, "inet"},
		{NFPROTO_ARP, "arp"}, {NFPROTO_BRIDGE, "bridge"}, {NFPROTO_NETDEV, "netdev"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (families[i].number == family)
			return families[i].name;
	return "unknown";
}

static int fail(struct dumping *d, int error)
{
	d->error = error;
	return MNL_CB_ERROR;
}

/* Room for one more. */
static bool grow(void *array_ptr, size_t n, size_t *size, size_t element)
{
	void **array = array_ptr;
	const size_t wanted = *size ? *size * 2 : 64;
	void *more;

	if (n < *size)
		return true;
	more = reallocarray(*array, wanted, element);
	if (!more)
		return false;
	*array = more;
	*size = wanted;
	return true;
}

/* ---- tables ---- */

static int compare_tables(const void *a, const void *b)
{
	const struct nft_dump_table *x = a, *y = b;
	const int r = strcmp(x->family, y->family);

	return r ? r : strcmp(x->name, y->name);
}

const struct nft_dump_table *nft_dump_find(const struct nft_dump *dump, const char *family,
					   const char *name)
{
	const struct nft_dump_table key = {.family = family, .name = name};

	return dump->n_tables
		       ? bsearch(&key, dump->tables, dump->n_tables, sizeof(key), compare_tables)
		       : NULL;
}

static int on_table(const struct nlmsghdr *message, void *ctx)
{
	struct dumping *d = ctx;
	struct nft_dump *dump = d->dump;
	struct nftnl_table *table = nftnl_table_alloc();
	struct nft_dump_table *t;
	const char *name;

	if (!table)
		return fail(d, -ENOMEM);
	if (nftnl_table_nlmsg_parse(message, table) < 0 ||
	    !(name = nftnl_table_get_str(table, NFTNL_TABLE_NAME))) {
		nftnl_table_free(table);
		return fail(d, -EBADMSG);
	}
	if (!grow(&dump->tables, dump->n_tables, &d->tables_size, sizeof(*t))) {
		nftnl_table_free(table);
		return fail(d, -ENOMEM);
	}
	t = &dump->tables[dump->n_tables];
	*t = (struct nft_dump_table){
		.family = family_name(nftnl_table_get_u32(table, NFTNL_TABLE_FAMILY)),
		.name = strdup(name),
		.handle = nftnl_table_get_u64(table, NFTNL_TABLE_HANDLE),
	};
	nftnl_table_free(table);
	if (!t->name)
		return fail(d, -ENOMEM);
	dump->n_tables++;
	return MNL_CB_OK;
}

/* A table that was made again has the name of the old one, and its rules may be of either. */
static int on_table_again(const struct nlmsghdr *message, void *ctx)
{
	struct dumping *d = ctx;
	struct nftnl_table *table = nftnl_table_alloc();
	const struct nft_dump_table *known;
	const char *name;
	int r = -EBADMSG;

	if (!table)
		return fail(d, -ENOMEM);
	if (nftnl_table_nlmsg_parse(message, table) == 0 &&
	    (name = nftnl_table_get_str(table, NFTNL_TABLE_NAME))) {
		known = nft_dump_find(
			d->dump, family_name(nftnl_table_get_u32(table, NFTNL_TABLE_FAMILY)), name);
		r = known && known->handle != nftnl_table_get_u64(table, NFTNL_TABLE_HANDLE)
			    ? -EINTR
			    : 0;
	}
	nftnl_table_free(table);
	return r < 0 ? fail(d, r) : MNL_CB_OK;
}

/* ---- rules ---- */

struct counting {
	bool counts;
	uint64_t packets, bytes;
	const char *named; /* the expression's */
};

static int on_expression(struct nftnl_expr *expression, void *ctx)
{
	struct counting *c = ctx;
	const char *name = nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);

	if (c->counts || !name)
		return 0;
	if (strcmp(name, "counter") == 0) {
		c->counts = true;
		c->packets = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_PACKETS);
		c->bytes = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_BYTES);
	} else if (strcmp(name, "objref") == 0 &&
		   nftnl_expr_get_u32(expression, NFTNL_EXPR_OBJREF_IMM_TYPE) ==
			   NFT_OBJECT_COUNTER) {
		c->named = nftnl_expr_get_str(expression, NFTNL_EXPR_OBJREF_IMM_NAME);
		c->counts = c->named != NULL;
	}
	return 0;
}

static int take_rule(struct dumping *d, struct nftnl_rule *rule)
{
	struct nft_dump *dump = d->dump;
	struct counting c = {0};
	const char *table = nftnl_rule_get_str(rule, NFTNL_RULE_TABLE);
	const char *chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
	const struct nft_dump_table *found;
	struct nft_dump_rule *r;

	if (!table || !chain)
		return -EBADMSG;
	nftnl_expr_foreach(rule, on_expression, &c);
	found = nft_dump_find(dump, family_name(nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY)),
			      table);
	/* A table that was made after the dump of the tables is left for the next reading. */
	if (!c.counts || !found)
		return 0;
	if (dump->n_rules == NFT_RULES_MAX)
		return -EFBIG;
	if (!grow(&dump->rules, dump->n_rules, &d->rules_size, sizeof(*r)))
		return -ENOMEM;
	r = &dump->rules[dump->n_rules];
	*r = (struct nft_dump_rule){
		.chain = strdup(chain),
		.named = c.named ? strdup(c.named) : NULL,
		.handle = nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE),
		.packets = c.packets,
		.bytes = c.bytes,
		.table = (size_t)(found - dump->tables),
	};
	dump->n_rules++;
	d->uses_named |= c.named != NULL;
	return r->chain && (r->named || !c.named) ? 0 : -ENOMEM;
}

static int on_rule(const struct nlmsghdr *message, void *ctx)
{
	struct dumping *d = ctx;
	struct nftnl_rule *rule = nftnl_rule_alloc();
	int r;

	if (!rule)
		return fail(d, -ENOMEM);
	r = nftnl_rule_nlmsg_parse(message, rule) < 0 ? -EBADMSG : take_rule(d, rule);
	nftnl_rule_free(rule);
	return r < 0 ? fail(d, r) : MNL_CB_OK;
}

/* The kernel dumps table by table, but promises no order. */
static int compare_rules(const void *a, const void *b, void *ctx)
{
	const size_t *x = a, *y = b;
	const struct nft_dump_rule *rules = ctx;

	if (rules[*x].table != rules[*y].table)
		return rules[*x].table < rules[*y].table ? -1 : 1;
	return *x < *y ? -1 : *x > *y;
}

static int sort_rules(struct nft_dump *dump)
{
	_cleanup_free_ size_t *order = calloc(dump->n_rules + 1, sizeof(*order));
	struct nft_dump_rule *sorted = calloc(dump->n_rules + 1, sizeof(*sorted));

	if (!order || !sorted) {
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < dump->n_rules; i++)
		order[i] = i;
	qsort_r(order, dump->n_rules, sizeof(*order), compare_rules, dump->rules);
	for (size_t i = 0; i < dump->n_rules; i++) {
		struct nft_dump_table *table;

		sorted[i] = dump->rules[order[i]];
		table = &dump->tables[sorted[i].table];
		if (table->n++ == 0)
			table->first = i;
	}
	free(dump->rules);
	dump->rules = sorted;
	return 0;
}

/* ---- named counters ---- */

static int take_object(struct dumping *d, const struct nftnl_obj *object)
{
	struct nftnl_obj *o = (struct nftnl_obj *)(uintptr_t)object;
	const char *table = nftnl_obj_get_str(o, NFTNL_OBJ_TABLE);
	const char *name = nftnl_obj_get_str(o, NFTNL_OBJ_NAME);
	const struct nft_dump_table *found;

	if (!table || !name)
		return -EBADMSG;
	found = nft_dump_find(d->dump, family_name(nftnl_obj_get_u32(o, NFTNL_OBJ_FAMILY)), table);
	for (size_t i = 0; found && i < found->n; i++) {
		struct nft_dump_rule *rule = &d->dump->rules[found->first + i];

		if (!rule->named || strcmp(rule->named, name) != 0)
			continue;
		rule->packets = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS);
		rule->bytes = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES);
	}
	return 0;
}

static int on_object(const struct nlmsghdr *message, void *ctx)
{
	struct dumping *d = ctx;
	struct nftnl_obj *object = nftnl_obj_alloc();
	int r;

	if (!object)
		return fail(d, -ENOMEM);
	r = nftnl_obj_nlmsg_parse(message, object) < 0 ? -EBADMSG : take_object(d, object);
	nftnl_obj_free(object);
	return r < 0 ? fail(d, r) : MNL_CB_OK;
}

/* ---- the conversation ---- */

/* Ask for all of a kind. object_type 0: none. */
static int dump_kind(struct mnl_socket *socket, char *buf, size_t size, uint16_t kind,
		     uint32_t object_type, int (*on_message)(const struct nlmsghdr *, void *),
		     struct dumping *d)
{
	const uint32_t seq = (uint32_t)monotonic_ns();
	struct nlmsghdr *request =
		nftnl_nlmsg_build_hdr(buf, kind, NFPROTO_UNSPEC, NLM_F_DUMP, seq);

	if (object_type)
		mnl_attr_put_u32(request, NFTA_OBJ_TYPE, htobe32(object_type));
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		const ssize_t len = mnl_socket_recvfrom(socket, buf, size);
		int r;

		if (len < 0)
			return -errno;
		d->error = 0;
		r = mnl_cb_run(buf, (size_t)len, seq, mnl_socket_get_portid(socket), on_message, d);
		if (r < 0)
			return d->error ? d->error : -errno;
		if (r == MNL_CB_STOP)
			return 0;
	}
}

static int dump_all(struct mnl_socket *socket, char *buf, size_t size, struct dumping *d)
{
	struct nft_dump *dump = d->dump;
	int r = dump_kind(socket, buf, size, NFT_MSG_GETTABLE, 0, on_table, d);

	/* qsort(3) does not allow NULL, even for no elements. */
	if (r < 0 || dump->n_tables == 0)
		return r;
	qsort(dump->tables, dump->n_tables, sizeof(*dump->tables), compare_tables);
	r = dump_kind(socket, buf, size, NFT_MSG_GETRULE, 0, on_rule, d);
	if (r == 0)
		r = sort_rules(dump);
	if (r == 0 && d->uses_named)
		r = dump_kind(socket, buf, size, NFT_MSG_GETOBJ, NFT_OBJECT_COUNTER, on_object, d);
	if (r == 0)
		r = dump_kind(socket, buf, size, NFT_MSG_GETTABLE, 0, on_table_again, d);
	return r;
}

void nft_dump_done(struct nft_dump *dump)
{
	for (size_t i = 0; i < dump->n_tables; i++)
		free((char *)(uintptr_t)dump->tables[i].name);
	for (size_t i = 0; i < dump->n_rules; i++) {
		free(dump->rules[i].chain);
		free(dump->rules[i].named);
	}
	free(dump->tables);
	free(dump->rules);
	*dump = (struct nft_dump){0};
}

int nft_dump_read(struct nft_dump *dump, char why[PROBE_WHY_MAX])
{
	const size_t size = (size_t)MNL_SOCKET_BUFFER_SIZE * 16;
	_cleanup_free_ char *buf = malloc(size);
	int r = -EINTR;

	*dump = (struct nft_dump){0};
	if (!buf)
		return -ENOMEM;
	for (unsigned i = 0; r == -EINTR && i < ATTEMPTS; i++) {
		struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
		struct dumping d = {.dump = dump};

		nft_dump_done(dump);
		dump->taken_ns = monotonic_ns();
		r = !socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0
			    ? -errno
			    : dump_all(socket, buf, size, &d);
		if (socket)
			mnl_socket_close(socket);
	}
	if (r < 0)
		snprintf(why, PROBE_WHY_MAX, "the nftables ruleset: %s%s",
			 r == -EFBIG ? "more than a million rules with counters" : strerror(-r),
			 r == -EPERM ? "; CAP_NET_ADMIN is needed" : "");
	return r;
}
