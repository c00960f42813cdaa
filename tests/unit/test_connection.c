/* SPDX-License-Identifier: MIT */
/* One connection: bytes to frames wherever they are cut, its ends, and bytes to the guest. */
#include "host-receiver/cell/connection.h"

#include <stdarg.h>

#include "common/util.h"
#include "tests/unit/unit.h"

/* What the owner was given, as text: "4:abcd " for a frame, "reason@offset " for a violation. */
static char given[512];
static uint64_t given_bytes;
static unsigned n_closed, n_readable, n_writable;
static bool refuses; /* the owner ends the connection at the next frame */
static uv_loop_t loop;
static int guest; /* the other end */
static struct connection *connection;
static uint8_t buffer[CONNECTION_READ_SIZE];

static _printf_(1, 2) void give(const char *format, ...)
{
	const size_t len = strlen(given);
	va_list ap;

	va_start(ap, format);
	vsnprintf(given + len, sizeof(given) - len, format, ap);
	va_end(ap);
}

static void are_given(const char *want)
{
	ck_assert_str_eq(given, want);
	*given = '\0';
}

static void on_readable(void *ctx, struct connection *c)
{
	ck_assert(ctx == given && c == connection);
	n_readable++;
}

static void on_writable(void *ctx, struct connection *c)
{
	ck_assert(ctx == given && c == connection);
	n_writable++;
}

static bool on_frame(void *ctx, struct connection *c, const uint8_t *body, size_t len)
{
	ck_assert(ctx == given && c == connection);
	give("%zu:%.*s ", len, (int)MIN(len, (size_t)8), (const char *)body);
	return !refuses;
}

static void on_violation(void *ctx, struct connection *c, const struct wire_refusal *refusal)
{
	ck_assert(ctx == given && c == connection);
	give("%s@%zu ", wire_error_name(refusal->error), refusal->offset);
}

static void on_bytes(void *ctx, size_t n)
{
	ck_assert_ptr_eq(ctx, given);
	given_bytes += n;
}

static void on_ended(void *ctx, struct connection *c, const char *reason)
{
	ck_assert(ctx == given && c == connection);
	give("%s.", reason);
}

static void on_closed(void *ctx)
{
	ck_assert_ptr_eq(ctx, given);
	n_closed++;
}

static void setup(void)
{
	static const struct connection_ops ops = {
		.readable = on_readable,
		.writable = on_writable,
		.frame = on_frame,
		.violation = on_violation,
		.bytes = on_bytes,
		.ended = on_ended,
		.closed = on_closed,
	};
	int pair[2];

	*given = '\0';
	given_bytes = n_closed = n_readable = n_writable = 0;
	refuses = false;
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	guest = pair[1];
	connection = connection_new(&loop, pair[0], buffer, &ops, given);
	ck_assert_ptr_nonnull(connection);
}

static void teardown(void)
{
	connection_close(connection);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(n_closed, 1);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	close(guest);
}

static void send_bytes(const void *data, size_t len)
{
	ck_assert_int_eq(send(guest, data, len, 0), len);
}

#define THREE	    "\4\0\0\0abcd\1\0\0\0x\6\0\0\0qwerty"
#define THREE_SIZE  (sizeof(THREE) - 1)
#define THREE_GIVEN "4:abcd 1:x 6:qwerty "

UNIT_TEST(frames_may_be_cut_anywhere)
{
	for (size_t first = 0; first <= THREE_SIZE; first++)
		for (size_t second = first; second <= THREE_SIZE; second++) {
			const size_t at[] = {0, first, second, THREE_SIZE};

			for (size_t i = 0; i < 3; i++) {
				const size_t n = at[i + 1] - at[i];

				if (n == 0)
					continue;
				send_bytes(&THREE[at[i]], n);
				ck_assert_int_eq(connection_read(connection, SIZE_MAX), n);
			}
			are_given(THREE_GIVEN);
			ck_assert_ptr_null(connection->partial);
		}
	ck_assert_uint_eq(connection->bytes, given_bytes);
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), 0);
}

UNIT_TEST(a_read_takes_no_more_than_it_may)
{
	send_bytes(THREE, THREE_SIZE);
	ck_assert_uint_eq(connection_unread(connection), THREE_SIZE);
	ck_assert_int_eq(connection_read(connection, 9), 9);
	are_given("4:abcd ");
	ck_assert_uint_eq(connection_unread(connection), THREE_SIZE - 9);
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), THREE_SIZE - 9);
	are_given("1:x 6:qwerty ");
	ck_assert_uint_eq(connection_unread(connection), 0);
}

static void read_prefix(uint32_t size, ssize_t want, const char *want_given)
{
	const uint8_t prefix[] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16),
				  (uint8_t)(size >> 24)};

	send_bytes(prefix, sizeof(prefix));
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), want);
	are_given(want_given);
}

UNIT_TEST(the_largest_frame_is_taken)
{
	static char body[WIRE_BODY_ACCEPT_MAX];

	memset(body, 'b', sizeof(body));
	read_prefix(sizeof(body), WIRE_PREFIX_SIZE, "");
	for (size_t at = 0; at < sizeof(body); at += CONNECTION_READ_SIZE) {
		send_bytes(body + at, CONNECTION_READ_SIZE);
		ck_assert_int_eq(connection_read(connection, SIZE_MAX), CONNECTION_READ_SIZE);
	}
	are_given("65536:bbbbbbbb ");
	ck_assert_ptr_null(connection->partial);
}

UNIT_LOOP_TEST(sizes_that_no_frame_has_end_the_connection, 3)
{
	static const uint32_t sizes[] = {0, WIRE_BODY_ACCEPT_MAX + 1, UINT32_MAX};

	read_prefix(sizes[_i], -1, "frame_length@0 wire_error.");
	ck_assert(!connection->at_end);
}

UNIT_TEST(a_refused_frame_ends_the_connection)
{
	refuses = true;
	send_bytes(THREE, THREE_SIZE);
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), -1);
	are_given("4:abcd wire_error.");
}

UNIT_LOOP_TEST(an_end_inside_a_frame_is_a_violation, 8)
{
	static const char *const want[] = {
		"eof.",
		"truncated@0 wire_error.",
		"truncated@0 wire_error.",
		"truncated@0 wire_error.",
		"truncated@0 wire_error.",
		"truncated@1 wire_error.",
		"truncated@2 wire_error.",
		"truncated@3 wire_error.",
	};

	if (_i > 0) {
		send_bytes(THREE, (size_t)_i);
		ck_assert_int_eq(connection_read(connection, SIZE_MAX), _i);
	}
	ck_assert_int_eq(shutdown(guest, SHUT_WR), 0);
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), -1);
	are_given(want[_i]);
	ck_assert(connection->at_end);
}

UNIT_TEST(an_acknowledgement_waits_for_room_and_stays_whole)
{
	static uint8_t flood[1024 * 1024];
	uint8_t ack[2 * WIRE_ACK_SIZE];
	ssize_t n;

	ck_assert(connection_ack(connection, 258));
	ck_assert_uint_eq(connection->acked, 258);
	ck_assert_int_eq(recv(guest, ack, sizeof(ack), 0), WIRE_ACK_SIZE);
	ck_assert_uint_eq(wire_ack_decode(ack), 258);
	while ((n = send(connection->fd, flood, sizeof(flood), MSG_DONTWAIT)) > 0)
		;
	ck_assert(connection_ack(connection, 259));
	ck_assert_uint_eq(connection->acked, 259);
	ck_assert_uint_eq(connection->ack_left, WIRE_ACK_SIZE);
	/* Nothing comes between its bytes; and a guest that does not read counts as alive. */
	ck_assert(!connection_ack(connection, 260));
	ck_assert_uint_eq(connection->acked, 259);
	ck_assert(connection_ask(connection));
	while ((n = recv(guest, flood, sizeof(flood), 0)) > 0)
		;
	ck_assert(connection_flush(connection));
	ck_assert_int_eq(recv(guest, ack, sizeof(ack), 0), WIRE_ACK_SIZE);
	ck_assert_uint_eq(wire_ack_decode(ack), 259);
	ck_assert(connection_ask(connection));
	ck_assert_int_eq(recv(guest, ack, sizeof(ack), 0), 1);
	ck_assert_uint_eq(ack[0], WIRE_LIVENESS_BYTE);
}

UNIT_TEST(a_dead_guest_is_noticed)
{
	close(guest);
	guest = -1;
	ck_assert(!connection_ask(connection));
	ck_assert(connection_ack(connection, 1));
	ck_assert_uint_eq(connection->ack_left, 0);
	ck_assert_int_eq(connection_read(connection, SIZE_MAX), -1);
	are_given("eof.");
}

UNIT_TEST(it_is_polled_for_what_is_asked)
{
	send_bytes(THREE, THREE_SIZE);
	connection_poll(connection, false, true);
	uv_run(&loop, UV_RUN_ONCE);
	ck_assert(n_writable > 0 && n_readable == 0);
	connection_poll(connection, true, false);
	uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_gt(n_readable, 0);
	connection_poll(connection, false, false);
	n_readable = n_writable = 0;
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert(n_readable == 0 && n_writable == 0);
	ck_assert_uint_eq(connection->peer.uid, getuid());
	ck_assert_int_eq(connection->peer.pid, getpid());
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
