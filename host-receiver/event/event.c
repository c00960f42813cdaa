/* SPDX-License-Identifier: MIT */
#include "host-receiver/event/event.h"

#include <assert.h>

#include "common/util.h"
#include "host-receiver/event/json_writer.h"

#define SOURCE_GUEST	"cellos-host-telemetry/guest"
#define SOURCE_RECEIVER "cellos-host-telemetry/receiver"
#define SOURCE_PROBES	"cellos-host-telemetry/probes"
#define SOURCE_LOG	"cellos-host-telemetry/log"

#define DECLARED "declared"
#define OBSERVED "observed"

#define P EVENT_TYPE_PREFIX

static const struct {
	const char *name, *source, *authority;
	const char *short_name; /* NULL: the wire's name of the declaration */
} types[] = {
#define GUEST(source, name)                                                                        \
	[EVENT_GUEST_FIRST + (source)] = {P "guest.v1." name, SOURCE_GUEST, DECLARED, NULL}
	GUEST(WIRE_PROCESS_SPAWNED, "process_spawned"),
	GUEST(WIRE_PROCESS_EXECUTED, "process_executed"),
	GUEST(WIRE_PROCESS_IDENTITY_CHANGED, "process_identity_changed"),
	GUEST(WIRE_PROCESS_SESSION_STARTED, "process_session_started"),
	GUEST(WIRE_PROCESS_TRACED, "process_traced"),
	GUEST(WIRE_PROCESS_CORE_DUMPED, "process_core_dumped"),
	GUEST(WIRE_PROCESS_EXITED, "process_exited"),
	GUEST(WIRE_NET_CONNECT_ATTEMPTED, "net_connect_attempted"),
	GUEST(WIRE_NET_DATAGRAM_SENT, "net_datagram_sent"),
	GUEST(WIRE_NET_BOUND, "net_bound"),
	GUEST(WIRE_NET_SOCKET_CREATED, "net_socket_created"),
	GUEST(WIRE_CAPABILITY_DENIED, "capability_denied"),
	GUEST(WIRE_FS_CHANGED, "fs_changed"),
	GUEST(WIRE_FS_INOTIFY_FIRED, "fs_inotify_fired"),
	GUEST(WIRE_TELEMETRY_HELLO, "telemetry_hello"),
	GUEST(WIRE_TELEMETRY_HEARTBEAT, "telemetry_heartbeat"),
	GUEST(WIRE_TELEMETRY_DROPPED, "telemetry_dropped"),
	GUEST(WIRE_TELEMETRY_BYE, "telemetry_bye"),
#define OF(type, source, area, name) [type] = {P area ".v1." name, source, OBSERVED, area "." name}
#define RECEIVER(type, area, name)   OF(type, SOURCE_RECEIVER, area, name)
	RECEIVER(EVENT_AGENT_CONNECTED, "guest", "agent_connected"),
	RECEIVER(EVENT_AGENT_DISCONNECTED, "guest", "agent_disconnected"),
	RECEIVER(EVENT_AGENT_SILENCED, "guest", "agent_silenced"),
	RECEIVER(EVENT_AGENT_RESUMED, "guest", "agent_resumed"),
	RECEIVER(EVENT_TELEMETRY_GAP, "guest", "telemetry_gap"),
	RECEIVER(EVENT_CHANNEL_VIOLATION, "guest", "channel_violation"),
	RECEIVER(EVENT_CHANNEL_CONTESTED, "guest", "channel_contested"),
	RECEIVER(EVENT_VERSION_REJECTED, "guest", "version_rejected"),
	RECEIVER(EVENT_UNKNOWN_SOURCE, "guest", "unknown_source"),
	RECEIVER(EVENT_RATE_LIMITED, "guest", "rate_limited"),
	RECEIVER(EVENT_DECLARATION_UNWITNESSED, "guest", "declaration_unwitnessed"),
	OF(EVENT_HOST_CGROUP, SOURCE_PROBES, "host", "cgroup"),
	OF(EVENT_HOST_NFTABLES, SOURCE_PROBES, "host", "nftables"),
	OF(EVENT_HOST_TAP_LINK, SOURCE_PROBES, "host", "tap_link"),
	OF(EVENT_HOST_FC_METRICS, SOURCE_PROBES, "host", "fc_metrics"),
	RECEIVER(EVENT_STREAM_OPENED, "stream", "opened"),
	RECEIVER(EVENT_STREAM_CHECKPOINT, "stream", "checkpoint"),
	RECEIVER(EVENT_STREAM_SEALED, "stream", "sealed"),
#define LOG(type, name) OF(type, SOURCE_LOG, "log", name)
	LOG(EVENT_LOG_OPENED, "opened"),
	LOG(EVENT_LOG_RESUMED, "resumed"),
	LOG(EVENT_LOG_CLOSED, "closed"),
	LOG(EVENT_LOG_PRUNED, "pruned"),
	LOG(EVENT_LOG_ACKNOWLEDGED, "acknowledged"),
	LOG(EVENT_LOG_SIGNING_CHANGED, "signing_changed"),
	LOG(EVENT_LOG_KEY_ADDED, "key_added"),
	LOG(EVENT_LOG_KEY_RETIRED, "key_retired"),
	LOG(EVENT_LOG_SEGMENT_LOST, "segment_lost"),
	LOG(EVENT_LOG_CELL_UNSERVED, "cell_unserved"),
	LOG(EVENT_LOG_CELL_SERVED, "cell_served"),
	LOG(EVENT_LOG_SESSIONS, "sessions"),
};
_Static_assert(ARRAY_SIZE(types) == _EVENT_TYPE_MAX, "a row for each type");

/* With their lengths, because each event writes some fifteen of them. */
static const struct wire_text keys[] = {
#define T(literal)                                                                                 \
	{                                                                                          \
		literal, sizeof(literal) - 1                                                       \
	}
	[EVENT_KEY_ABANDONED] = T("abandoned"),
	[EVENT_KEY_AUTHORITY] = T("authority"),
	[EVENT_KEY_BY_UID] = T("byUid"),
	[EVENT_KEY_BYTES] = T("bytes"),
	[EVENT_KEY_CELL_ID] = T("cellId"),
	[EVENT_KEY_CELLS] = T("cells"),
	[EVENT_KEY_CONNECTED] = T("connected"),
	[EVENT_KEY_CONNECTION] = T("connection"),
	[EVENT_KEY_CONTENT_VERSION] = T("contentVersion"),
	[EVENT_KEY_COUNT] = T("count"),
	[EVENT_KEY_CUT_BYTES] = T("cutBytes"),
	[EVENT_KEY_CUT_LINES] = T("cutLines"),
	[EVENT_KEY_DECLARED] = T("declared"),
	[EVENT_KEY_DETAIL] = T("detail"),
	[EVENT_KEY_EVENTS] = T("events"),
	[EVENT_KEY_FIELD] = T("field"),
	[EVENT_KEY_FIRST_INDEX] = T("firstIndex"),
	[EVENT_KEY_FIRST_MISSING] = T("firstMissing"),
	[EVENT_KEY_FRAMES] = T("frames"),
	[EVENT_KEY_FRAMES_REJECTED] = T("framesRejected"),
	[EVENT_KEY_FROM] = T("from"),
	[EVENT_KEY_GAPS] = T("gaps"),
	[EVENT_KEY_GUEST_COMM] = T("guestComm"),
	[EVENT_KEY_GUEST_DROPPED] = T("guestDropped"),
	[EVENT_KEY_GUEST_KERNEL_LOST] = T("guestKernelLost"),
	[EVENT_KEY_GUEST_MONOTONIC_NS] = T("guestMonotonicNs"),
	[EVENT_KEY_GUEST_OBSERVED] = T("guestObserved"),
	[EVENT_KEY_GUEST_PID] = T("guestPid"),
	[EVENT_KEY_GUEST_SENT] = T("guestSent"),
	[EVENT_KEY_HOST_BOOT_ID] = T("hostBootId"),
	[EVENT_KEY_HOST_MONOTONIC_NS] = T("hostMonotonicNs"),
	[EVENT_KEY_HOST_RECEIVED_AT] = T("hostReceivedAt"),
	[EVENT_KEY_HOSTNAME] = T("hostname"),
	[EVENT_KEY_INPUTS] = T("inputs"),
	[EVENT_KEY_KEEPALIVE_MS] = T("keepaliveMs"),
	[EVENT_KEY_KID] = T("kid"),
	[EVENT_KEY_LAST_FRAME_AGE_MS] = T("lastFrameAgeMs"),
	[EVENT_KEY_LAST_HEARTBEAT_AGE_MS] = T("lastHeartbeatAgeMs"),
	[EVENT_KEY_LAST_INDEX] = T("lastIndex"),
	[EVENT_KEY_LAST_MISSING] = T("lastMissing"),
	[EVENT_KEY_LIMIT] = T("limit"),
	[EVENT_KEY_NEXT_SEQ] = T("nextSeq"),
	[EVENT_KEY_OFFSET] = T("offset"),
	[EVENT_KEY_ORIGIN] = T("origin"),
	[EVENT_KEY_OUTPUT] = T("output"),
	[EVENT_KEY_PAUSED_MS] = T("pausedMs"),
	[EVENT_KEY_PEER_GID] = T("peerGid"),
	[EVENT_KEY_PEER_PID] = T("peerPid"),
	[EVENT_KEY_PEER_UID] = T("peerUid"),
	[EVENT_KEY_POLICY] = T("policy"),
	[EVENT_KEY_PREVIOUS_ORIGIN] = T("previousOrigin"),
	[EVENT_KEY_PREVIOUS_SEQUENCE] = T("previousSequence"),
	[EVENT_KEY_PREVIOUS_SIZE] = T("previousSize"),
	[EVENT_KEY_PREVIOUS_STREAM_ID] = T("previousStreamId"),
	[EVENT_KEY_PROBE_SOURCE] = T("probeSource"),
	[EVENT_KEY_PUBLIC_KEY] = T("publicKey"),
	[EVENT_KEY_REASON] = T("reason"),
	[EVENT_KEY_RECEIVER_VERSION] = T("receiverVersion"),
	[EVENT_KEY_REPEATED] = T("repeated"),
	[EVENT_KEY_RUN_ID] = T("runId"),
	[EVENT_KEY_SEGMENT] = T("segment"),
	[EVENT_KEY_SEGMENTS] = T("segments"),
	[EVENT_KEY_SEQ] = T("seq"),
	[EVENT_KEY_SEQUENCE] = T("sequence"),
	[EVENT_KEY_SESSION] = T("session"),
	[EVENT_KEY_SESSIONS] = T("sessions"),
	[EVENT_KEY_SILENT_MS] = T("silentMs"),
	[EVENT_KEY_SINCE_MS] = T("sinceMs"),
	[EVENT_KEY_SOURCE] = T("source"),
	[EVENT_KEY_SPEC_SIGNATURE_HASH] = T("specSignatureHash"),
	[EVENT_KEY_STREAM_ID] = T("streamId"),
	[EVENT_KEY_TO] = T("to"),
	[EVENT_KEY_UNCLEAN] = T("unclean"),
	[EVENT_KEY_UNREAD_BYTES] = T("unreadBytes"),
	[EVENT_KEY_VMM_BYTES] = T("vmmBytes"),
	[EVENT_KEY_WHAT] = T("what"),
	[EVENT_KEY_WHY] = T("why"),
	[EVENT_KEY_WINDOW_MS] = T("windowMs"),
	[EVENT_KEY_WITNESSES] = T("witnesses"),
#undef T
};
_Static_assert(ARRAY_SIZE(keys) == _EVENT_KEY_MAX, "a name for each key");

const char *event_type_name(enum event_type type)
{
	return types[type].name;
}

const char *event_short_name(enum event_type type)
{
	const char *name = types[type].short_name;

	return name ? name : wire_source_name((enum wire_source)(type - EVENT_GUEST_FIRST));
}

const char *event_find_short_name(const char *type)
{
	const size_t prefix = sizeof(P) - 1;

	if (strncmp(type, P, prefix) != 0)
		return NULL;
	for (int i = 0; i < _EVENT_TYPE_MAX; i++)
		if (strcmp(types[i].name + prefix, type + prefix) == 0)
			return event_short_name((enum event_type)i);
	return NULL;
}

const char *event_source_name(enum event_type type)
{
	return types[type].source;
}

const char *event_key_name(enum event_key key)
{
	return keys[key].data;
}

static struct event_field *add(struct event *e, enum event_key key, enum event_value_type type)
{
	struct event_field *f;

	assert(e->n_fields < EVENT_FIELDS_MAX);
	f = &e->fields[e->n_fields++];
	f->key = key;
	f->type = type;
	return f;
}

void event_add_uint(struct event *e, enum event_key key, uint64_t value)
{
	add(e, key, EVENT_VALUE_UINT)->uint = value;
}

void event_add_bool(struct event *e, enum event_key key, bool value)
{
	add(e, key, EVENT_VALUE_BOOL)->boolean = value;
}

void event_add_null(struct event *e, enum event_key key)
{
	add(e, key, EVENT_VALUE_NULL);
}

void event_add_text(struct event *e, enum event_key key, struct wire_text value)
{
	add(e, key, EVENT_VALUE_TEXT)->text = value;
}

void event_add_raw(struct event *e, enum event_key key, struct wire_text json)
{
	add(e, key, EVENT_VALUE_RAW)->text = json;
}

void event_add_details(struct event *e, const struct wire_detail *details, size_t n)
{
	e->details = details;
	e->n_details = n;
	add(e, EVENT_KEY_DETAIL, EVENT_VALUE_DETAIL);
}

/* The enum of the keys is in canonical order, so the lowest key that is left comes next. */
static void write_details(struct json_writer *w, const struct event *e)
{
	const struct wire_detail *by_key[_WIRE_KEY_MAX];
	uint64_t left = 0;

	for (size_t i = 0; i < e->n_details; i++) {
		left |= UINT64_C(1) << e->details[i].key;
		by_key[e->details[i].key] = &e->details[i];
	}
	json_put_begin_object(w);
	for (; left; left &= left - 1) {
		const struct wire_detail *d = by_key[__builtin_ctzll(left)];
		const struct wire_text key = wire_key_camel(d->key);

		switch (d->type) {
		case WIRE_TYPE_UINT: json_put_kv_uint_of(w, key.data, key.len, d->uint); break;
		case WIRE_TYPE_TEXT: json_put_kv_text_of(w, key.data, key.len, d->text); break;
		case WIRE_TYPE_BOOL: json_put_kv_bool(w, key.data, d->boolean); break;
		case _WIRE_TYPE_MAX: break;
		}
	}
	json_put_end_object(w);
}

static void write_field(struct json_writer *w, const struct event *e, const struct event_field *f)
{
	const struct wire_text *key = &keys[f->key];

	switch (f->type) {
	case EVENT_VALUE_UINT: json_put_kv_uint_of(w, key->data, key->len, f->uint); break;
	case EVENT_VALUE_BOOL: json_put_kv_bool(w, key->data, f->boolean); break;
	case EVENT_VALUE_NULL: json_put_kv_null(w, key->data); break;
	case EVENT_VALUE_TEXT: json_put_kv_text_of(w, key->data, key->len, f->text); break;
	case EVENT_VALUE_PLAIN: json_put_kv_plain_of(w, key->data, key->len, f->text); break;
	case EVENT_VALUE_RAW:
		json_put_key_of(w, key->data, key->len);
		json_put_raw(w, f->text.data, f->text.len);
		break;
	case EVENT_VALUE_DETAIL:
		json_put_key_of(w, key->data, key->len);
		write_details(w, e);
		break;
	}
}

static struct event_field text_field(enum event_key key, struct wire_text text)
{
	return (struct event_field){.key = key, .type = EVENT_VALUE_TEXT, .text = text};
}

static struct event_field plain_field(enum event_key key, struct wire_text text)
{
	return (struct event_field){.key = key, .type = EVENT_VALUE_PLAIN, .text = text};
}

static struct event_field uint_field(enum event_key key, uint64_t v)
{
	return (struct event_field){.key = key, .type = EVENT_VALUE_UINT, .uint = v};
}

static struct wire_text optional_text(const char *s)
{
	return s ? wire_text(s) : (struct wire_text){.data = "", .len = 0};
}

/*
 * The fields of an event by their key. left has a bit for each key that is not written yet, and
 * by_key[] is set for these keys only. The lowest one comes next.
 */
struct field_set {
	uint64_t left[2];
	const struct event_field *by_key[_EVENT_KEY_MAX];
};

static void put_in_set(struct field_set *set, const struct event_field *field)
{
	set->left[field->key / 64] |= UINT64_C(1) << (field->key % 64);
	set->by_key[field->key] = field;
}

static void write_data(struct json_writer *w, const struct event *e, const struct event_head *head)
{
	char stream_id[UUID_STRING_MAX];
	const struct event_field common[] = {
		plain_field(EVENT_KEY_AUTHORITY, wire_text(types[e->type].authority)),
		uint_field(EVENT_KEY_HOST_MONOTONIC_NS, e->monotonic_ns),
		plain_field(EVENT_KEY_HOST_RECEIVED_AT, head->time_text),
		uint_field(EVENT_KEY_SEQUENCE, e->sequence),
		plain_field(EVENT_KEY_STREAM_ID,
			    (struct wire_text){.data = stream_id, .len = UUID_STRING_MAX - 1}),
	};
	const struct event_field of_cell[] = {
		text_field(EVENT_KEY_CELL_ID, optional_text(e->stream->cell_id)),
		text_field(EVENT_KEY_RUN_ID, optional_text(e->stream->run_id)),
		text_field(EVENT_KEY_SPEC_SIGNATURE_HASH, optional_text(e->stream->spec_hash)),
	};
	struct field_set set;

	set.left[0] = set.left[1] = 0;
	uuid_format(e->stream->stream_id, stream_id);
	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		put_in_set(&set, &common[i]);
	for (size_t i = 0; e->stream->cell_id && i < ARRAY_SIZE(of_cell); i++)
		put_in_set(&set, &of_cell[i]);
	for (size_t i = 0; i < e->n_fields; i++)
		put_in_set(&set, &e->fields[i]);
	json_put_begin_object(w);
	for (unsigned word = 0; word < ARRAY_SIZE(set.left); word++)
		for (uint64_t left = set.left[word]; left; left &= left - 1)
			write_field(w, e, set.by_key[word * 64 + (unsigned)__builtin_ctzll(left)]);
	json_put_end_object(w);
}

/* RFC 3339 in UTC with milliseconds. */
static void format_time(struct event_clock *clock, uint64_t realtime_ms, struct event_head *head)
{
	const uint64_t second = realtime_ms / MSEC_PER_SEC;
	const unsigned ms = (unsigned)(realtime_ms % MSEC_PER_SEC);
	size_t len;

	if (second != clock->second || clock->date[0] == '\0') {
		const time_t t = (time_t)second;
		struct tm tm;

		gmtime_r(&t, &tm);
		strftime(clock->date, sizeof(clock->date), "%Y-%m-%dT%H:%M:%S", &tm);
		clock->second = second;
	}
	len = strlen(clock->date);
	memcpy(head->time, clock->date, len);
	head->time[len++] = '.';
	head->time[len++] = (char)('0' + ms / 100);
	head->time[len++] = (char)('0' + ms / 10 % 10);
	head->time[len++] = (char)('0' + ms % 10);
	head->time[len++] = 'Z';
	head->time[len] = '\0';
	head->time_text = (struct wire_text){.data = head->time, .len = len};
}

static void format_head(const struct event *e, struct event_clock *clock, struct event_head *head)
{
	static const char prefix[] = "urn:cellos:event:";

	memcpy(head->id, prefix, sizeof(prefix) - 1);
	uuid_format(e->id, head->id + sizeof(prefix) - 1);
	head->id_text = (struct wire_text){
		.data = head->id,
		.len = sizeof(prefix) - 1 + UUID_STRING_MAX - 1,
	};
	head->source_text = wire_text(types[e->type].source);
	format_time(clock, e->realtime_ms, head);
}

int event_write(const struct event *e, struct event_clock *clock, char *buf, size_t size,
		size_t *ret_len, struct event_head *head)
{
	struct json_writer w;

	format_head(e, clock, head);
	json_writer_init(&w, buf, size);
	json_put_begin_object(&w);
	json_put_key(&w, "data");
	write_data(&w, e, head);
	json_put_kv_plain(&w, "datacontenttype", wire_text("application/json"));
	json_put_kv_plain(&w, "id", head->id_text);
	json_put_kv_plain(&w, "source", head->source_text);
	json_put_kv_plain(&w, "specversion", wire_text("1.0"));
	json_put_kv_plain(&w, "time", head->time_text);
	json_put_kv_plain(&w, "type", wire_text(types[e->type].name));
	json_put_end_object(&w);
	return json_writer_done(&w, ret_len);
}
