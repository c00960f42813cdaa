/* SPDX-License-Identifier: MIT */
#include "common/util.h"
#include "host-receiver/event/event.h"
#include "tests/unit/unit.h"

static struct stream_identity cell_stream = {
	.cell_id = (char *)"c",
	.run_id = (char *)"r",
	.spec_hash = (char *)"h",
};
static struct stream_identity log_stream;

static void write_at(struct event_clock *clock, uint64_t realtime_ms, const char *want)
{
	struct event e = {
		.type = EVENT_STREAM_OPENED, .stream = &cell_stream, .realtime_ms = realtime_ms};
	struct event_head head;
	char json[4096];
	size_t len;

	ck_assert_int_eq(event_write(&e, clock, json, sizeof(json), &len, &head), 0);
	ck_assert_str_eq(head.time, want);
	json[len] = '\0';
	ck_assert_ptr_nonnull(strstr(json, want));
}

UNIT_TEST(the_time_moves_with_each_event)
{
	struct event_clock clock = {0};

	write_at(&clock, 0, "1970-01-01T00:00:00.000Z");
	write_at(&clock, 999, "1970-01-01T00:00:00.999Z");
	write_at(&clock, 1000, "1970-01-01T00:00:01.000Z");
	write_at(&clock, UINT64_C(1700000000123), "2023-11-14T22:13:20.123Z");
	write_at(&clock, UINT64_C(1700000001004), "2023-11-14T22:13:21.004Z");
	write_at(&clock, UINT64_C(1700000001999), "2023-11-14T22:13:21.999Z");
	/* A clock that was set back. */
	write_at(&clock, UINT64_C(1700000000000), "2023-11-14T22:13:20.000Z");
}

UNIT_TEST(keys_are_in_the_order_of_their_names)
{
	for (int i = 1; i < _EVENT_KEY_MAX; i++)
		ck_assert_str_lt(event_key_name((enum event_key)(i - 1)),
				 event_key_name((enum event_key)i));
}

UNIT_TEST(the_logs_own_stream_has_no_cell)
{
	static const char want[] =
		"{\"data\":{\"authority\":\"observed\",\"cutBytes\":7,\"hostMonotonicNs\":5,"
		"\"hostReceivedAt\":\"1970-01-01T00:00:01.002Z\",\"lastIndex\":9,\"sequence\":3,"
		"\"streamId\":\"00000000-0000-0000-0000-000000000000\",\"unclean\":true,"
		"\"why\":\"x\"},\"datacontenttype\":\"application/json\","
		"\"id\":\"urn:cellos:event:00000000-0000-0000-0000-000000000000\","
		"\"source\":\"cellos-host-telemetry/log\",\"specversion\":\"1.0\","
		"\"time\":\"1970-01-01T00:00:01.002Z\","
		"\"type\":\"dev.cellos.events.cell.observability.log.v1.resumed\"}";
	struct event e = {
		.type = EVENT_LOG_RESUMED,
		.stream = &log_stream,
		.realtime_ms = 1002,
		.monotonic_ns = 5,
		.sequence = 3,
	};
	struct event_clock clock = {0};
	struct event_head head;
	char json[4096];
	size_t len;

	/* In any order: the writer sorts, also above key 64. */
	event_add_text(&e, EVENT_KEY_WHY, wire_text("x"));
	event_add_bool(&e, EVENT_KEY_UNCLEAN, true);
	event_add_uint(&e, EVENT_KEY_LAST_INDEX, 9);
	event_add_uint(&e, EVENT_KEY_CUT_BYTES, 7);
	ck_assert_int_eq(event_write(&e, &clock, json, sizeof(json), &len, &head), 0);
	json[len] = '\0';
	ck_assert_str_eq(json, want);
	ck_assert_int_eq(event_write(&e, &clock, json, len - 1, &len, &head), -ENOBUFS);
}

UNIT_TEST(a_short_name_is_found_by_its_type)
{
	char text[256];

	for (int i = 0; i < _EVENT_TYPE_MAX; i++) {
		const char *name = event_type_name((enum event_type)i);

		ck_assert_str_eq(event_find_short_name(name), event_short_name((enum event_type)i));
		/* Neither a longer one, nor a shorter one, nor that of somebody else. */
		snprintf(text, sizeof(text), "%sx", name);
		ck_assert_ptr_null(event_find_short_name(text));
		text[strlen(name) - 1] = '\0';
		ck_assert_ptr_null(event_find_short_name(text));
		snprintf(text, sizeof(text), "x%s", name + 1);
		ck_assert_ptr_null(event_find_short_name(text));
	}
	ck_assert_ptr_null(event_find_short_name(""));
}

UNIT_TEST(every_kind_of_field_has_its_key)
{
	static const char want[] = "\"connection\":null,\"detail\":{\"path\":\"/\",\"port\":80},"
				   "\"hostMonotonicNs\":5,";
	static const char raw[] = "\"output\":[1,2],";
	const struct wire_detail details[] = {
		{.key = WIRE_KEY_PORT, .type = WIRE_TYPE_UINT, .uint = 80},
		{.key = WIRE_KEY_PATH, .type = WIRE_TYPE_TEXT, .text = wire_text("/")},
	};
	struct event e = {.type = EVENT_GUEST_FIRST, .stream = &cell_stream, .monotonic_ns = 5};
	struct event_clock clock = {0};
	struct event_head head;
	char json[4096];
	size_t len;

	event_add_raw(&e, EVENT_KEY_OUTPUT, wire_text("[1,2]"));
	event_add_details(&e, details, ARRAY_SIZE(details));
	event_add_null(&e, EVENT_KEY_CONNECTION);
	ck_assert_int_eq(event_write(&e, &clock, json, sizeof(json), &len, &head), 0);
	json[len] = '\0';
	ck_assert_msg(strstr(json, want) != NULL, "%s", json);
	ck_assert_msg(strstr(json, raw) != NULL, "%s", json);
}
