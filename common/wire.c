/* SPDX-License-Identifier: MIT */
/*
 * The tables of the wire contract: the sources, and the keys that their details may have and must
 * have. One row for each name; all other code asks these tables.
 */
#include "common/wire.h"

#include <assert.h>
#include <string.h>

#include "common/utf8.h"
#include "common/util.h"

#define K(name) (UINT64_C(1) << WIRE_KEY_##name)

/* A literal with its length, so that a lookup compares lengths before bytes. */
#define T(literal) literal, sizeof(literal) - 1

/* A repeated observation is folded into one (wire.md section 4.3). */
#define FOLDED (K(REPEAT) | K(LAST_NS))

/* The rows contain the names, because each pointer would also need a relocation. */
static const struct {
	char name[31];
	uint8_t name_len;
	uint64_t required, optional;
} sources[] = {
	[WIRE_PROCESS_SPAWNED] = {T("process.spawned"), K(PPID), FOLDED},
	[WIRE_PROCESS_EXECUTED] = {T("process.executed"), K(EXE),
				   K(PPID) | K(RESOLVED) | K(WHY) | K(UID) | K(EUID) | K(CWD) |
					   K(ARGS) | K(ARGS_CUT) | FOLDED},
	[WIRE_PROCESS_IDENTITY_CHANGED] = {T("process.identity_changed"), K(KIND),
					   K(REAL) | K(EFFECTIVE) | K(EXE) | FOLDED},
	[WIRE_PROCESS_SESSION_STARTED] = {T("process.session_started"), 0, K(PPID) | FOLDED},
	[WIRE_PROCESS_TRACED] = {T("process.traced"), K(TRACER_PID), K(TRACER_COMM) | FOLDED},
	[WIRE_PROCESS_CORE_DUMPED] = {T("process.core_dumped"), 0, K(SIGNAL) | FOLDED},
	[WIRE_PROCESS_EXITED] = {T("process.exited"), 0,
				 K(EXIT_CODE) | K(SIGNAL) | K(CORE) | K(PPID) | FOLDED},
	[WIRE_NET_CONNECT_ATTEMPTED] = {T("net.connect_attempted"),
					K(FAMILY) | K(ADDRESS) | K(PORT),
					K(RESULT) | K(EXE) | K(VIA) | FOLDED},
	[WIRE_NET_DATAGRAM_SENT] = {T("net.datagram_sent"), K(FAMILY) | K(ADDRESS) | K(PORT),
				    K(PROTOCOL) | K(EXE) | FOLDED},
	[WIRE_NET_BOUND] = {T("net.bound"), K(FAMILY) | K(ADDRESS) | K(PORT),
			    K(PROTOCOL) | K(EXE) | FOLDED},
	[WIRE_NET_SOCKET_CREATED] = {T("net.socket_created"), K(FAMILY) | K(TYPE) | K(PROTOCOL),
				     K(EXE) | FOLDED},
	[WIRE_CAPABILITY_DENIED] = {T("capability.denied"), K(SYSCALL) | K(ERROR),
				    K(CAPABILITY) | K(EXE) | K(VIA) | FOLDED},
	[WIRE_FS_CHANGED] = {T("fs.changed"), K(PATH) | K(EVENT), K(NAME) | K(EXE) | FOLDED},
	[WIRE_FS_INOTIFY_FIRED] = {T("fs.inotify_fired"), K(PATH) | K(EVENT), K(NAME) | FOLDED},
	[WIRE_TELEMETRY_DROPPED] = {T("telemetry.dropped"),
				    K(QUEUE_FULL) | K(TOO_LARGE) | K(CHANNEL) | K(KERNEL_OVERRUN),
				    K(FIRST_SEQ) | K(LAST_SEQ) | K(FIRST_NS) | K(LAST_NS) |
					    K(PROCESS_LOST) | K(NET_LOST) | K(CAPABILITY_LOST) |
					    K(FS_LOST)},
	[WIRE_TELEMETRY_HELLO] = {T("telemetry.hello"), K(AGENT_VERSION) | K(SESSION) | K(NEXT_SEQ),
				  K(KERNEL) | K(ARCH) | K(BOOT_ID) | K(PROCESS_VIA) | K(NET_VIA) |
					  K(CAPABILITY_VIA) | K(FS_VIA) | K(HEARTBEAT_MS) |
					  K(QUEUE_CAPACITY) | K(ACKS) | K(ASSIGNED)},
	[WIRE_TELEMETRY_HEARTBEAT] = {T("telemetry.heartbeat"),
				      K(OBSERVED) | K(SENT) | K(DROPPED) | K(KERNEL_LOST) |
					      K(NEXT_SEQ),
				      K(QUEUE_PEAK) | K(PROCESS_OK)},
	[WIRE_TELEMETRY_BYE] = {T("telemetry.bye"), K(REASON) | K(NEXT_SEQ),
				K(OBSERVED) | K(SENT) | K(DROPPED)},
};
_Static_assert(ARRAY_SIZE(sources) == _WIRE_SOURCE_MAX, "a row for each source");

static const struct {
	char name[15];
	uint8_t name_len;
	uint8_t type; /* enum wire_type */
} keys[] = {
	[WIRE_KEY_ACKS] = {T("acks"), WIRE_TYPE_BOOL},
	[WIRE_KEY_ADDRESS] = {T("address"), WIRE_TYPE_TEXT},
	[WIRE_KEY_AGENT_VERSION] = {T("agent_version"), WIRE_TYPE_TEXT},
	[WIRE_KEY_ARCH] = {T("arch"), WIRE_TYPE_TEXT},
	[WIRE_KEY_ARGS] = {T("args"), WIRE_TYPE_TEXT},
	[WIRE_KEY_ARGS_CUT] = {T("args_cut"), WIRE_TYPE_BOOL},
	[WIRE_KEY_ASSIGNED] = {T("assigned"), WIRE_TYPE_UINT},
	[WIRE_KEY_BOOT_ID] = {T("boot_id"), WIRE_TYPE_TEXT},
	[WIRE_KEY_CAPABILITY] = {T("capability"), WIRE_TYPE_TEXT},
	[WIRE_KEY_CAPABILITY_LOST] = {T("capability"), WIRE_TYPE_UINT},
	[WIRE_KEY_CAPABILITY_VIA] = {T("capability_via"), WIRE_TYPE_TEXT},
	[WIRE_KEY_CHANNEL] = {T("channel"), WIRE_TYPE_UINT},
	[WIRE_KEY_CORE] = {T("core"), WIRE_TYPE_BOOL},
	[WIRE_KEY_CWD] = {T("cwd"), WIRE_TYPE_TEXT},
	[WIRE_KEY_DROPPED] = {T("dropped"), WIRE_TYPE_UINT},
	[WIRE_KEY_EFFECTIVE] = {T("effective"), WIRE_TYPE_UINT},
	[WIRE_KEY_ERROR] = {T("error"), WIRE_TYPE_TEXT},
	[WIRE_KEY_EUID] = {T("euid"), WIRE_TYPE_UINT},
	[WIRE_KEY_EVENT] = {T("event"), WIRE_TYPE_TEXT},
	[WIRE_KEY_EXE] = {T("exe"), WIRE_TYPE_TEXT},
	[WIRE_KEY_EXIT_CODE] = {T("exit_code"), WIRE_TYPE_UINT},
	[WIRE_KEY_FAMILY] = {T("family"), WIRE_TYPE_TEXT},
	[WIRE_KEY_FIRST_NS] = {T("first_ns"), WIRE_TYPE_UINT},
	[WIRE_KEY_FIRST_SEQ] = {T("first_seq"), WIRE_TYPE_UINT},
	[WIRE_KEY_FS_LOST] = {T("fs"), WIRE_TYPE_UINT},
	[WIRE_KEY_FS_VIA] = {T("fs_via"), WIRE_TYPE_TEXT},
	[WIRE_KEY_HEARTBEAT_MS] = {T("heartbeat_ms"), WIRE_TYPE_UINT},
	[WIRE_KEY_KERNEL] = {T("kernel"), WIRE_TYPE_TEXT},
	[WIRE_KEY_KERNEL_LOST] = {T("kernel_lost"), WIRE_TYPE_UINT},
	[WIRE_KEY_KERNEL_OVERRUN] = {T("kernel_overrun"), WIRE_TYPE_UINT},
	[WIRE_KEY_KIND] = {T("kind"), WIRE_TYPE_TEXT},
	[WIRE_KEY_LAST_NS] = {T("last_ns"), WIRE_TYPE_UINT},
	[WIRE_KEY_LAST_SEQ] = {T("last_seq"), WIRE_TYPE_UINT},
	[WIRE_KEY_NAME] = {T("name"), WIRE_TYPE_TEXT},
	[WIRE_KEY_NET_LOST] = {T("net"), WIRE_TYPE_UINT},
	[WIRE_KEY_NET_VIA] = {T("net_via"), WIRE_TYPE_TEXT},
	[WIRE_KEY_NEXT_SEQ] = {T("next_seq"), WIRE_TYPE_UINT},
	[WIRE_KEY_OBSERVED] = {T("observed"), WIRE_TYPE_UINT},
	[WIRE_KEY_PATH] = {T("path"), WIRE_TYPE_TEXT},
	[WIRE_KEY_PORT] = {T("port"), WIRE_TYPE_UINT},
	[WIRE_KEY_PPID] = {T("ppid"), WIRE_TYPE_UINT},
	[WIRE_KEY_PROCESS_LOST] = {T("process"), WIRE_TYPE_UINT},
	[WIRE_KEY_PROCESS_OK] = {T("process_ok"), WIRE_TYPE_BOOL},
	[WIRE_KEY_PROCESS_VIA] = {T("process_via"), WIRE_TYPE_TEXT},
	[WIRE_KEY_PROTOCOL] = {T("protocol"), WIRE_TYPE_TEXT},
	[WIRE_KEY_QUEUE_CAPACITY] = {T("queue_capacity"), WIRE_TYPE_UINT},
	[WIRE_KEY_QUEUE_FULL] = {T("queue_full"), WIRE_TYPE_UINT},
	[WIRE_KEY_QUEUE_PEAK] = {T("queue_peak"), WIRE_TYPE_UINT},
	[WIRE_KEY_REAL] = {T("real"), WIRE_TYPE_UINT},
	[WIRE_KEY_REASON] = {T("reason"), WIRE_TYPE_TEXT},
	[WIRE_KEY_REPEAT] = {T("repeat"), WIRE_TYPE_UINT},
	[WIRE_KEY_RESOLVED] = {T("resolved"), WIRE_TYPE_BOOL},
	[WIRE_KEY_RESULT] = {T("result"), WIRE_TYPE_TEXT},
	[WIRE_KEY_SENT] = {T("sent"), WIRE_TYPE_UINT},
	[WIRE_KEY_SESSION] = {T("session"), WIRE_TYPE_TEXT},
	[WIRE_KEY_SIGNAL] = {T("signal"), WIRE_TYPE_UINT},
	[WIRE_KEY_SYSCALL] = {T("syscall"), WIRE_TYPE_TEXT},
	[WIRE_KEY_TOO_LARGE] = {T("too_large"), WIRE_TYPE_UINT},
	[WIRE_KEY_TRACER_COMM] = {T("tracer_comm"), WIRE_TYPE_TEXT},
	[WIRE_KEY_TRACER_PID] = {T("tracer_pid"), WIRE_TYPE_UINT},
	[WIRE_KEY_TYPE] = {T("type"), WIRE_TYPE_TEXT},
	[WIRE_KEY_UID] = {T("uid"), WIRE_TYPE_UINT},
	[WIRE_KEY_VIA] = {T("via"), WIRE_TYPE_TEXT},
	[WIRE_KEY_WHY] = {T("why"), WIRE_TYPE_TEXT},
};
_Static_assert(ARRAY_SIZE(keys) == _WIRE_KEY_MAX, "a row for each key");

/*
 * The names in the evidence. They are in a table of their own, which the linker removes from the
 * agent.
 */
static const struct wire_text camel_names[] = {
	[WIRE_KEY_ACKS] = {T("acks")},
	[WIRE_KEY_ADDRESS] = {T("address")},
	[WIRE_KEY_AGENT_VERSION] = {T("agentVersion")},
	[WIRE_KEY_ARCH] = {T("arch")},
	[WIRE_KEY_ARGS] = {T("args")},
	[WIRE_KEY_ARGS_CUT] = {T("argsCut")},
	[WIRE_KEY_ASSIGNED] = {T("assigned")},
	[WIRE_KEY_BOOT_ID] = {T("bootId")},
	[WIRE_KEY_CAPABILITY] = {T("capability")},
	[WIRE_KEY_CAPABILITY_LOST] = {T("capability")},
	[WIRE_KEY_CAPABILITY_VIA] = {T("capabilityVia")},
	[WIRE_KEY_CHANNEL] = {T("channel")},
	[WIRE_KEY_CORE] = {T("core")},
	[WIRE_KEY_CWD] = {T("cwd")},
	[WIRE_KEY_DROPPED] = {T("dropped")},
	[WIRE_KEY_EFFECTIVE] = {T("effective")},
	[WIRE_KEY_ERROR] = {T("error")},
	[WIRE_KEY_EUID] = {T("euid")},
	[WIRE_KEY_EVENT] = {T("event")},
	[WIRE_KEY_EXE] = {T("exe")},
	[WIRE_KEY_EXIT_CODE] = {T("exitCode")},
	[WIRE_KEY_FAMILY] = {T("family")},
	[WIRE_KEY_FIRST_NS] = {T("firstNs")},
	[WIRE_KEY_FIRST_SEQ] = {T("firstSeq")},
	[WIRE_KEY_FS_LOST] = {T("fs")},
	[WIRE_KEY_FS_VIA] = {T("fsVia")},
	[WIRE_KEY_HEARTBEAT_MS] = {T("heartbeatMs")},
	[WIRE_KEY_KERNEL] = {T("kernel")},
	[WIRE_KEY_KERNEL_LOST] = {T("kernelLost")},
	[WIRE_KEY_KERNEL_OVERRUN] = {T("kernelOverrun")},
	[WIRE_KEY_KIND] = {T("kind")},
	[WIRE_KEY_LAST_NS] = {T("lastNs")},
	[WIRE_KEY_LAST_SEQ] = {T("lastSeq")},
	[WIRE_KEY_NAME] = {T("name")},
	[WIRE_KEY_NET_LOST] = {T("net")},
	[WIRE_KEY_NET_VIA] = {T("netVia")},
	[WIRE_KEY_NEXT_SEQ] = {T("nextSeq")},
	[WIRE_KEY_OBSERVED] = {T("observed")},
	[WIRE_KEY_PATH] = {T("path")},
	[WIRE_KEY_PORT] = {T("port")},
	[WIRE_KEY_PPID] = {T("ppid")},
	[WIRE_KEY_PROCESS_LOST] = {T("process")},
	[WIRE_KEY_PROCESS_OK] = {T("processOk")},
	[WIRE_KEY_PROCESS_VIA] = {T("processVia")},
	[WIRE_KEY_PROTOCOL] = {T("protocol")},
	[WIRE_KEY_QUEUE_CAPACITY] = {T("queueCapacity")},
	[WIRE_KEY_QUEUE_FULL] = {T("queueFull")},
	[WIRE_KEY_QUEUE_PEAK] = {T("queuePeak")},
	[WIRE_KEY_REAL] = {T("real")},
	[WIRE_KEY_REASON] = {T("reason")},
	[WIRE_KEY_REPEAT] = {T("repeat")},
	[WIRE_KEY_RESOLVED] = {T("resolved")},
	[WIRE_KEY_RESULT] = {T("result")},
	[WIRE_KEY_SENT] = {T("sent")},
	[WIRE_KEY_SESSION] = {T("session")},
	[WIRE_KEY_SIGNAL] = {T("signal")},
	[WIRE_KEY_SYSCALL] = {T("syscall")},
	[WIRE_KEY_TOO_LARGE] = {T("tooLarge")},
	[WIRE_KEY_TRACER_COMM] = {T("tracerComm")},
	[WIRE_KEY_TRACER_PID] = {T("tracerPid")},
	[WIRE_KEY_TYPE] = {T("type")},
	[WIRE_KEY_UID] = {T("uid")},
	[WIRE_KEY_VIA] = {T("via")},
	[WIRE_KEY_WHY] = {T("why")},
};
_Static_assert(ARRAY_SIZE(camel_names) == _WIRE_KEY_MAX, "a name for each key");

static const char *const errors[] = {
	[WIRE_OK] = "ok",
	[WIRE_UNSUPPORTED_VERSION] = "unsupported_version",
	[WIRE_UNKNOWN_SOURCE] = "unknown_source",
	[WIRE_FRAME_LENGTH] = "frame_length",
	[WIRE_TRUNCATED] = "truncated",
	[WIRE_MALFORMED_CBOR] = "malformed_cbor",
	[WIRE_NOT_A_MAP] = "not_a_map",
	[WIRE_INDEFINITE_LENGTH] = "indefinite_length",
	[WIRE_TRAILING_BYTES] = "trailing_bytes",
	[WIRE_DUPLICATE_FIELD] = "duplicate_field",
	[WIRE_MISSING_FIELD] = "missing_field",
	[WIRE_BAD_TYPE] = "bad_type",
	[WIRE_OUT_OF_RANGE] = "out_of_range",
	[WIRE_INVALID_UTF8] = "invalid_utf8",
	[WIRE_TOO_DEEP] = "too_deep",
	[WIRE_TOO_MANY_PAIRS] = "too_many_pairs",
};
_Static_assert(ARRAY_SIZE(errors) == _WIRE_ERROR_MAX, "a name for each error");

const char *wire_source_name(enum wire_source source)
{
	return sources[source].name;
}

uint64_t wire_source_allowed(enum wire_source source)
{
	return sources[source].required | sources[source].optional;
}

uint64_t wire_source_required(enum wire_source source)
{
	return sources[source].required;
}

const char *wire_key_name(enum wire_key key)
{
	return keys[key].name;
}

struct wire_text wire_key_camel(enum wire_key key)
{
	return camel_names[key];
}

enum wire_type wire_key_type(enum wire_key key)
{
	return (enum wire_type)keys[key].type;
}

const char *wire_error_name(enum wire_error error)
{
	return errors[error];
}

static bool same_text(struct wire_text text, const char *name, size_t len)
{
	return text.len == len && memcmp(text.data, name, len) == 0;
}

enum wire_source wire_source_from_name(struct wire_text name)
{
	for (int i = 0; i < _WIRE_SOURCE_MAX; i++)
		if (same_text(name, sources[i].name, sources[i].name_len))
			return (enum wire_source)i;
	return _WIRE_SOURCE_INVALID;
}

enum wire_key wire_key_from_name(enum wire_source source, struct wire_text name)
{
	for (uint64_t left = wire_source_allowed(source); left; left &= left - 1) {
		const int key = __builtin_ctzll(left);

		if (same_text(name, keys[key].name, keys[key].name_len))
			return (enum wire_key)key;
	}
	return _WIRE_KEY_INVALID;
}

static struct wire_detail *add_detail(struct declaration *d, enum wire_key key, enum wire_type type)
{
	struct wire_detail *detail;

	assert(d->n_details < WIRE_DETAIL_PAIRS_MAX);
	assert(keys[key].type == type);
	detail = &d->details[d->n_details++];
	detail->key = key;
	detail->type = type;
	return detail;
}

void declaration_add_uint(struct declaration *d, enum wire_key key, uint64_t value)
{
	add_detail(d, key, WIRE_TYPE_UINT)->uint = value;
}

void declaration_add_bool(struct declaration *d, enum wire_key key, bool value)
{
	add_detail(d, key, WIRE_TYPE_BOOL)->boolean = value;
}

void declaration_add_text(struct declaration *d, enum wire_key key, struct wire_text value)
{
	value.len = utf8_cut(value.data, value.len, WIRE_DETAIL_TEXT_MAX);
	add_detail(d, key, WIRE_TYPE_TEXT)->text = value;
}
