/* SPDX-License-Identifier: MIT */
/* What the log says of the numbers: as if the receiver had never ended. */
#include "host-receiver/cell/recall.h"

#include <stdarg.h>

#include "common/util.h"
#include "tests/unit/scarce.h"
#include "tests/unit/unit.h"

#define A "00000000000000aa"
#define B "00000000000000bb"
#define P "\"dev.cellos.events.cell.observability."

static struct recall *recall;

static void line(const char *fmt, ...) _printf_(1, 2);
static void line(const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ck_assert_int_lt(n, (int)sizeof(text));
	ck_assert_int_eq(recall_line(recall, text, (size_t)n), 0);
}

static void hello(const char *cell, unsigned connection, const char *session, unsigned next,
		  unsigned assigned)
{
	line("{\"data\":{\"cellId\":\"%s\",\"connection\":%u,\"detail\":{\"assigned\":%u,"
	     "\"nextSeq\":%u,\"session\":\"%s\"}},\"type\":" P "guest.v1.telemetry_hello\"}",
	     cell, connection, assigned, next, session);
}

static void spawned(const char *cell, unsigned connection, unsigned seq)
{
	line("{\"data\":{\"cellId\":\"%s\",\"connection\":%u,\"seq\":%u},\"type\":" P
	     "guest.v1.process_spawned\"}",
	     cell, connection, seq);
}

static void gap(const char *cell, const char *session, const char *reason, unsigned first,
		unsigned last)
{
	line("{\"data\":{\"cellId\":\"%s\",\"firstMissing\":%u,\"lastMissing\":%u,"
	     "\"reason\":\"%s\",\"session\":\"%s\"},\"type\":" P "guest.v1.telemetry_gap\"}",
	     cell, first, last, reason, session);
}

/* 0: the session is not known. */
static uint64_t next_of(const char *cell, const char *session)
{
	const struct sessions *known = recall_find(recall, cell);
	const struct session *s =
		known ? sessions_find((struct sessions *)(uintptr_t)known, wire_text(session))
		      : NULL;

	return s ? s->next : 0;
}

static void setup(void)
{
	recall = recall_new();
	ck_assert_ptr_nonnull(recall);
}

static void teardown(void)
{
	recall_free(recall);
}

UNIT_TEST(frames_gaps_and_ends_are_followed)
{
	hello("a", 1, A, 1, 1);
	for (unsigned seq = 1; seq <= 5; seq++)
		spawned("a", 1, seq);
	ck_assert_uint_eq(next_of("a", A), 6);
	gap("a", A, "jump", 6, 8);
	ck_assert_uint_eq(next_of("a", A), 9);
	gap("a", A, "refused", 9, 9);
	ck_assert_uint_eq(next_of("a", A), 10);
	/* An unknown source's number is only in the end of the connection. */
	line("{\"data\":{\"cellId\":\"a\",\"connection\":1,\"nextSeq\":12,\"session\":\"" A
	     "\"},\"type\":" P "guest.v1.agent_disconnected\"}");
	ck_assert_uint_eq(next_of("a", A), 12);
	/* Each cell has its own. */
	hello("b", 1, A, 3, 3);
	ck_assert_uint_eq(next_of("b", A), 3);
	ck_assert_uint_eq(next_of("a", A), 12);
	ck_assert_uint_eq(next_of("c", A), 0);
}

UNIT_TEST(a_guest_that_was_set_back_is_followed_back)
{
	hello("a", 1, A, 1, 1);
	for (unsigned seq = 1; seq <= 30; seq++)
		spawned("a", 1, seq);
	gap("a", A, "host_ahead", 21, 30);
	hello("a", 2, A, 18, 21);
	for (unsigned seq = 18; seq <= 24; seq++)
		spawned("a", 2, seq);
	ck_assert_uint_eq(next_of("a", A), 25);
}

UNIT_TEST(an_entry_replaces_what_was_not_read)
{
	char text[512];
	struct json_writer w;
	struct sessions s = {0};
	size_t len;

	/* The hello of connection 7 stood before the place where the reading began. */
	spawned("a", 7, 90);
	ck_assert_uint_eq(next_of("a", A), 0);
	json_writer_init(&w, text, sizeof(text));
	json_put_begin_array(&w);
	recall_put(&w, "a", 0, sessions_add(&s, wire_text(B), 4));
	recall_put(&w, "a", 7, sessions_add(&s, wire_text(A), 91));
	json_put_end_array(&w);
	ck_assert_int_eq(json_writer_done(&w, &len), 0);
	line("{\"data\":{\"sessions\":%.*s},\"type\":" P "log.v1.sessions\"}", (int)len, text);
	ck_assert_uint_eq(next_of("a", A), 91);
	ck_assert_uint_eq(next_of("a", B), 4);
	/* The connection goes on after the entry. */
	spawned("a", 7, 91);
	spawned("a", 7, 92);
	ck_assert_uint_eq(next_of("a", A), 93);
	/* A frame of another connection without a hello says nothing. */
	spawned("a", 8, 200);
	ck_assert_uint_eq(next_of("a", A), 93);
}

UNIT_TEST(signed_lines_are_read_and_others_passed_over)
{
	line("{\"data\":{\"algorithm\":\"ed25519\",\"event\":{\"data\":{\"cellId\":\"a\","
	     "\"connection\":1,\"detail\":{\"nextSeq\":4,\"session\":\"" A "\"}},\"type\":" P
	     "guest.v1.telemetry_hello\"},\"signature\":\"x\",\"signerKid\":\"k\"},\"type\":\"t\"}");
	ck_assert_uint_eq(next_of("a", A), 4);
	line("not JSON \"session\"");
	line("{\"session\":1}");
	line("[\"session\"]");
	line("{\"data\":{\"sessions\":[1,{},{\"cellId\":\"a\",\"connection\":1,\"nextSeq\":9,"
	     "\"session\":\"short\"}]},\"type\":" P "log.v1.sessions\"}");
	line("{\"data\":{\"sessions\":{}},\"type\":" P "log.v1.sessions\"}");
	line("{\"data\":{\"session\":1},\"type\":" P "log.v1.sessions\"}");
	hello("a", 2, "notlongenough", 50, 50);
	spawned("", 1, 5);
	ck_assert_uint_eq(next_of("a", A), 4);
	/* A guest's text that looks like an entry is a text. */
	line("{\"data\":{\"cellId\":\"a\",\"connection\":2,\"guestComm\":\"\\\"sessions\\\":[]\","
	     "\"seq\":9},\"type\":" P "guest.v1.process_spawned\"}");
	ck_assert_uint_eq(next_of("a", A), 4);
}

/* No memory for a line says nothing about the line: the start fails, and a later one reads it. */
UNIT_TEST(a_line_without_memory_is_no_bad_line)
{
	static const char text[] =
		"{\"data\":{\"cellId\":\"a\",\"connection\":1,\"detail\":{\"nextSeq\":4,"
		"\"session\":\"" A "\"}},\"type\":" P "guest.v1.telemetry_hello\"}";
	unsigned n;

	for (n = 1;; n++) {
		int r;

		scarce_from(n);
		r = recall_line(recall, text, strlen(text));
		if (!scarce_end()) {
			ck_assert_int_eq(r, 0);
			break;
		}
		ck_assert_int_eq(r, -ENOMEM);
		ck_assert_uint_eq(next_of("a", A), 0);
	}
	ck_assert_uint_gt(n, 1);
	ck_assert_uint_eq(next_of("a", A), 4);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
