/* SPDX-License-Identifier: MIT */
/*
 * Host probes: what the kernel's and the VMM's files say, in every shape they may have. Folders of
 * files stand for sysfs and cgroupfs only here; integration and VM tests read the real ones.
 */
#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <nftables/libnftables.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/probes/cgroup.h"
#include "host-receiver/probes/fc_document.h"
#include "host-receiver/probes/flat_keyed.h"
#include "host-receiver/probes/nft_rule.h"
#include "host-receiver/probes/nftables.h"
#include "host-receiver/probes/options.h"
#include "host-receiver/probes/probe_file.h"
#include "host-receiver/probes/tap_link.h"
#include "tests/unit/scarce.h"
#include "tests/unit/unit.h"

/* ---- a folder of files ---- */

static char folder[64];
static int folder_fd;

static void make_folder(void)
{
	strcpy(folder, "/tmp/cellos-probes-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(folder_fd, 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

static void remove_folder(void)
{
	close(folder_fd);
	nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put_bytes(const char *name, const void *data, size_t len)
{
	_cleanup_close_ int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
}

static void put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

/* ---- flat keyed files ---- */

static const char *as_json(const struct flat_keyed *pairs)
{
	static char text[64 * 1024];
	struct json_writer w;
	size_t len;

	json_writer_init(&w, text, sizeof(text) - 1);
	flat_keyed_write(pairs, &w);
	ck_assert_int_eq(json_writer_done(&w, &len), 0);
	text[len] = '\0';
	return text;
}

UNIT_TEST(flat_keyed_good)
{
	static const struct {
		const char *text, *json;
	} table[] = {
		{"", "{}"},
		{"\n \n\t\n", "{}"},
		{"max 0\n", "{\"max\":0}"},
		{"max 0", "{\"max\":0}"},
		{"  max\t  7  \r\n", "{\"max\":7}"},
		{"low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n",
		 "{\"high\":2,\"low\":1,\"max\":3,\"oom\":4,\"oom_kill\":5}"},
		{"v 18446744073709551615\n", "{\"v\":18446744073709551615}"},
		{"max.imposed 1\nmax 2\n", "{\"max\":2,\"max.imposed\":1}"},
	};
	struct flat_keyed pairs;
	const char *what;
	unsigned line;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		ck_assert_int_eq(flat_keyed_parse(table[i].text, strlen(table[i].text), &pairs,
						  &line, &what),
				 0);
		ck_assert_str_eq(as_json(&pairs), table[i].json);
	}
}

UNIT_TEST(flat_keyed_bad)
{
	static const struct {
		const char *text;
		unsigned line;
	} table[] = {
		{"max\n", 1},
		{"max -1\n", 1},
		{"max +1\n", 1},
		{"max 0x1\n", 1},
		{"max 1.5\n", 1},
		{"max max\n", 1},
		{"max 1 2\n", 1},
		{"low 1\n\nmax 18446744073709551616\n", 3},
		{"low 1\nlow 2\n", 2},
		{"low 1\nl\001w 2\n", 2},
		{"low 1\n\xff\xfe 2\n", 2},
		{"0123456789012345678901234567890123456789012345678901234567890123x 1\n", 1},
		{"max 99999999999999999999999999999999999999999\n", 1},
	};
	struct flat_keyed pairs;
	const char *what;
	unsigned line;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		line = 0;
		ck_assert_int_eq(flat_keyed_parse(table[i].text, strlen(table[i].text), &pairs,
						  &line, &what),
				 -EBADMSG);
		ck_assert_uint_eq(line, table[i].line);
	}
	/* A NUL is no end. */
	ck_assert_int_eq(flat_keyed_parse("a 1\0002\n", 6, &pairs, &line, &what), -EBADMSG);
}

UNIT_TEST(flat_keyed_limit)
{
	_cleanup_free_ char *text = malloc(16 * (FLAT_KEYED_KEYS_MAX + 2));
	struct flat_keyed pairs;
	const char *what;
	unsigned line;

	for (unsigned n = FLAT_KEYED_KEYS_MAX - 1; n <= FLAT_KEYED_KEYS_MAX + 1; n++) {
		size_t len = 0;

		for (unsigned i = 0; i < n; i++)
			len += (size_t)sprintf(text + len, "k%u %u\n", i, i);
		if (n <= FLAT_KEYED_KEYS_MAX) {
			ck_assert_int_eq(flat_keyed_parse(text, len, &pairs, &line, &what), 0);
			ck_assert_uint_eq(pairs.n, n);
		} else {
			ck_assert_int_eq(flat_keyed_parse(text, len, &pairs, &line, &what), -E2BIG);
			ck_assert_uint_eq(line, n);
		}
	}
}

/* ---- cgroup ---- */

static const char *output_of(const struct probe_reading *reading, size_t part)
{
	static char text[PROBE_OUTPUT_MAX + 1];
	const size_t begin = part ? reading->part_end[part - 1] : 0;
	const size_t len = reading->part_end[part] - begin;

	memcpy(text, reading->outputs + begin, len);
	text[len] = '\0';
	return text;
}

/* The reading's output, or why there is none. */
static const char *read_cgroup(void)
{
	static char why[PROBE_WHY_MAX];
	struct probe_reading reading;
	const char *text;

	*why = '\0';
	if (cgroup_read_at(folder_fd, "/cg", &reading, why) < 0)
		return why;
	ck_assert_uint_eq(reading.n_parts, 1);
	ck_assert_str_eq(reading.inputs, "{\"cgroupLeaf\":\"/cg\",\"files\":[\"memory.events\","
					 "\"cpu.stat\",\"pids.events\"]}");
	text = output_of(&reading, 0);
	probe_reading_done(&reading);
	return text;
}

/* As the kernels of the supported range write them. */
UNIT_TEST(cgroup_kernels)
{
	static const struct {
		const char *cpu, *memory, *pids, *json;
	} kernels[] = {
		/* 5.10 */
		{"usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 0\nnr_throttled 0\n"
		 "throttled_usec 0\n",
		 "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n", "max 4\n",
		 "{\"cpu_stat\":{\"nr_periods\":0,\"nr_throttled\":0,\"system_usec\":2,"
		 "\"throttled_usec\":0,\"usage_usec\":5,\"user_usec\":3},\"memory_events\":{"
		 "\"high\":0,\"low\":0,\"max\":12,\"oom\":1,\"oom_kill\":1},\"pids_events\":{"
		 "\"max\":4}}"},
		/* 6.1, 6.12: new lines; the cpu controller off; pids.events with two lines */
		{"usage_usec 5\nuser_usec 3\nsystem_usec 2\nnice_usec 0\ncore_sched.force_idle_usec 0\n",
		 "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
		 "max 0\nmax.imposed 2\n",
		 "{\"cpu_stat\":{\"core_sched.force_idle_usec\":0,\"nice_usec\":0,"
		 "\"system_usec\":2,\"usage_usec\":5,\"user_usec\":3},\"memory_events\":{"
		 "\"high\":0,\"low\":0,\"max\":0,\"oom\":0,\"oom_group_kill\":0,"
		 "\"oom_kill\":0},\"pids_events\":{\"max\":0,\"max.imposed\":2}}"},
		/* No memory and no pids controller. */
		{"usage_usec 1\n", NULL, NULL,
		 "{\"cpu_stat\":{\"usage_usec\":1},\"memory_events\":null,\"pids_events\":null}"},
		{"", "", "", "{\"cpu_stat\":{},\"memory_events\":{},\"pids_events\":{}}"},
		{NULL, NULL, NULL,
		 "{\"cpu_stat\":null,\"memory_events\":null,\"pids_events\":null}"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
		make_folder();
		if (kernels[i].cpu)
			put("cpu.stat", kernels[i].cpu);
		if (kernels[i].memory)
			put("memory.events", kernels[i].memory);
		if (kernels[i].pids)
			put("pids.events", kernels[i].pids);
		ck_assert_str_eq(read_cgroup(), kernels[i].json);
		remove_folder();
	}
}

UNIT_TEST(cgroup_hostile)
{
	_cleanup_free_ char *huge = malloc(1024 * 1024);
	static const char *const names[] = {"cpu.stat", "memory.events", "pids.events"};
	char want[PROBE_WHY_MAX];

	memset(huge, 'x', 1024 * 1024);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		make_folder();
		put_bytes(names[i], huge, 1024 * 1024);
		snprintf(want, sizeof(want), "/cg/%s: more than 64 KiB", names[i]);
		ck_assert_str_eq(read_cgroup(), want);
		put_bytes(names[i], "a 1\n\0\1\2\3", 8);
		snprintf(want, sizeof(want), "/cg/%s:2: ", names[i]);
		ck_assert(strncmp(read_cgroup(), want, strlen(want)) == 0);
		put(names[i], "a 1\nb -2\n");
		snprintf(want, sizeof(want), "/cg/%s:2: the value is not an unsigned 64-bit number",
			 names[i]);
		ck_assert_str_eq(read_cgroup(), want);
		unlinkat(folder_fd, names[i], 0);
		/* What only stands for a file is not read. */
		ck_assert_int_eq(symlinkat("/proc/self/stat", folder_fd, names[i]), 0);
		ck_assert_ptr_nonnull(strstr(read_cgroup(), "symbolic link"));
		unlinkat(folder_fd, names[i], 0);
		ck_assert_int_eq(mkfifoat(folder_fd, names[i], 0600), 0);
		ck_assert_ptr_nonnull(strstr(read_cgroup(), "not a regular file"));
		remove_folder();
	}
}

/* 64 KiB and one more byte. */
UNIT_TEST(file_limit)
{
	_cleanup_free_ char *data = calloc(1, PROBE_FILE_MAX + 1);
	_cleanup_free_ char *buf = malloc(PROBE_FILE_MAX + 1);

	make_folder();
	for (int by = -1; by <= 1; by++) {
		const int len = (int)PROBE_FILE_MAX + by;

		put_bytes("f", data, (size_t)len);
		ck_assert_int_eq(probe_read_file(folder_fd, "f", buf), by > 0 ? -EFBIG : len);
	}
	ck_assert_int_eq(probe_read_file(folder_fd, "none", buf), -ENOENT);
	remove_folder();
}

UNIT_TEST(cgroup_leaf)
{
	char why[PROBE_WHY_MAX], path[128];

	make_folder();
	ck_assert_int_eq(cgroup_open_leaf(folder, why), -EXDEV);
	ck_assert_ptr_nonnull(strstr(why, "not in a cgroup v2 file system"));
	snprintf(path, sizeof(path), "%s/link", folder);
	ck_assert_int_eq(symlink("/sys/fs/cgroup", path), 0);
	ck_assert_int_eq(cgroup_open_leaf(path, why), -ELOOP);
	snprintf(path, sizeof(path), "%s/none", folder);
	ck_assert_int_eq(cgroup_open_leaf(path, why), -ENOENT);
	remove_folder();
}

/* ---- tap_link ---- */

static void make_link(void)
{
	make_folder();
	ck_assert_int_eq(mkdirat(folder_fd, "statistics", 0755), 0);
	put("operstate", "up\n");
	put("carrier", "1\n");
	put("statistics/rx_packets", "7\n");
	put("statistics/tx_packets", "12\n");
	put("statistics/rx_bytes", "840\n");
	put("statistics/tx_bytes", "18446744073709551615\n");
}

static const char *read_link(void)
{
	static char why[PROBE_WHY_MAX];
	struct probe_reading reading;
	const char *text;

	*why = '\0';
	if (tap_link_read_at(folder_fd, "cfc-1", &reading, why) < 0)
		return why;
	ck_assert_str_eq(reading.inputs,
			 "{\"iface\":\"cfc-1\",\"sysfs\":\"/sys/class/net/cfc-1\"}");
	ck_assert_uint_eq(reading.packets, 7);
	text = output_of(&reading, 0);
	probe_reading_done(&reading);
	return text;
}

UNIT_TEST(tap_link_good)
{
	make_link();
	ck_assert_str_eq(read_link(),
			 "{\"carrier\":\"1\",\"operstate\":\"up\",\"rxBytes\":840,\"rxPackets\":7,"
			 "\"txBytes\":18446744073709551615,\"txPackets\":12}");
	remove_folder();
}

UNIT_TEST(tap_link_hostile)
{
	static const struct {
		const char *name, *content, *want; /* content NULL: no such file */
	} table[] = {
		{"operstate", "", "operstate: not a word"},
		{"operstate", "up down\n", "operstate: not a word"},
		{"operstate", "\033[2J\n", "operstate: not a word"},
		{"operstate", "abcdefghijklmnopqrstuvwxyz0123456789\n", "operstate: not a word"},
		{"operstate", NULL, "operstate: No such file"},
		{"carrier", "2\n", "carrier: neither 0 nor 1"},
		{"carrier", "", "carrier: neither 0 nor 1"},
		{"carrier", "10\n", "carrier: neither 0 nor 1"},
		{"carrier", NULL, "carrier: No such file"},
		{"statistics/rx_packets", "-1\n", "rx_packets:1: the value is not"},
		{"statistics/rx_packets", "\n", "rx_packets:1: the value is not"},
		{"statistics/tx_packets", "1 2\n", "tx_packets:1: the value is not"},
		{"statistics/rx_bytes", "18446744073709551616\n", "rx_bytes:1: the value is not"},
		{"statistics/tx_bytes", "x\n", "tx_bytes:1: the value is not"},
		{"statistics/tx_bytes", NULL, "tx_bytes: No such file"},
	};
	_cleanup_free_ char *huge = malloc(1024 * 1024);

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		make_link();
		if (table[i].content)
			put(table[i].name, table[i].content);
		else
			unlinkat(folder_fd, table[i].name, 0);
		ck_assert_msg(strstr(read_link(), table[i].want), "%s: %s", table[i].want,
			      read_link());
		remove_folder();
	}
	make_link();
	memset(huge, '1', 1024 * 1024);
	put_bytes("statistics/rx_bytes", huge, 1024 * 1024);
	ck_assert_ptr_nonnull(strstr(read_link(), "rx_bytes: more than 64 KiB"));
	remove_folder();
}

/* ---- nftables ---- */

UNIT_TEST(kernel_tables)
{
	static const char *const good[][3] = {
		{"cell", "ip", "cell"},
		{"inet/cell", "inet", "cell"},
		{"ip6/a_b.c-1", "ip6", "a_b.c-1"},
		{"netdev/x", "netdev", "x"},
		{"bridge/x", "bridge", "x"},
		{"arp/x", "arp", "x"},
	};
	static const char *const bad[] = {"",	"/",   "inet/",	 "x/y",	 "inet/a/b", "a b",
					  "a;", "a\n", "ip/a;b", "IP/a", "inet /a"};
	char family[8], table[NFT_TABLE_MAX + 1], name[NFT_TABLE_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		ck_assert(nft_table_parse(good[i][0], family, table));
		ck_assert_str_eq(family, good[i][1]);
		ck_assert_str_eq(table, good[i][2]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!nft_table_parse(bad[i], family, table), "%s", bad[i]);
	for (int by = -1; by <= 1; by++) {
		memset(name, 'x', sizeof(name));
		name[(int)NFT_TABLE_MAX + by] = '\0';
		ck_assert(nft_table_parse(name, family, table) == (by <= 0));
	}
}

static const char *format_rule(const char *json)
{
	static char text[NFT_RULE_MAX + 1];
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	const char *why = "";
	size_t at;

	ck_assert_msg(json_document_read(doc, json, strlen(json), &why, &at) == 0, "%s: %s", json,
		      why);
	text[nft_rule_format(doc, json_document_root(doc), text)] = '\0';
	json_document_free(doc);
	return text;
}

/* From `nft -j list ruleset` of 1.0.6. */
UNIT_TEST(nft_rules)
{
	static const char *const table[][2] = {
		{"[]", ""},
		{"[{\"counter\":{\"packets\":1,\"bytes\":2}},{\"accept\":null}]", "counter accept"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"meta\":{\"key\":\"iifname\"}},"
		 "\"right\":\"tap0\"}}]",
		 "iifname tap0"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"meta\":{\"key\":\"l4proto\"}},"
		 "\"right\":\"udp\"}},{\"drop\":null}]",
		 "meta l4proto udp drop"},
		{"[{\"match\":{\"op\":\"!=\",\"left\":{\"payload\":{\"protocol\":\"ip\","
		 "\"field\":\"saddr\"}},\"right\":{\"prefix\":{\"addr\":\"10.0.0.0\",\"len\":8}}}}]",
		 "ip saddr != 10.0.0.0/8"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"payload\":{\"protocol\":\"tcp\","
		 "\"field\":\"dport\"}},\"right\":{\"set\":[80,{\"range\":[8000,9000]}]}}}]",
		 "tcp dport { 80, 8000-9000 }"},
		{"[{\"match\":{\"op\":\"in\",\"left\":{\"ct\":{\"key\":\"state\"}},"
		 "\"right\":[\"established\",\"new\"]}}]",
		 "ct state established,new"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"ct\":{\"key\":\"saddr\",\"dir\":"
		 "\"original\"}},\"right\":\"@blocked\"}}]",
		 "ct original saddr @blocked"},
		{"[{\"counter\":\"named\"},{\"jump\":{\"target\":\"other\"}}]",
		 "counter name named jump other"},
		{"[{\"limit\":{\"rate\":5,\"burst\":5,\"per\":\"second\"}}]",
		 "limit burst 5 per second rate 5"},
		{"[{\"log\":null},{\"reject\":{\"type\":\"icmpx\",\"expr\":\"no-route\"}}]",
		 "log reject expr no-route type icmpx"},
		{"[{\"mangle\":{\"key\":{\"meta\":{\"key\":\"mark\"}},\"value\":5}}]",
		 "meta mark set 5"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"&\":[{\"payload\":{\"protocol\":\"tcp\","
		 "\"field\":\"flags\"}},[\"syn\",\"ack\"]]},\"right\":\"syn\"}}]",
		 "(tcp flags & syn,ack) syn"},
		/* What is not known is shown as it came. */
		{"[{\"xyz\":{\"a\":[1]}}]", "xyz {\"a\":[1]}"},
		{"[{\"match\":{\"op\":\"==\",\"left\":{\"socket\":{\"key\":\"mark\"}},\"right\":1}}]",
		 "{\"socket\":{\"key\":\"mark\"}} 1"},
		{"[{\"match\":7}]", "match 7"},
		{"[7,{}]", "7 {}"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		ck_assert_str_eq(format_rule(table[i][0]), table[i][1]);
}

UNIT_TEST(nft_rule_limit)
{
	char json[2 * NFT_RULE_MAX];

	for (int by = -1; by <= 1; by++) {
		const size_t len = (size_t)((int)NFT_RULE_MAX + by);
		const char *text;

		/* A statement's name is as long as the rule is to be. */
		strcpy(json, "[{\"");
		memset(json + 3, 'n', len);
		strcpy(json + 3 + len, "\":null}]");
		text = format_rule(json);
		ck_assert_uint_eq(strlen(text), by > 0 ? NFT_RULE_MAX : len);
		ck_assert((strstr(text, "...") != NULL) == (by > 0));
	}
}

static const char *list(const char *json, struct nft_listing *ret)
{
	static char why[PROBE_WHY_MAX];

	*why = '\0';
	return nft_listing_parse(json, strlen(json), ret, why) < 0 ? why : NULL;
}

UNIT_TEST(nft_listings)
{
	struct nft_listing listing;

	ck_assert_ptr_null(
		list("{\"nftables\":[{\"metainfo\":{\"version\":\"1.0.6\"}},"
		     "{\"table\":{\"family\":\"inet\",\"name\":\"a\",\"handle\":2}},"
		     "{\"rule\":{\"family\":\"inet\",\"table\":\"a\",\"chain\":\"c\",\"handle\":7,"
		     "\"expr\":[{\"counter\":{\"packets\":5,\"bytes\":-1}},{\"accept\":null}]}},"
		     "{\"rule\":{\"handle\":5,\"comment\":\"x\",\"expr\":[{\"counter\":\"n\"}]}},"
		     "7,{},{\"rule\":7},{\"rule\":{\"expr\":[]}},{\"rule\":{\"handle\":9}}]}",
		     &listing));
	ck_assert_uint_eq(listing.n, 3);
	ck_assert_uint_eq(listing.table_handle, 2);
	ck_assert_str_eq(nft_listing_find(&listing, 7), "counter accept");
	ck_assert_str_eq(nft_listing_find(&listing, 5), "counter name n");
	ck_assert_str_eq(nft_listing_find(&listing, 9), "");
	ck_assert_ptr_null(nft_listing_find(&listing, 2));
	nft_listing_done(&listing);
	ck_assert_ptr_null(nft_listing_find(&listing, 5));
	ck_assert_str_eq(list("{\"nftables\":[", &listing),
			 "nft list table: its JSON is wrong at byte 13: expected a value");
	ck_assert_ptr_null(list("[]", &listing));
	ck_assert_uint_eq(listing.n, 0);
	nft_listing_done(&listing);
}

/* libnftables in the place of the library's: it lists nft_answer, and says how often. */
static const char *nft_answer;
static unsigned nft_asked;

struct nft_ctx *nft_ctx_new(uint32_t flags _unused_)
{
	return (struct nft_ctx *)&nft_answer;
}

void nft_ctx_free(struct nft_ctx *ctx _unused_)
{
}

void nft_ctx_output_set_flags(struct nft_ctx *ctx _unused_, unsigned int flags _unused_)
{
}

int nft_ctx_buffer_output(struct nft_ctx *ctx _unused_)
{
	return 0;
}

int nft_ctx_buffer_error(struct nft_ctx *ctx _unused_)
{
	return 0;
}

const char *nft_ctx_get_output_buffer(struct nft_ctx *ctx _unused_)
{
	return nft_answer;
}

int nft_run_cmd_from_buffer(struct nft_ctx *ctx _unused_, const char *command)
{
	ck_assert_str_eq(command, "list table inet cell");
	nft_asked++;
	return 0;
}

/*
 * A reading of the table inet/cell, which has this handle and one rule: handle 5. A reading that
 * takes too long asks for no text, and the next one does.
 */
static const char *read_rule(struct host_probe *probe, uint64_t table_handle)
{
	static char chain[] = "c";
	struct nft_dump_table table = {
		.family = "inet", .name = "cell", .handle = table_handle, .n = 1};
	struct nft_dump_rule rule = {.chain = chain, .handle = 5, .packets = 1, .bytes = 2};
	struct nft_dump dump = {.tables = &table, .n_tables = 1, .rules = &rule, .n_rules = 1};
	struct probe_reading reading;
	char why[PROBE_WHY_MAX] = "";
	const char *text = NULL;

	for (unsigned i = 0; i < 100 && (!text || strstr(text, "\"ruleRepr\":null")); i++) {
		dump.taken_ns = monotonic_ns();
		ck_assert_msg(nft_reading(&dump, probe, &reading, why) == 1, "%s", why);
		text = output_of(&reading, 0);
		probe_reading_done(&reading);
	}
	return text;
}

#define ROW(text)                                                                                  \
	"{\"rows\":[{\"bytes\":2,\"chain\":\"c\",\"family\":\"inet\",\"handle\":5,\"packets\":1,"  \
	"\"ruleRepr\":\"" text "\",\"table\":\"cell\"}]}"

#define LISTED(table, verdict)                                                                     \
	"{\"nftables\":[{\"table\":{\"handle\":" table "}},"                                       \
	"{\"rule\":{\"handle\":5,\"expr\":[{\"" verdict "\":null}]}}]}"

/*
 * A table that was deleted and made again numbers its rules from the beginning: the handle of an
 * old rule is another rule's. The texts are asked for once in a table's life.
 */
UNIT_TEST(nft_texts_are_of_the_table_that_stands)
{
	const struct probe_options options = {.nft_table = "inet/cell"};
	struct host_probe *probe = probe_nftables.open(&options);

	nft_asked = 0;
	nft_answer = LISTED("1", "accept");
	for (unsigned i = 0; i < 3; i++)
		ck_assert_str_eq(read_rule(probe, 1), ROW("accept"));
	ck_assert_uint_eq(nft_asked, 1);
	nft_answer = LISTED("2", "drop");
	for (unsigned i = 0; i < 3; i++)
		ck_assert_str_eq(read_rule(probe, 2), ROW("drop"));
	ck_assert_uint_eq(nft_asked, 2);
	/* It was made again between the counters and the texts. */
	nft_answer = LISTED("4", "accept");
	ck_assert_ptr_nonnull(strstr(read_rule(probe, 3), "\"ruleRepr\":null"));
	ck_assert_str_eq(read_rule(probe, 4), ROW("accept"));
	probe_nftables.close(probe);
}

/*
 * The kernel in whose place this answers has the table inet/cell, with one rule that counts: handle
 * 5. table_handles has the table's handle at each look at it, in turn; the last one stays.
 */
static const uint64_t *table_handles;
static uint16_t asked_kind;
static uint32_t asked_seq;

struct mnl_socket *mnl_socket_open2(int bus _unused_, int flags _unused_)
{
	return (struct mnl_socket *)&table_handles;
}

int mnl_socket_bind(struct mnl_socket *nl _unused_, unsigned int groups _unused_,
		    pid_t pid _unused_)
{
	return 0;
}

unsigned int mnl_socket_get_portid(const struct mnl_socket *nl _unused_)
{
	return 0;
}

int mnl_socket_close(struct mnl_socket *nl _unused_)
{
	return 0;
}

ssize_t mnl_socket_sendto(const struct mnl_socket *nl _unused_, const void *data, size_t len)
{
	const struct nlmsghdr *h = data;

	asked_kind = h->nlmsg_type & 0xff;
	asked_seq = h->nlmsg_seq;
	return (ssize_t)len;
}

static void put_table(struct nlmsghdr *h)
{
	struct nftnl_table *table = nftnl_table_alloc();

	nftnl_table_set_str(table, NFTNL_TABLE_NAME, "cell");
	nftnl_table_set_u64(table, NFTNL_TABLE_HANDLE, *table_handles);
	nftnl_table_nlmsg_build_payload(h, table);
	nftnl_table_free(table);
	if (table_handles[1])
		table_handles++;
}

static void put_rule(struct nlmsghdr *h)
{
	struct nftnl_rule *rule = nftnl_rule_alloc();
	struct nftnl_expr *counter = nftnl_expr_alloc("counter");

	nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, "cell");
	nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, "c");
	nftnl_rule_set_u64(rule, NFTNL_RULE_HANDLE, 5);
	nftnl_expr_set_u64(counter, NFTNL_EXPR_CTR_PACKETS, 7);
	nftnl_rule_add_expr(rule, counter);
	nftnl_rule_nlmsg_build_payload(h, rule);
	nftnl_rule_free(rule);
}

ssize_t mnl_socket_recvfrom(const struct mnl_socket *nl _unused_, void *buf, size_t size _unused_)
{
	const bool rules = asked_kind == NFT_MSG_GETRULE;
	struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, rules ? NFT_MSG_NEWRULE : NFT_MSG_NEWTABLE,
						   NFPROTO_INET, NLM_F_MULTI, asked_seq);
	struct nlmsghdr *done;

	if (rules)
		put_rule(h);
	else
		put_table(h);
	done = mnl_nlmsg_put_header((char *)buf + h->nlmsg_len);
	done->nlmsg_type = NLMSG_DONE;
	done->nlmsg_flags = NLM_F_MULTI;
	done->nlmsg_seq = asked_seq;
	mnl_nlmsg_put_extra_header(done, sizeof(int));
	return (ssize_t)(h->nlmsg_len + done->nlmsg_len);
}

/* The kernel dumps tables and rules one after the other. */
UNIT_TEST(nft_counters_are_of_the_table_that_is_named)
{
	static const uint64_t stands[] = {1, 0}, made_again[] = {1, 2, 2, 0},
			      changes_on[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,
					      10, 11, 12, 13, 14, 15, 16, 17, 0};
	static const struct {
		const uint64_t *tables, *last;
		uint64_t handle; /* 0: it cannot be read */
	} table[] = {
		{stands, stands, 1},
		{made_again, made_again + 2, 2},
		{changes_on, changes_on + 16, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char why[PROBE_WHY_MAX] = "";
		struct nft_dump dump;

		table_handles = table[i].tables;
		ck_assert_int_eq(nft_dump_read(&dump, why), table[i].handle ? 0 : -EINTR);
		ck_assert_ptr_eq(table_handles, table[i].last);
		if (table[i].handle) {
			ck_assert_uint_eq(dump.n_tables, 1);
			ck_assert_uint_eq(dump.tables[0].handle, table[i].handle);
			ck_assert_uint_eq(dump.n_rules, 1);
			ck_assert_uint_eq(dump.rules[0].packets, 7);
		}
		nft_dump_done(&dump);
	}
}

/* ---- parts ---- */

/* Items of a size, as a probe would write them. */
struct items {
	size_t next, n, size;
};

static void rewind_items(void *ctx)
{
	((struct items *)ctx)->next = 0;
}

static enum probe_part put_items(void *ctx, size_t part, size_t parts, struct json_writer *w)
{
	struct items *items = ctx;
	const size_t first = items->next;

	json_put_begin_object(w);
	probe_part_number(w, part, parts);
	json_put_key(w, "y");
	json_put_begin_array(w);
	for (; items->next < items->n; items->next++) {
		_cleanup_free_ char *text = malloc(items->size);
		const struct json_writer before = *w;

		memset(text, 'x', items->size);
		json_put_string(w, text, items->size);
		if (probe_part_full(w)) {
			*w = before;
			break;
		}
	}
	json_put_end_array(w);
	json_put_end_object(w);
	if (items->next == items->n)
		return PROBE_PART_LAST;
	return items->next > first ? PROBE_PART_MORE : PROBE_PART_STUCK;
}

UNIT_TEST(parts)
{
	static const struct {
		size_t n, size;
		size_t parts; /* 0: more than there may be */
	} table[] = {
		{0, 2, 1},
		{10, 100, 1},
		{4, 16384, 2},
		{64, 40000, 64},
		{65, 40000, 0},
		{1, PROBE_OUTPUT_MAX - 40, 1},
		{2, PROBE_OUTPUT_MAX - 60, 2},
		{1, PROBE_OUTPUT_MAX, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct items items = {.n = table[i].n, .size = table[i].size};
		struct probe_reading reading = {0};
		size_t found = 0;
		const int r = probe_reading_put(&reading, put_items, rewind_items, &items);

		ck_assert_int_eq(r, table[i].parts ? 0 : -EFBIG);
		for (size_t part = 0; r == 0 && part < reading.n_parts; part++) {
			const char *output = output_of(&reading, part);
			char want[64] = "{\"y\":[";

			if (reading.n_parts > 1)
				snprintf(want, sizeof(want), "{\"part\":%zu,\"parts\":%zu,\"y\":[",
					 part + 1, reading.n_parts);
			ck_assert(strncmp(output, want, strlen(want)) == 0);
			for (; (output = strstr(output, "\"xx")); output += 3)
				found++;
		}
		if (r == 0) {
			ck_assert_uint_eq(reading.n_parts, table[i].parts);
			ck_assert_uint_eq(found, table[i].n);
		}
		probe_reading_done(&reading);
	}
}

/* ---- the VMM's documents ---- */

static const char *add_to(struct fc_totals *totals, const char *json)
{
	struct json_document *doc = json_document_new(FC_DOCUMENT_MAX);
	struct json_document *scratch = json_document_new(FC_DOCUMENT_MAX);
	const char *what = "";
	static char text[FC_DOCUMENT_MAX + 1];
	size_t at;
	int r = json_document_read(doc, json, strlen(json), &what, &at);

	if (r == 0)
		r = fc_totals_add(totals, doc, scratch, &what);
	json_document_free(doc);
	json_document_free(scratch);
	if (r < 0)
		return what;
	memcpy(text, totals->json, totals->len);
	text[totals->len] = '\0';
	return text;
}

UNIT_TEST(fc_sums)
{
	struct fc_totals totals = {0};

	ck_assert_str_eq(add_to(&totals, "{\"utc_timestamp_ms\":5,\"vsock\":{\"conns_added\":2},"
					 "\"a\":{\"z\":1,\"agg\":{\"min_us\":1,\"max_us\":2,"
					 "\"sum_us\":3}},\"id\":\"x\"}"),
			 "{\"a\":{\"agg\":{\"sum_us\":3},\"z\":1},\"vsock\":{\"conns_added\":2}}");
	/* A device that comes, one that goes; what is stored is no sum. */
	ck_assert_str_eq(add_to(&totals,
				"{\"b\":{\"y\":1},\"a\":{\"z\":18446744073709551615},"
				"\"signals\":{\"sigbus\":1,\"sigpipe\":2},"
				"\"seccomp\":{\"num_faults\":3},\"vmm\":{\"panic_count\":1},"
				"\"latencies_us\":{\"x\":1},"
				"\"api_server\":{\"process_startup_time_cpu_us\":9}}"),
			 "{\"a\":{\"agg\":{\"sum_us\":3},\"z\":18446744073709551615},"
			 "\"api_server\":{},\"b\":{\"y\":1},\"latencies_us\":{},\"seccomp\":{},"
			 "\"signals\":{\"sigpipe\":2},\"vmm\":{},\"vsock\":{\"conns_added\":2}}");
	ck_assert_str_eq(add_to(&totals, "{\"a\":{\"z\":-1}}"),
			 "a counter is not an unsigned 64-bit number");
	ck_assert_str_eq(add_to(&totals, "{\"a\":{\"z\":18446744073709551616}}"),
			 "a counter is not an unsigned 64-bit number");
	ck_assert_str_eq(add_to(&totals, "{\"a\":{\"z\":{}}}"), "a counter became an object");
	/* None of those changed anything. */
	ck_assert_ptr_nonnull(strstr(add_to(&totals, "{}"), "\"z\":18446744073709551615"));
	fc_totals_done(&totals);
}

/* New counters with every document: to a limit, and no further. */
UNIT_TEST(fc_sums_limit)
{
	struct fc_totals totals = {0};
	size_t len = 0;
	unsigned n = 0;

	for (;;) {
		char json[8192], *at = json;

		at += sprintf(at, "{\"a\":{");
		for (unsigned i = 0; i < 150; i++)
			at += sprintf(at, "%s\"k%032u\":1", i ? "," : "", n++);
		strcpy(at, "}}");
		add_to(&totals, json);
		if (totals.len == len)
			break;
		len = totals.len;
		ck_assert_uint_lt(n, 10000);
	}
	ck_assert_uint_le(len, FC_DOCUMENT_MAX);
	ck_assert_uint_gt(len, FC_DOCUMENT_MAX - sizeof(char[8192]));
	fc_totals_done(&totals);
}

/* Without memory a reading fails. Its documents are no bad lines, and the next reading counts them.
 */
UNIT_TEST(fc_without_memory)
{
#define DOCUMENT "{\"utc_timestamp_ms\":9999999999999,\"vsock\":{\"conns_added\":2}}\n"
	char path[128], why[PROBE_WHY_MAX] = "";
	struct probe_options options = {.fc_metrics = path};
	bool failed = true;
	unsigned n;

	make_folder();
	snprintf(path, sizeof(path), "%s/metrics", folder);
	for (n = 1; failed; n++) {
		struct host_probe *probe = probe_fc_metrics.open(&options);
		struct probe_reading reading = {0};
		int r;

		put("metrics", DOCUMENT);
		ck_assert_int_eq(probe_fc_metrics.read(probe, &reading, why), 1);
		probe_reading_done(&reading);
		put("metrics", DOCUMENT DOCUMENT);
		scarce_from(n);
		r = probe_fc_metrics.read(probe, &reading, why);
		failed = scarce_end();
		ck_assert_int_eq(r, failed ? -ENOMEM : 1);
		if (failed)
			ck_assert_int_eq(probe_fc_metrics.read(probe, &reading, why), 1);
		ck_assert_uint_eq(reading.vmm_connections, 4);
		ck_assert_ptr_nonnull(strstr(reading.outputs, "\"badLines\":0,\"documents\":2,"));
		probe_reading_done(&reading);
		probe_fc_metrics.close(probe);
	}
	ck_assert_uint_gt(n, 3);
	remove_folder();
#undef DOCUMENT
}

/* The VMM's file, and a probe that has read it while it was empty: later lines are all new. */
static struct host_probe *open_vmm(void)
{
	char path[128], why[PROBE_WHY_MAX] = "";
	const struct probe_options options = {.fc_metrics = path};
	struct probe_reading reading = {0};
	struct host_probe *probe;

	make_folder();
	snprintf(path, sizeof(path), "%s/metrics", folder);
	put("metrics", "");
	probe = probe_fc_metrics.open(&options);
	ck_assert_int_eq(probe_fc_metrics.read(probe, &reading, why), 0);
	return probe;
}

static void close_vmm(struct host_probe *probe)
{
	probe_fc_metrics.close(probe);
	remove_folder();
}

/* NULL: nothing new. */
static const char *read_vmm(struct host_probe *probe)
{
	struct probe_reading reading = {0};
	char why[PROBE_WHY_MAX] = "";
	const char *text = NULL;
	const int r = probe_fc_metrics.read(probe, &reading, why);

	ck_assert_msg(r >= 0, "%s", why);
	if (r > 0) {
		text = output_of(&reading, 0);
		probe_reading_done(&reading);
	}
	return text;
}

static bool begins_with(const char *text, const char *want)
{
	return text && strncmp(text, want, strlen(want)) == 0;
}

#define DOCUMENT(ms) "{\"utc_timestamp_ms\":" ms ",\"vsock\":{\"conns_added\":2}}\n"

/* The file's time changes, and its content does not: a VMM may write over it from the beginning. */
UNIT_TEST(fc_a_document_that_is_read_again_counts_once)
{
	struct host_probe *probe = open_vmm();
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};

	put("metrics", DOCUMENT("9999999999999"));
	ck_assert(begins_with(read_vmm(probe), "{\"badLines\":0,\"documents\":1,"));
	for (unsigned i = 1; i <= 3; i++) {
		times[1].tv_sec = i;
		ck_assert_int_eq(utimensat(folder_fd, "metrics", times, 0), 0);
		ck_assert_ptr_null(read_vmm(probe));
	}
	close_vmm(probe);
}

/*
 * A line that was not whole when its file was truncated is one bad line, and no part of the next.
 * Each reading has one new line: a slow one may leave a second line to the next reading.
 */
UNIT_TEST(fc_a_truncated_line_is_one_bad_line)
{
	_cleanup_free_ char *overlong = malloc(FC_DOCUMENT_MAX + 1);
	struct host_probe *probe = open_vmm();

	put("metrics",
	    "{\"utc_timestamp_ms\":9999999999997,\"vsock\":{\"conns_added\":1},\"x\":{\"y");
	ck_assert_ptr_null(read_vmm(probe));
	put("metrics", DOCUMENT("9999999999998"));
	ck_assert(begins_with(read_vmm(probe), "{\"badLines\":1,\"documents\":1,"));
	/* What stands in a truncated file is new: a bad line there counts too. */
	put("metrics", "no document\n");
	ck_assert(begins_with(read_vmm(probe), "{\"badLines\":2,\"documents\":1,"));
	put("metrics", "");
	ck_assert_ptr_null(read_vmm(probe));
	/* One that is longer than any document is counted before it ends. */
	memset(overlong, 'x', FC_DOCUMENT_MAX + 1);
	put_bytes("metrics", overlong, FC_DOCUMENT_MAX + 1);
	ck_assert(begins_with(read_vmm(probe), "{\"badLines\":3,\"documents\":1,"));
	put("metrics", DOCUMENT("9999999999999"));
	ck_assert(begins_with(read_vmm(probe), "{\"badLines\":3,\"documents\":2,"));
	close_vmm(probe);
}
#undef DOCUMENT

/* ---- options ---- */

/* The name becomes part of a path. */
UNIT_TEST(options_interfaces)
{
	static const char *const good[] = {"t", "tap0", "a_b.c-1", "...", "fifteen-letters"};
	static const char *const bad[] = {"",	 ".",	 "..",	     "a/b",
					  "a b", "tap%", "\xc3\xa9", "sixteen--letters"};
	struct probe_options o = {0};
	const char *expected;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(probe_options_set(&o, "tap", good[i], &expected) == 1, "%s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(probe_options_set(&o, "tap", bad[i], &expected) == -EINVAL, "%s",
			      bad[i]);
}

UNIT_TEST(options_paths)
{
	char path[PROBE_PATH_MAX + 3];
	struct probe_options o = {0};
	const char *expected;

	for (int by = -1; by <= 1; by++) {
		memset(path, 'x', sizeof(path));
		path[0] = '/';
		path[(int)PROBE_PATH_MAX + by] = '\0';
		ck_assert_int_eq(probe_options_set(&o, "cgroup", path, &expected),
				 by > 0 ? -EINVAL : 1);
	}
	ck_assert_int_eq(probe_options_set(&o, "cgroup", "/with a space", &expected), 1);
	ck_assert_int_eq(probe_options_set(&o, "cgroup", "/with\na line", &expected), -EINVAL);
	ck_assert_int_eq(probe_options_set(&o, "rate", "1", &expected), 0);
	ck_assert_int_eq(probe_options_set(&o, "probe-interval", "100", &expected), 1);
	ck_assert_uint_eq(o.interval_ms, 100);
	o = (struct probe_options){.fc_api = "/a"};
	ck_assert_int_eq(probe_options_check(&o, &expected), -EINVAL);
	o.fc_metrics = "/m";
	ck_assert_int_eq(probe_options_check(&o, &expected), 0);
}
