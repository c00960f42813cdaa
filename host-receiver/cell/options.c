/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/options.h"

#include "common/util.h"

const char *const cell_option_names[] = {
	"uds",
	"cell-id",
	"run-id",
	"spec-hash",
	"keepalive",
	"connect-within",
	"peer-uid",
	"rate",
	"socket-owner",
	"socket-mode",
	"cgroup",
	"tap",
	"nft-table",
	"fc-metrics",
	"fc-api",
	"probe-interval",
	"witness-before",
	"witness-after",
	NULL,
};

const char cell_options_help[] =
	"  --uds BASE             the VMM's vsock base path; the socket is BASE_9001\n"
	"  --cell-id ID           who it is, in every event: 1..128 of [A-Za-z0-9._:-]\n"
	"  --run-id RUN           the same for the run\n"
	"  --spec-hash HASH       sha256: and 64 hexadecimal digits\n"
	"  --keepalive MS         silence window (default 10000; 0: off)\n"
	"  --connect-within MS    a first connection is expected by then (default 30000; 0: off)\n"
	"  --rate FRAMES          frames a second, twice that in a burst (default 20000)\n"
	"  --peer-uid UID         only this user may connect\n"
	"  --socket-owner UID:GID owner of the socket\n"
	"  --socket-mode MODE     its mode, octal (default 0660)\n"
	"  --cgroup DIR           the VMM's cgroup v2 leaf: memory, CPU and pids events\n"
	"  --tap IFACE            the cell's network interface: its state and counters\n"
	"  --nft-table TABLE      the cell's nftables table, [FAMILY/]TABLE: its rules' counters\n"
	"  --fc-metrics PATH      the file or FIFO that the VMM writes its metrics to\n"
	"  --fc-api SOCKET        the VMM's API socket, to ask for them before each reading\n"
	"  --probe-interval MS    between two readings of a probe (default 5000)\n"
	"  --witness-before MS    a declared connect's packets may come so much before its frame\n"
	"                         (default: the probe interval)\n"
	"  --witness-after MS     or so much behind it (default: two probe intervals)\n";

void cell_options_defaults(struct cell_options *o)
{
	*o = (struct cell_options){
		.keepalive_ms = CELL_KEEPALIVE_DEFAULT_MS,
		.connect_within_ms = CELL_CONNECT_WITHIN_DEFAULT_MS,
		.rate = CELL_RATE_DEFAULT,
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

static int expected(char why[CELL_WHY_MAX], const char *name, const char *value, const char *what)
{
	snprintf(why, CELL_WHY_MAX, "--%s %.64s: expected %s", name, value, what);
	return -EINVAL;
}

static int set_id(const char **field, const char *name, const char *value, char why[CELL_WHY_MAX])
{
	if (!id_valid(value))
		return expected(why, name, value, "1..128 bytes of [A-Za-z0-9._:-]");
	*field = value;
	return 0;
}

static int set_number(unsigned *field, const char *name, const char *value, uint64_t min,
		      uint64_t max, char why[CELL_WHY_MAX])
{
	char what[64];
	uint64_t v;

	if (parse_u64(value, min, max, &v) < 0) {
		snprintf(what, sizeof(what), "a whole number of %" PRIu64 "..%" PRIu64, min, max);
		return expected(why, name, value, what);
	}
	*field = (unsigned)v;
	return 0;
}

static int set_owner(struct cell_options *o, const char *value, char why[CELL_WHY_MAX])
{
	const char *colon = strchr(value, ':');
	char uid_text[16];
	uint64_t uid, gid;

	if (!colon || (size_t)(colon - value) >= sizeof(uid_text))
		return expected(why, "socket-owner", value, "UID:GID");
	memcpy(uid_text, value, (size_t)(colon - value));
	uid_text[colon - value] = '\0';
	if (parse_u64(uid_text, 0, UINT32_MAX - 1, &uid) < 0 ||
	    parse_u64(colon + 1, 0, UINT32_MAX - 1, &gid) < 0)
		return expected(why, "socket-owner", value, "UID:GID as numbers");
	o->set_owner = true;
	o->socket_uid = (uid_t)uid;
	o->socket_gid = (gid_t)gid;
	return 0;
}

static int set_mode(struct cell_options *o, const char *value, char why[CELL_WHY_MAX])
{
	const size_t len = strlen(value);

	if (len < 1 || len > 4 || strspn(value, "01234567") != len ||
	    strtoul(value, NULL, 8) > 0777)
		return expected(why, "socket-mode", value, "an octal mode of 0..0777");
	o->socket_mode = (mode_t)strtoul(value, NULL, 8);
	return 0;
}

int cell_options_set(struct cell_options *o, const char *name, const char *value,
		     char why[CELL_WHY_MAX])
{
	const char *wanted;
	unsigned uid;
	int r = probe_options_set(&o->probes, name, value, &wanted);

	if (r != 0)
		return r < 0 ? expected(why, name, value, wanted) : 0;
	if (strcmp(name, "uds") == 0) {
		o->uds_base = value;
		return *value ? 0 : expected(why, name, value, "a path");
	}
	if (strcmp(name, "cell-id") == 0)
		return set_id(&o->cell_id, name, value, why);
	if (strcmp(name, "run-id") == 0)
		return set_id(&o->run_id, name, value, why);
	if (strcmp(name, "spec-hash") == 0) {
		o->spec_hash = value;
		return hash_valid(value)
			       ? 0
			       : expected(why, name, value, "sha256: and 64 hexadecimal digits");
	}
	if (strcmp(name, "keepalive") == 0)
		return set_number(&o->keepalive_ms, name, value, 0, 86400000, why);
	if (strcmp(name, "connect-within") == 0)
		return set_number(&o->connect_within_ms, name, value, 0, 86400000, why);
	if (strcmp(name, "rate") == 0)
		return set_number(&o->rate, name, value, 1, 1000000000, why);
	if (strcmp(name, "witness-before") == 0)
		return set_number(&o->witness_before_ms, name, value, 1, 86400000, why);
	if (strcmp(name, "witness-after") == 0)
		return set_number(&o->witness_after_ms, name, value, 1, 86400000, why);
	if (strcmp(name, "socket-owner") == 0)
		return set_owner(o, value, why);
	if (strcmp(name, "socket-mode") == 0)
		return set_mode(o, value, why);
	r = set_number(&uid, name, value, 0, UINT32_MAX - 1, why);
	if (r == 0) {
		o->check_peer_uid = true;
		o->peer_uid = uid;
	}
	return r;
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
