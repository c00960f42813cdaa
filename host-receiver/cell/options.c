/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/options.h"

#include "common/util.h"

void cell_options_defaults(struct cell_options *o)
{
	*o = (struct cell_options){
		.keepalive_ms = CELL_KEEPALIVE_DEFAULT_MS,
		.connect_within_ms = CELL_CONNECT_WITHIN_DEFAULT_MS,
		.socket_mode = CELL_SOCKET_MODE_DEFAULT,
		.probes.interval_ms = PROBE_INTERVAL_DEFAULT_MS,
	};
}

static bool id_valid(const char *s)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._:-";
	const size_t len = strlen(s);

	return len >= 1 && len <= CELL_ID_MAX && strspn(s, allowed) == len;
}

static bool hash_valid(const char *s)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	const size_t prefix = sizeof(CELL_HASH_PREFIX) - 1;

	return strncmp(s, CELL_HASH_PREFIX, prefix) == 0 &&
	       strlen(s) == prefix + CELL_HASH_DIGITS &&
	       strspn(s + prefix, digits) == CELL_HASH_DIGITS;
}

static int expected(char why[OPTION_WHY_MAX], const char *what)
{
	snprintf(why, OPTION_WHY_MAX, "expected %s", what);
	return -EINVAL;
}

static int set_uds(void *target, const struct option_row *row, const char *value,
		   char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;

	(void)row;
	o->uds_base = value;
	return *value ? 0 : expected(why, "a path");
}

static int set_id(void *target, const struct option_row *row, const char *value,
		  char why[OPTION_WHY_MAX])
{
	if (!id_valid(value))
		return expected(why, "1..128 bytes of [A-Za-z0-9._:-]");
	*(const char **)((char *)target + row->offset) = value;
	return 0;
}

static int set_hash(void *target, const struct option_row *row, const char *value,
		    char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;

	(void)row;
	o->spec_hash = value;
	return hash_valid(value) ? 0 : expected(why, "sha256: and 64 hexadecimal digits");
}

static int set_peer(void *target, const struct option_row *row, const char *value,
		    char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;
	uint64_t uid;

	(void)row;
	if (parse_u64(value, 0, UINT32_MAX - 1, &uid) < 0)
		return expected(why, "a whole number of 0..4294967294");
	o->check_peer_uid = true;
	o->peer_uid = (uid_t)uid;
	return 0;
}

static int set_owner(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;
	const char *colon = strchr(value, ':');
	char uid_text[16];
	uint64_t uid, gid;

	(void)row;
	if (!colon || (size_t)(colon - value) >= sizeof(uid_text))
		return expected(why, "UID:GID");
	memcpy(uid_text, value, (size_t)(colon - value));
	uid_text[colon - value] = '\0';
	if (parse_u64(uid_text, 0, UINT32_MAX - 1, &uid) < 0 ||
	    parse_u64(colon + 1, 0, UINT32_MAX - 1, &gid) < 0)
		return expected(why, "UID:GID as numbers");
	o->set_owner = true;
	o->socket_uid = (uid_t)uid;
	o->socket_gid = (gid_t)gid;
	return 0;
}

static int set_mode(void *target, const struct option_row *row, const char *value,
		    char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;
	const size_t len = strlen(value);

	(void)row;
	if (len < 1 || len > 4 || strspn(value, "01234567") != len ||
	    strtoul(value, NULL, 8) > 0777)
		return expected(why, "an octal mode of 0..0777");
	o->socket_mode = (mode_t)strtoul(value, NULL, 8);
	return 0;
}

static int set_probe(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct cell_options *o = target;
	const char *wanted = "another value";

	if (probe_options_set(&o->probes, row->name, value, &wanted) > 0)
		return 0;
	return expected(why, wanted);
}

#define SETS_NUMBER(member, least, most)                                                           \
	OPTION_SETS_NUMBER(struct cell_options, member, least, most)
#define SETS_ID(member)                                                                            \
	.kind = OPTION_CALL, .set = set_id, .offset = offsetof(struct cell_options, member)
#define DAY_MS 86400000u

const struct option_row cell_option_rows[] = {
	{"uds", "BASE", "the VMM's vsock base path; the socket is BASE_9001",
	 OPTION_CALLS(set_uds)},
	{"cell-id", "ID", "who it is, in every event: 1..128 of [A-Za-z0-9._:-]", SETS_ID(cell_id)},
	{"run-id", "RUN", "the same for the run", SETS_ID(run_id)},
	{"spec-hash", "HASH", "sha256: and 64 hexadecimal digits", OPTION_CALLS(set_hash)},
	{"keepalive", "MS", "silence window (default 10000; 0: off)",
	 SETS_NUMBER(keepalive_ms, 0, DAY_MS)},
	{"connect-within", "MS", "a first connection is expected by then (default 30000; 0: off)",
	 SETS_NUMBER(connect_within_ms, 0, DAY_MS)},
	{"rate", "EVENTS", "events a second, twice that in a burst (default 20000)",
	 SETS_NUMBER(rate, 1, 1000000000)},
	{"rate-bytes", "BYTES",
	 "bytes of evidence a second, eight times that in a burst\n(default 16777216)",
	 SETS_NUMBER(rate_bytes, 65536, 2147483648)},
	{"rate-connections", "N", "connections a second, twice that in a burst (default 10)",
	 SETS_NUMBER(rate_connections, 1, 1000000)},
	{"peer-uid", "UID", "only this user may connect", OPTION_CALLS(set_peer)},
	{"socket-owner", "UID:GID", "owner of the socket", OPTION_CALLS(set_owner)},
	{"socket-mode", "MODE", "its mode, octal (default 0660)", OPTION_CALLS(set_mode)},
	{"cgroup", "DIR", "the VMM's cgroup v2 leaf: memory, CPU and pids events",
	 OPTION_CALLS(set_probe)},
	{"tap", "IFACE", "the cell's network interface: its state and counters",
	 OPTION_CALLS(set_probe)},
	{"nft-table", "TABLE", "the cell's nftables table, [FAMILY/]TABLE: its rules' counters",
	 OPTION_CALLS(set_probe)},
	{"fc-metrics", "PATH", "the file or FIFO that the VMM writes its metrics to",
	 OPTION_CALLS(set_probe)},
	{"fc-api", "SOCKET", "the VMM's API socket, to ask for them before each reading",
	 OPTION_CALLS(set_probe)},
	{"probe-interval", "MS", "between two readings of a probe (default 5000)",
	 OPTION_CALLS(set_probe)},
	{"witness-before", "MS",
	 "a declared connect's packets may come so long before its frame\n"
	 "(default: the probe interval)",
	 SETS_NUMBER(witness_before_ms, 1, DAY_MS)},
	{"witness-after", "MS", "or so long after it (default: two probe intervals)",
	 SETS_NUMBER(witness_after_ms, 1, DAY_MS)},
};
_Static_assert(ARRAY_SIZE(cell_option_rows) == CELL_OPTION_ROWS, "the header's number");

int cell_options_set(struct cell_options *o, const char *name, const char *value,
		     char why[CELL_WHY_MAX])
{
	const struct option_row *row =
		option_find(cell_option_rows, CELL_OPTION_ROWS, name, strlen(name));
	char wanted[OPTION_WHY_MAX];

	if (!row) {
		snprintf(why, CELL_WHY_MAX, "--%.64s: no such option", name);
		return -EINVAL;
	}
	if (option_set(row, o, value, wanted) == 0)
		return 0;
	snprintf(why, CELL_WHY_MAX, "--%s %.64s: %.200s", name, value, wanted);
	return -EINVAL;
}

int cell_options_check(const struct cell_options *o, char why[CELL_WHY_MAX])
{
	const struct {
		const char *name, *value;
	} mandatory[] = {
		{"uds", o->uds_base},
		{"cell-id", o->cell_id},
		{"run-id", o->run_id},
		{"spec-hash", o->spec_hash},
	};
	const char *wrong;

	for (size_t i = 0; i < ARRAY_SIZE(mandatory); i++)
		if (!mandatory[i].value) {
			snprintf(why, CELL_WHY_MAX, "--%s is missing", mandatory[i].name);
			return -EINVAL;
		}
	/* It stands in log lines. */
	for (const char *c = o->uds_base; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f) {
			snprintf(why, CELL_WHY_MAX,
				 "--uds: expected a path without control characters");
			return -EINVAL;
		}
	if (probe_options_check(&o->probes, &wrong) < 0) {
		snprintf(why, CELL_WHY_MAX, "%s", wrong);
		return -EINVAL;
	}
	return 0;
}

int cell_options_look(const struct cell_options *o, char why[CELL_WHY_MAX])
{
	_Static_assert(CELL_WHY_MAX >= PROBE_WHY_MAX, "a sentence fits");
	return probe_options_look(&o->probes, why);
}
