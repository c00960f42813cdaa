/* SPDX-License-Identifier: MIT */
#include "host-receiver/export/ocsf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>

#include "common/utf8.h"
#include "common/util.h"
#include "host-receiver/event/event.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/export/classes.h"

#define ENVELOPE_TYPE "dev.cellos.events.signed_envelope.v1"

/* Ids of OCSF's enumerations. */
#define DEVICE_SERVER	   1u
#define DEVICE_VIRTUAL	   6u
#define DIRECTION_UNKNOWN  0u
#define DIRECTION_OUTBOUND 2u
#define DIRECTION_LOCAL	   4u
#define FILE_UNKNOWN	   0u
#define FILE_EXECUTABLE	   8u
#define HASH_SHA_256	   3u
#define KERNEL_SYSTEM_CALL 2u
#define STATUS_UNKNOWN	   0u
#define STATUS_SUCCESS	   1u
#define STATUS_FAILURE	   2u
#define FINDING_NEW	   1u
#define FINDING_RESOLVED   4u

#define PORT_MAX 65535u

/* An event that is being written. */
struct view {
	const struct json_document *doc;
	const struct json_node *event, *data, *detail;
	const struct ocsf_mapping *mapping;
	struct wire_text type, id, source;
	int64_t time_ms;
	struct json_writer *w;
};

static const struct json_node *event_of(const struct json_document *doc)
{
	const struct json_node *root = json_document_root(doc);
	struct wire_text type;

	if (json_member_string(doc, root, "type", &type) && json_text_is(type, ENVELOPE_TYPE))
		return json_member(doc, json_member(doc, root, "data"), "event");
	return root;
}

static bool read_time(const struct json_document *doc, const struct json_node *event, int64_t *ret)
{
	struct wire_text time;

	return json_member_string(doc, event, "time", &time) &&
	       timestamp_parse(time.data, time.len, ret) == 0;
}

bool ocsf_is_wanted(const struct json_document *doc, const char *cell, int64_t since_ms,
		    int64_t until_ms)
{
	const struct json_node *event = event_of(doc);
	struct wire_text id;
	int64_t ms;

	if (read_time(doc, event, &ms) && (ms < since_ms || ms > until_ms))
		return false;
	return !cell || !json_member_string(doc, json_member(doc, event, "data"), "cellId", &id) ||
	       json_text_is(id, cell);
}

static bool read_event(struct view *v)
{
	const size_t prefix = sizeof(EVENT_TYPE_PREFIX) - 1;
	struct wire_text name;

	v->event = event_of(v->doc);
	v->data = json_member(v->doc, v->event, "data");
	v->detail = json_member(v->doc, v->data, "detail");
	if (!v->data || v->data->type != JSON_OBJECT_NODE ||
	    !read_time(v->doc, v->event, &v->time_ms) ||
	    !json_member_string(v->doc, v->event, "type", &v->type) ||
	    !json_member_string(v->doc, v->event, "id", &v->id) ||
	    !json_member_string(v->doc, v->event, "source", &v->source))
		return false;
	name = v->type;
	if (name.len > prefix && memcmp(name.data, EVENT_TYPE_PREFIX, prefix) == 0)
		name = (struct wire_text){.data = name.data + prefix, .len = name.len - prefix};
	v->mapping = ocsf_mapping_of(name);
	return true;
}

/* ---- pieces ---- */

/* The member as it is, under another name, if it is there. */
static void put_member(const struct view *v, const char *key, const struct json_node *object,
		       const char *member)
{
	const struct json_node *node = json_member(v->doc, object, member);

	if (!node || node->type == JSON_NULL_NODE)
		return;
	json_put_key(v->w, key);
	json_write_canonical(v->doc, node, v->w);
}

/* The same for an integer that OCSF wants as a text. */
static void put_digits(const struct view *v, const char *key, const char *member)
{
	const struct json_node *node = json_member(v->doc, v->detail, member);

	if (node && node->type == JSON_INTEGER_NODE)
		json_put_kv_text(v->w, key, node->text);
}

static void begin(const struct view *v, const char *key)
{
	json_put_key(v->w, key);
	json_put_begin_object(v->w);
}

static void end(const struct view *v)
{
	json_put_end_object(v->w);
}

/* A file by its path: OCSF wants its name. */
static void put_file(const struct view *v, const char *key, struct wire_text path, unsigned type)
{
	struct wire_text name = path;

	for (size_t i = 0; i + 1 < path.len; i++)
		if (path.data[i] == '/')
			name = (struct wire_text){.data = path.data + i + 1,
						  .len = path.len - i - 1};
	begin(v, key);
	json_put_kv_text(v->w, "name", name);
	json_put_kv_text(v->w, "path", path);
	json_put_kv_uint(v->w, "type_id", type);
	end(v);
}

/* The acting process: who it is, and for launches what it executes. */
static void put_process(const struct view *v, bool program)
{
	struct wire_text exe;

	put_member(v, "pid", v->data, "guestPid");
	put_member(v, "name", v->data, "guestComm");
	if (json_member_string(v->doc, v->detail, "exe", &exe) && exe.len > 0)
		put_file(v, "file", exe, FILE_EXECUTABLE);
	if (!program)
		return;
	put_member(v, "cmd_line", v->detail, "args");
	put_member(v, "working_directory", v->detail, "cwd");
	if (json_member(v->doc, v->detail, "uid")) {
		begin(v, "user");
		put_digits(v, "uid", "uid");
		end(v);
	}
}

/* actor.process: the parent that launched, the tracer that opened, otherwise the process itself. */
static void put_actor(const struct view *v)
{
	const bool launch = v->mapping->class == OCSF_PROCESS_ACTIVITY && v->mapping->activity == 1;

	begin(v, "actor");
	begin(v, "process");
	if (launch && json_member(v->doc, v->detail, "ppid")) {
		put_member(v, "pid", v->detail, "ppid");
	} else if (json_member(v->doc, v->detail, "tracerPid")) {
		put_member(v, "pid", v->detail, "tracerPid");
		put_member(v, "name", v->detail, "tracerComm");
	} else {
		put_process(v, false);
	}
	end(v);
	end(v);
}

/* The cell is a virtual device. For events of the log itself the device is the host. */
static void put_device(const struct view *v, const struct ocsf_place *place)
{
	const bool cell = json_member(v->doc, v->data, "cellId");

	begin(v, "device");
	put_member(v, "hostname", v->data, "hostname");
	json_put_kv_uint(v->w, "type_id", cell ? DEVICE_VIRTUAL : DEVICE_SERVER);
	if (cell)
		put_member(v, "uid", v->data, "cellId");
	else
		json_put_kv_string(v->w, "uid", *place->origin ? place->origin : "unknown");
	end(v);
}

static void put_metadata(const struct view *v, const struct ocsf_place *place)
{
	begin(v, "metadata");
	put_member(v, "correlation_uid", v->data, "runId");
	json_put_kv_text(v->w, "event_code", v->type);
	if (*place->origin)
		json_put_kv_string(v->w, "log_name", place->origin);
	json_put_kv_text(v->w, "log_provider", v->source);
	json_put_kv_text(v->w, "original_event_uid", v->id);
	put_member(v, "original_time", v->event, "time");
	begin(v, "product");
	json_put_kv_string(v->w, "name", "cellos-host-telemetry");
	json_put_kv_string(v->w, "vendor_name", "CellOS");
	json_put_kv_string(v->w, "version", CELLOS_VERSION);
	end(v);
	/* device, and of classes outside of system activity actor, are of this profile. */
	json_put_key(v->w, "profiles");
	json_put_begin_array(v->w);
	json_put_string(v->w, "host", strlen("host"));
	json_put_end_array(v->w);
	put_member(v, "sequence", v->data, "sequence");
	json_put_kv_string(v->w, "version", OCSF_VERSION);
	end(v);
}

static void put_raw(const struct view *v, const char *line, size_t len)
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1];

	crypto_hash_sha256(hash, (const unsigned char *)line, len);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	json_put_key(v->w, "raw_data");
	json_put_string(v->w, line, len);
	begin(v, "raw_data_hash");
	json_put_kv_string(v->w, "algorithm", "SHA-256");
	json_put_kv_uint(v->w, "algorithm_id", HASH_SHA_256);
	json_put_kv_string(v->w, "value", hex);
	end(v);
	json_put_kv_uint(v->w, "raw_data_size", len);
}

/* ---- what a class has of its own ---- */

/* Returns the new length of out; a text that does not fit is cut at a character. */
static size_t append(char *out, size_t len, size_t size, struct wire_text text)
{
	const size_t more = utf8_cut(text.data, text.len, size - len);

	memcpy(out + len, text.data, more);
	return len + more;
}

/* The address in its shortest form. False: it is not an IP address (vsock has a CID). */
static bool read_ip(const struct view *v, char out[static INET6_ADDRSTRLEN])
{
	static const int families[] = {AF_INET, AF_INET6};
	struct wire_text text;
	struct in6_addr address;

	if (!json_member_string(v->doc, v->detail, "address", &text) ||
	    text.len >= INET6_ADDRSTRLEN || memchr(text.data, '\0', text.len))
		return false;
	memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (inet_pton(families[i], out, &address) == 1)
			return inet_ntop(families[i], &address, out, INET6_ADDRSTRLEN);
	return false;
}

/* An end that is not of IP, as FAMILY:ADDRESS:PORT. OCSF's ip and port are those of IP only. */
static void put_other_end(const struct view *v)
{
	static const char *const members[] = {"family", "address", "port"};
	char name[ARRAY_SIZE(members) * (WIRE_DETAIL_TEXT_MAX + 1)];
	struct wire_text whole = {.data = name};

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const struct json_node *node = json_member(v->doc, v->detail, members[i]);

		if (!node || (node->type != JSON_STRING_NODE && node->type != JSON_INTEGER_NODE))
			continue;
		if (whole.len > 0)
			whole.len = append(name, whole.len, sizeof(name),
					   (struct wire_text){.data = ":", .len = 1});
		whole.len = append(name, whole.len, sizeof(name), node->text);
	}
	json_put_kv_text(v->w, "name", whole);
}

static void put_endpoint(const struct view *v, bool ours)
{
	char ip[INET6_ADDRSTRLEN];
	uint64_t port;

	begin(v, ours ? "src_endpoint" : "dst_endpoint");
	if (ours)
		put_member(v, "uid", v->data, "cellId");
	if (read_ip(v, ip)) {
		json_put_kv_string(v->w, "ip", ip);
		if (json_member_uint(v->doc, v->detail, "port", &port) && port <= PORT_MAX)
			json_put_kv_uint(v->w, "port", port);
	} else if (json_member(v->doc, v->detail, "address")) {
		put_other_end(v);
	}
	end(v);
}

/* Whether the other end is in the cell too. Linux takes the unspecified address for loopback. */
static bool is_local(const struct view *v)
{
	static const char *const whole[] = {"::1", "::", "0.0.0.0"};
	static const char *const prefixes[] = {"127.", "::ffff:127."};
	char ip[INET6_ADDRSTRLEN];

	if (!read_ip(v, ip))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
		if (!strcmp(ip, whole[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (!strncmp(ip, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}

static void put_network(const struct view *v)
{
	/*
	 * The address of a bind is the process's own end. The class requires one of the two ends,
	 * and an end needs more than a port: without an address the event names the cell.
	 */
	const bool ours = v->mapping->activity == 7 ||
			  v->mapping->activity == OCSF_ACTIVITY_OTHER ||
			  !json_member(v->doc, v->detail, "address");
	const unsigned outwards = is_local(v) ? DIRECTION_LOCAL : DIRECTION_OUTBOUND;

	put_endpoint(v, ours);
	begin(v, "connection_info");
	json_put_kv_uint(v->w, "direction_id", ours ? DIRECTION_UNKNOWN : outwards);
	put_member(v, "protocol_name", v->detail, "protocol");
	end(v);
	put_member(v, "status_code", v->detail, "result");
}

/* A system call that the kernel or the profile refused. */
static void put_kernel(const struct view *v)
{
	begin(v, "kernel");
	if (json_member(v->doc, v->detail, "syscall"))
		put_member(v, "name", v->detail, "syscall");
	else
		json_put_kv_string(v->w, "name", "unknown");
	put_member(v, "system_call", v->detail, "syscall");
	json_put_kv_string(v->w, "type", "System Call");
	json_put_kv_uint(v->w, "type_id", KERNEL_SYSTEM_CALL);
	end(v);
	put_member(v, "status_code", v->detail, "error");
	put_member(v, "status_detail", v->detail, "capability");
}

/* path, and in a folder the name. */
static void put_changed_file(const struct view *v)
{
	struct wire_text path = {.data = ""}, name = {.data = ""};
	char joined[2 * WIRE_DETAIL_TEXT_MAX + 1];
	struct wire_text whole = {.data = joined};

	json_member_string(v->doc, v->detail, "path", &path);
	json_member_string(v->doc, v->detail, "name", &name);
	whole.len = append(joined, 0, sizeof(joined), path);
	if (name.len > 0)
		whole.len = append(joined, whole.len, sizeof(joined),
				   (struct wire_text){.data = "/", .len = 1});
	whole.len = append(joined, whole.len, sizeof(joined), name);
	put_file(v, "file", whole, FILE_UNKNOWN);
}

static void put_finding(const struct view *v)
{
	struct wire_text stream;
	char uid[256];

	begin(v, "finding_info");
	json_put_kv_string(v->w, "title", v->mapping->message);
	if (v->mapping->finding && json_member_string(v->doc, v->data, "streamId", &stream)) {
		snprintf(uid, sizeof(uid), "urn:cellos:finding:%s:%.*s", v->mapping->finding,
			 (int)MIN(stream.len, (size_t)64), stream.data);
		json_put_kv_string(v->w, "uid", uid);
	} else {
		json_put_kv_text(v->w, "uid", v->id);
	}
	end(v);
	json_put_kv_bool(v->w, "is_alert", v->mapping->activity == 1);
}

static void put_of_class(const struct view *v, const struct ocsf_place *place)
{
	switch (v->mapping->class) {
	case OCSF_PROCESS_ACTIVITY:
		put_member(v, "exit_code", v->detail, "exitCode");
		begin(v, "process");
		put_process(v, true);
		end(v);
		break;
	case OCSF_NETWORK_ACTIVITY: put_network(v); break;
	case OCSF_KERNEL_ACTIVITY: put_kernel(v); break;
	case OCSF_FILE_ACTIVITY: put_changed_file(v); break;
	case OCSF_DETECTION_FINDING: put_finding(v); break;
	case OCSF_EVENT_LOG_ACTIVITY:
		if (*place->origin)
			json_put_kv_string(v->w, "log_name", place->origin);
		json_put_kv_text(v->w, "log_provider", v->source);
		break;
	case OCSF_BASE_EVENT: break;
	}
}

/* ---- the event ---- */

/* What inotify's and fanotify's words are in OCSF, the strongest first. */
static void file_activity(const struct view *v, unsigned *ret, const char **ret_name)
{
	static const struct {
		const char *word;
		unsigned activity;
		const char *name;
	} words[] = {
		{"delete", 4, "Delete"},      {"moved", 5, "Rename"},
		{"create", 1, "Create"},      {"modify", 3, "Update"},
		{"close_write", 3, "Update"}, {"attrib", 6, "Set Attributes"},
	};
	struct wire_text event;

	if (!json_member_string(v->doc, v->detail, "event", &event))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (memmem(event.data, event.len, words[i].word, strlen(words[i].word))) {
			*ret = words[i].activity;
			*ret_name = words[i].name;
			return;
		}
}

/*
 * Some sources see a connect before it happens, and a connect in progress has no result yet. The
 * other events report what has happened.
 */
static unsigned status_of(const struct view *v)
{
	struct wire_text result;

	switch (v->mapping->class) {
	case OCSF_DETECTION_FINDING:
		return v->mapping->activity == 3 ? FINDING_RESOLVED : FINDING_NEW;
	case OCSF_KERNEL_ACTIVITY: return STATUS_FAILURE;
	case OCSF_NETWORK_ACTIVITY: break;
	default: return STATUS_SUCCESS;
	}
	if (v->mapping->activity != 1)
		return STATUS_SUCCESS;
	if (!json_member_string(v->doc, v->detail, "result", &result) ||
	    json_text_is(result, "EINPROGRESS"))
		return STATUS_UNKNOWN;
	return json_text_is(result, "ok") ? STATUS_SUCCESS : STATUS_FAILURE;
}

static void put_classification(const struct view *v)
{
	const struct ocsf_mapping *m = v->mapping;
	const char *name = m->activity_name;
	unsigned activity = m->activity;

	if (m->class == OCSF_FILE_ACTIVITY)
		file_activity(v, &activity, &name);
	json_put_kv_uint(v->w, "activity_id", activity);
	json_put_kv_string(v->w, "activity_name", name);
	json_put_kv_uint(v->w, "category_uid", OCSF_CATEGORY(m->class));
	json_put_kv_string(v->w, "class_name", ocsf_class_name(m->class));
	json_put_kv_uint(v->w, "class_uid", m->class);
	json_put_kv_string(v->w, "message", m->message);
	json_put_kv_string(v->w, "severity", ocsf_severity_name(m->severity));
	json_put_kv_uint(v->w, "severity_id", m->severity);
	if (m->class != OCSF_BASE_EVENT)
		json_put_kv_uint(v->w, "status_id", status_of(v));
	json_put_kv_int(v->w, "time", v->time_ms);
	json_put_kv_uint(v->w, "type_uid", m->class * 100u + activity);
}

/* The data as it was signed, because OCSF has no place for some of its members. */
static void put_unmapped(const struct view *v, const struct ocsf_place *place)
{
	begin(v, "unmapped");
	json_put_key(v->w, "data");
	json_write_canonical(v->doc, v->data, v->w);
	if (*place->origin)
		json_put_kv_uint(v->w, "index", place->index);
	end(v);
}

int ocsf_write(const struct json_document *doc, const char *line, size_t len,
	       const struct ocsf_place *place, char out[static OCSF_EVENT_MAX], size_t *ret_len)
{
	struct json_writer w;
	struct view v = {.doc = doc, .w = &w};

	if (!read_event(&v))
		return -EBADMSG;
	json_writer_init(&w, out, OCSF_EVENT_MAX);
	json_put_begin_object(&w);
	put_classification(&v);
	if (json_member(doc, v.data, "guestPid"))
		put_actor(&v);
	put_device(&v, place);
	put_of_class(&v, place);
	put_metadata(&v, place);
	put_raw(&v, line, len);
	put_unmapped(&v, place);
	json_put_end_object(&w);
	return json_writer_done(&w, ret_len);
}
