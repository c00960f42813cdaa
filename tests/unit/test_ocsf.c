/* SPDX-License-Identifier: MIT */
/* An entry of the evidence as an event of OCSF: each member that people filter by. */
#include "host-receiver/export/ocsf.h"

#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/unit/unit.h"

#define LINE_MAX_LEN 65536u
#define TIME	     "2026-11-21T10:00:00.000Z"
#define TIME_MS	     INT64_C(1795255200000)

static struct json_document *doc;
static char line[LINE_MAX_LEN], event[OCSF_EVENT_MAX + 1];

static void set_up(void)
{
	doc = json_document_new(LINE_MAX_LEN);
	ck_assert_ptr_nonnull(doc);
}

static void tear_down(void)
{
	json_document_free(doc);
}

static void read_line(void)
{
	const char *why = "";
	size_t offset;

	ck_assert_msg(json_document_read(doc, line, strlen(line), &why, &offset) == 0, "%s: %s",
		      why, line);
}

/* Write the event of line. Returns what ocsf_write() does. */
static int write_line(const char *origin)
{
	const struct ocsf_place place = {.origin = origin, .index = 5};
	size_t len = 0;
	int r;

	read_line();
	r = ocsf_write(doc, line, strlen(line), &place, event, &len);
	event[len] = '\0';
	return r;
}

static int write_event(const char *type, const char *data, const char *origin)
{
	snprintf(line, sizeof(line),
		 "{\"data\":{%s},\"id\":\"urn:1\",\"source\":\"s\",\"time\":\"" TIME
		 "\",\"type\":\"dev.cellos.events.cell.observability.%s\"}",
		 data, type);
	return write_line(origin);
}

#define CELL	 "\"cellId\":\"web-7\""
#define GUEST(d) CELL ",\"guestComm\":\"sh\",\"guestPid\":7,\"detail\":{" d "}"
#define DEVICE	 "\"device\":{\"type_id\":6,\"uid\":\"web-7\"},"
#define SELF	 "\"actor\":{\"process\":{\"pid\":7,\"name\":\"sh\"}}," DEVICE
#define PROCESS	 "\"process\":{\"pid\":7,\"name\":\"sh\"}"
#define PATH(name, path)                                                                           \
	"\"file\":{\"name\":\"" name "\",\"path\":\"" path "\",\"type_id\":0},\"metadata\""
#define OUT(end, direction)                                                                        \
	"\"dst_endpoint\":{" end "},\"connection_info\":{\"direction_id\":" #direction "}"
#define OURS(end)                                                                                  \
	"\"src_endpoint\":{\"uid\":\"web-7\"" end "},\"connection_info\":{\"direction_id\":0"
#define CONNECT(status, detail, ends)                                                              \
	{                                                                                          \
		"guest.v1.net_connect_attempted", GUEST(detail),                                   \
			"\"severity_id\":1,\"status_id\":" #status                                 \
			",\"time\":1795255200000,\"type_uid\":400101," SELF ends                   \
	}
#define CHANGE(word, activity, name)                                                               \
	{                                                                                          \
		"guest.v1.fs_changed", GUEST("\"event\":\"" word "\",\"path\":\"/a/b\""),          \
			"\"activity_id\":" #activity ",\"activity_name\":\"" name                  \
			"\",\"category_uid\":1,"                                                   \
	}

/* Each event has this text. */
static const struct {
	const char *type, *data, *want;
} cases[] = {
	{"guest.v1.process_executed",
	 GUEST("\"args\":\"sh -c id\",\"cwd\":\"/tmp\",\"exe\":\"/bin/sh\",\"ppid\":3,\"uid\":1000"),
	 "{\"activity_id\":1,\"activity_name\":\"Launch\",\"category_uid\":1,"
	 "\"class_name\":\"Process Activity\",\"class_uid\":1007,"
	 "\"message\":\"a process executed a program\",\"severity\":\"Informational\","
	 "\"severity_id\":1,\"status_id\":1,\"time\":1795255200000,\"type_uid\":100701,"
	 "\"actor\":{\"process\":{\"pid\":3}}," DEVICE "\"process\":{\"pid\":7,\"name\":\"sh\","
	 "\"file\":{\"name\":\"sh\",\"path\":\"/bin/sh\",\"type_id\":8},"
	 "\"cmd_line\":\"sh -c id\",\"working_directory\":\"/tmp\",\"user\":{\"uid\":\"1000\"}},"
	 "\"metadata\":{"},
	/* Without a parent the process stands for itself, with its file and nothing else of it. */
	{"guest.v1.process_executed", GUEST("\"args\":\"sh\",\"exe\":\"sh\""),
	 "\"actor\":{\"process\":{\"pid\":7,\"name\":\"sh\","
	 "\"file\":{\"name\":\"sh\",\"path\":\"sh\",\"type_id\":8}}}," DEVICE},
	{"guest.v1.process_executed", GUEST("\"exe\":\"\",\"ppid\":3"), DEVICE PROCESS ",\"meta"},
	{"guest.v1.process_executed", GUEST("\"exe\":\"/a/b/\",\"ppid\":3"),
	 "\"file\":{\"name\":\"b/\",\"path\":\"/a/b/\","},
	{"guest.v1.process_executed", GUEST("\"exe\":\"/x\",\"uid\":null,\"ppid\":3"),
	 "\"file\":{\"name\":\"x\",\"path\":\"/x\",\"type_id\":8},\"user\":{}},"},
	{"guest.v1.process_traced", GUEST("\"tracerComm\":\"gdb\",\"tracerPid\":9"),
	 "\"actor\":{\"process\":{\"pid\":9,\"name\":\"gdb\"}}," DEVICE PROCESS ","},
	/* Only a launch is an act of the parent. */
	{"guest.v1.process_exited", GUEST("\"exitCode\":3,\"ppid\":1"),
	 "\"status_id\":1,\"time\":1795255200000,\"type_uid\":100702," SELF
	 "\"exit_code\":3," PROCESS ","},

	CONNECT(0, "\"address\":\"203.0.113.7\",\"port\":443",
		OUT("\"ip\":\"203.0.113.7\",\"port\":443", 2)),
	CONNECT(0, "\"address\":\"1.2.3.4\",\"port\":1,\"result\":\"EINPROGRESS\"",
		OUT("\"ip\":\"1.2.3.4\",\"port\":1", 2)),
	CONNECT(1, "\"address\":\"1.2.3.4\",\"port\":65535,\"result\":\"ok\"",
		OUT("\"ip\":\"1.2.3.4\",\"port\":65535", 2) ",\"status_code\":\"ok\""),
	CONNECT(2, "\"address\":\"1.2.3.4\",\"port\":65536,\"result\":\"ECONNREFUSED\"",
		OUT("\"ip\":\"1.2.3.4\"", 2) ",\"status_code\":\"ECONNREFUSED\""),
	CONNECT(0, "\"address\":\"2001:DB8:0:0::1\",\"port\":1",
		OUT("\"ip\":\"2001:db8::1\",\"port\":1", 2)),
	CONNECT(0, "\"address\":\"127.8.0.1\",\"port\":1",
		OUT("\"ip\":\"127.8.0.1\",\"port\":1", 4)),
	CONNECT(0, "\"address\":\"0.0.0.0\"", OUT("\"ip\":\"0.0.0.0\"", 4)),
	CONNECT(0, "\"address\":\"0:0::1\"", OUT("\"ip\":\"::1\"", 4)),
	CONNECT(0, "\"address\":\"::\"", OUT("\"ip\":\"::\"", 4)),
	CONNECT(0, "\"address\":\"::ffff:127.0.0.1\"", OUT("\"ip\":\"::ffff:127.0.0.1\"", 4)),
	CONNECT(0, "\"address\":\"12.7.0.1\"", OUT("\"ip\":\"12.7.0.1\"", 2)),
	/* What is no address of IP is a name. */
	CONNECT(0, "\"address\":\"2\",\"family\":\"vsock\",\"port\":99999",
		OUT("\"name\":\"vsock:2:99999\"", 2)),
	CONNECT(0, "\"address\":\"1.2.3.4\\u0000\"", OUT("\"name\":\"1.2.3.4\\u0000\"", 2)),
	CONNECT(0, "\"address\":\"1111:2222:3333:4444:5555:6666:123.123.123.123\"",
		OUT("\"ip\":\"1111:2222:3333:4444:5555:6666:7b7b:7b7b\"", 2)),
	CONNECT(0, "\"address\":\"1111:2222:3333:4444:5555:6666:123.123.123.1234\"",
		OUT("\"name\":\"1111:2222:3333:4444:5555:6666:123.123.123.1234\"", 2)),
	CONNECT(0, "\"address\":true,\"port\":1", OUT("\"name\":\"1\"", 2)),
	CONNECT(0, "\"port\":1", OURS("")),
	{"guest.v1.net_bound", GUEST("\"address\":\"0.0.0.0\",\"port\":80,\"result\":\"EACCES\""),
	 "\"status_id\":1,\"time\":1795255200000,\"type_uid\":400107," SELF OURS(
		 ",\"ip\":\"0.0.0.0\",\"port\":80") "},\"status_code\":\"EACCES\","},
	{"guest.v1.net_datagram_sent", GUEST("\"address\":\"1.2.3.4\",\"protocol\":\"udp\""),
	 "\"status_id\":1,\"time\":1795255200000,\"type_uid\":400106," SELF
	 "\"dst_endpoint\":{\"ip\":\"1.2.3.4\"},\"connection_info\":{\"direction_id\":2,"
	 "\"protocol_name\":\"udp\"},"},
	{"guest.v1.net_socket_created", GUEST("\"address\":\"1.2.3.4\",\"protocol\":\"icmp\""),
	 "\"type_uid\":400199," SELF OURS(",\"ip\":\"1.2.3.4\"") ",\"protocol_name\":\"icmp\"},"},

	{"guest.v1.capability_denied",
	 GUEST("\"capability\":\"CAP_SYS_ADMIN\",\"error\":\"EPERM\",\"syscall\":\"mount\""),
	 "\"severity\":\"Medium\",\"severity_id\":3,\"status_id\":2,\"time\":1795255200000,"
	 "\"type_uid\":100304," SELF "\"kernel\":{\"name\":\"mount\",\"system_call\":\"mount\","
	 "\"type\":\"System Call\",\"type_id\":2},\"status_code\":\"EPERM\","
	 "\"status_detail\":\"CAP_SYS_ADMIN\",\"metadata\":{"},
	{"guest.v1.capability_denied", GUEST("\"error\":\"EPERM\""),
	 "\"kernel\":{\"name\":\"unknown\",\"type\":\"System Call\","},

	CHANGE("modify,close_write", 3, "Update"),
	CHANGE("close_write", 3, "Update"),
	CHANGE("attrib,create", 1, "Create"),
	CHANGE("attrib", 6, "Set Attributes"),
	CHANGE("moved_to,create", 5, "Rename"),
	CHANGE("create,delete", 4, "Delete"),
	CHANGE("something else", 3, "Update"),
	{"guest.v1.fs_changed", GUEST("\"event\":\"delete\",\"path\":\"/etc/shadow\""),
	 PATH("shadow", "/etc/shadow")},
	{"guest.v1.fs_changed", GUEST("\"name\":\"passwd\",\"path\":\"/etc\""),
	 PATH("passwd", "/etc/passwd")},
	{"guest.v1.fs_changed", GUEST("\"name\":\"x\""), PATH("x", "/x")},
	{"guest.v1.fs_changed", GUEST(""), PATH("", "")},

	{"guest.v1.agent_silenced", CELL ",\"streamId\":\"11\"",
	 "\"status_id\":1,\"time\":1795255200000,\"type_uid\":200401," DEVICE
	 "\"finding_info\":{\"title\":\"an agent sends nothing any more\","
	 "\"uid\":\"urn:cellos:finding:silence:11\"},\"is_alert\":true,\"metadata\":{"},
	{"guest.v1.agent_resumed", CELL ",\"streamId\":\"11\"",
	 "\"status_id\":4,\"time\":1795255200000,\"type_uid\":200403," DEVICE
	 "\"finding_info\":{\"title\":\"an agent sends again\","
	 "\"uid\":\"urn:cellos:finding:silence:11\"},\"is_alert\":false,\"metadata\":{"},
	{"guest.v1.agent_silenced", CELL, "\"uid\":\"urn:1\"},\"is_alert\":true,"},
	{"guest.v1.telemetry_gap", CELL ",\"streamId\":\"11\"",
	 "\"finding_info\":{\"title\":\"frames of a guest are missing\",\"uid\":\"urn:1\"},"},

	{"stream.v1.sealed", CELL ",\"hostname\":\"h\",\"runId\":\"r\",\"sequence\":9",
	 "\"device\":{\"hostname\":\"h\",\"type_id\":6,\"uid\":\"web-7\"},\"log_name\":\"o1\","
	 "\"log_provider\":\"s\",\"metadata\":{\"correlation_uid\":\"r\","
	 "\"event_code\":\"dev.cellos.events.cell.observability.stream.v1.sealed\","
	 "\"log_name\":\"o1\",\"log_provider\":\"s\",\"original_event_uid\":\"urn:1\","
	 "\"original_time\":\"" TIME "\",\"product\":{\"name\":\"cellos-host-telemetry\","
	 "\"vendor_name\":\"CellOS\",\"version\":\"" CELLOS_VERSION "\"},\"profiles\":[\"host\"],"
	 "\"sequence\":9,\"version\":\"1.8.0\"},\"raw_data\":\"{\\\"data\\\":"},
	{"log.v1.closed", "\"a\":1", "\"device\":{\"type_id\":1,\"uid\":\"o1\"},\"log_name\":"},
	{"log.v1.any_other", "", "\"class_uid\":1008,\"message\":\"the log changed its keys or"},
	{"log.v1.", "", "\"class_uid\":0,"},
	/* A base event has no status. */
	{"host.v1.tap_link", CELL ",\"output\":{}",
	 "\"activity_id\":99,\"activity_name\":\"Report\",\"category_uid\":0,"
	 "\"class_name\":\"Base Event\",\"class_uid\":0,\"message\":\"a reading of the host\","
	 "\"severity\":\"Informational\",\"severity_id\":1,\"time\":1795255200000,"
	 "\"type_uid\":99," DEVICE "\"metadata\":{"},
	{"guest.v1.process_spawned2", CELL, "\"class_uid\":0,"},
	{"guest.v1.process_spawne", CELL, "\"class_uid\":0,"},
	{"host.v1.tap_link", "\"z\":1,\"a\":{\"c\":2,\"b\":3}",
	 ",\"unmapped\":{\"data\":{\"a\":{\"b\":3,\"c\":2},\"z\":1},\"index\":5}}"},
};

UNIT_LOOP_TEST(events_become_what_ocsf_wants, ARRAY_SIZE(cases))
{
	ck_assert_int_eq(write_event(cases[_i].type, cases[_i].data, "o1"), 0);
	ck_assert_msg(strstr(event, cases[_i].want) != NULL, "no %s in %s", cases[_i].want, event);
}

UNIT_TEST(outside_of_a_log_nothing_names_one)
{
	ck_assert_int_eq(write_event("log.v1.closed", "\"a\":1", ""), 0);
	ck_assert_ptr_null(strstr(event, "log_name"));
	ck_assert_ptr_null(strstr(event, "index"));
	ck_assert_ptr_nonnull(strstr(event, "\"device\":{\"type_id\":1,\"uid\":\"unknown\"}"));
	ck_assert_ptr_nonnull(strstr(event, ",\"unmapped\":{\"data\":{\"a\":1}}}"));
}

UNIT_TEST(the_record_is_in_it_with_its_hash)
{
	char want[160];

	strcpy(line,
	       "{\"data\":{},\"id\":\"i\",\"source\":\"s\",\"time\":\"" TIME "\",\"type\":\"t\"}");
	ck_assert_int_eq(write_line(""), 0);
	/* Of sha256sum(1). */
	snprintf(
		want, sizeof(want),
		"\"raw_data_hash\":{\"algorithm\":\"SHA-256\",\"algorithm_id\":3,\"value\":"
		"\"f587ae92894d7b5cc87692dbd24996a23451bd032d1cc1fad9b0ff0b77b37c71\"},\"raw_data_size\":%zu,",
		strlen(line));
	ck_assert_msg(strstr(event, want) != NULL, "%s", event);
	ck_assert_ptr_nonnull(
		strstr(event, "\"raw_data\":\"{\\\"data\\\":{},\\\"id\\\":\\\"i\\\","));
}

UNIT_TEST(a_type_of_others_is_a_base_event)
{
	static const char known[] =
		"\"dev.cellos.events.cell.observability.guest.v1.process_exited\"";
	char *type;

	ck_assert_int_eq(write_event("guest.v1.process_exited", CELL, ""), 0);
	ck_assert_ptr_nonnull(strstr(event, "\"class_uid\":1007,"));
	type = strstr(line, known);
	type[1] = 'D';
	ck_assert_int_eq(write_line(""), 0);
	ck_assert_ptr_nonnull(strstr(event, "\"class_uid\":0,"));
}

#define EVENT(data)                                                                                \
	"{\"data\":" data ",\"id\":\"i\",\"source\":\"s\",\"time\":\"" TIME "\",\"type\":\"t\"}"

UNIT_TEST(an_envelope_is_its_event)
{
	strcpy(line,
	       "{\"data\":{\"event\":" EVENT(
		       "{\"cellId\":\"c\"}") "},\"id\":\"outer\","
					     "\"source\":\"o\",\"time\":\"2020-01-01T00:00:00.000Z\","
					     "\"type\":\"dev.cellos.events.signed_envelope.v1\"}");
	ck_assert_int_eq(write_line(""), 0);
	ck_assert_ptr_nonnull(
		strstr(event, "\"original_event_uid\":\"i\",\"original_time\":\"" TIME));
	ck_assert(ocsf_is_wanted(doc, "c", TIME_MS, TIME_MS));
	ck_assert(!ocsf_is_wanted(doc, "d", TIME_MS, TIME_MS));
	strcpy(line, "{\"data\":{},\"type\":\"dev.cellos.events.signed_envelope.v1\"}");
	ck_assert_int_eq(write_line(""), -EBADMSG);
}

UNIT_TEST(what_is_no_event)
{
	static const char *const none[] = {
		"[]",
		"{}",
		EVENT("7"),
		EVENT("[]"),
		"{\"data\":{},\"id\":\"i\",\"source\":\"s\",\"type\":\"t\"}",
		"{\"data\":{},\"id\":\"i\",\"source\":\"s\",\"time\":\"yesterday\",\"type\":\"t\"}",
		"{\"data\":{},\"id\":\"i\",\"source\":\"s\",\"time\":\"" TIME "\",\"type\":1}",
		"{\"data\":{},\"source\":\"s\",\"time\":\"" TIME "\",\"type\":\"t\"}",
		"{\"data\":{},\"id\":\"i\",\"time\":\"" TIME "\",\"type\":\"t\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		strcpy(line, none[i]);
		ck_assert_msg(write_line("o1") == -EBADMSG, "%s", line);
	}
}

/* A control character has six bytes in the data, and seven in the record as a text. */
UNIT_TEST(a_long_event_is_whole)
{
	const size_t n = 10000;
	char *data = malloc(6 * n + 16), *at = data;

	at += sprintf(at, "\"a\":\"");
	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "\\u0001");
	strcpy(at, "\"");
	ck_assert_int_eq(write_event("host.v1.x", data, ""), 0);
	ck_assert_uint_gt(strlen(event), 13 * n);
	free(data);
}

UNIT_TEST(a_cell_and_a_time_may_be_wanted)
{
	strcpy(line, EVENT("{\"cellId\":\"c\"}"));
	read_line();
	ck_assert(ocsf_is_wanted(doc, NULL, INT64_MIN, INT64_MAX));
	ck_assert(ocsf_is_wanted(doc, "c", TIME_MS, TIME_MS));
	ck_assert(!ocsf_is_wanted(doc, "cc", TIME_MS, TIME_MS));
	ck_assert(!ocsf_is_wanted(doc, "c", TIME_MS + 1, INT64_MAX));
	ck_assert(!ocsf_is_wanted(doc, "c", INT64_MIN, TIME_MS - 1));
	/* What belongs to no cell belongs to all, and what has no time to every time. */
	strcpy(line, EVENT("{}"));
	read_line();
	ck_assert(ocsf_is_wanted(doc, "c", TIME_MS, TIME_MS));
	ck_assert(!ocsf_is_wanted(doc, "c", TIME_MS + 1, INT64_MAX));
	strcpy(line, "{\"data\":{\"cellId\":\"c\"}}");
	read_line();
	ck_assert(ocsf_is_wanted(doc, "c", TIME_MS, TIME_MS));
	ck_assert(!ocsf_is_wanted(doc, "d", TIME_MS, TIME_MS));
}

UNIT_SUITE(.setup = set_up, .teardown = tear_down);
