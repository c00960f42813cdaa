/* SPDX-License-Identifier: MIT */
/* A frame applied to its cell: the evidence it makes, the numbers it settles, what it counts. */
#include "host-receiver/cell/frames.h"

#include "host-receiver/cell/connections.h"
#include "tests/unit/evidence_lines.h"

#define A    "00000000000000aa"
#define B    "00000000000000bb"
#define BOOT "11111111-2222-3333-4444-555555555555"

static struct evidence_lines lines;
static struct cell_registry registry;
static struct connection connection;
static struct cell cell, other;
static const uint8_t id[UUID_SIZE] = {1};
static uint8_t frame[WIRE_FRAME_SEND_MAX];
static size_t len; /* of the frame, with its prefix */

static void on_durable(void *ctx __attribute__((unused)), struct pipeline_account *account)
{
	ck_assert_ptr_eq(account->owner, &cell);
}

static void setup(void)
{
	evidence_lines_begin(&lines, on_durable);
	registry = (struct cell_registry){.pipeline = lines.pipeline, .cells = &other};
	connection = (struct connection){.number = 7, .fd = -1};
	other = (struct cell){.next = &cell, .registry = &registry};
	cell = (struct cell){.registry = &registry, .active = &connection};
	ck_assert_int_eq(stream_open(&cell.stream, lines.pipeline, registry.stats.events, &cell,
				     "c", "r", "h", id),
			 0);
}

static void teardown(void)
{
	stream_close(&cell.stream);
	evidence_lines_end(&lines);
}

static void encode(const struct declaration *d)
{
	const int r = wire_encode(d, frame, sizeof(frame));

	ck_assert_int_gt(r, 0);
	len = (size_t)r;
}

static bool take(void)
{
	return frame_take(&cell, frame + WIRE_PREFIX_SIZE, len - WIRE_PREFIX_SIZE);
}

static void encode_spawned(uint64_t seq)
{
	struct declaration d = {.content_version = WIRE_VERSION_2,
				.source = WIRE_PROCESS_SPAWNED,
				.guest_pid = 3,
				.guest_comm = wire_text("sh"),
				.guest_monotonic_ns = 4,
				.seq = seq};

	declaration_add_uint(&d, WIRE_KEY_PPID, 2);
	encode(&d);
}

static void spawned(uint64_t seq)
{
	encode_spawned(seq);
	ck_assert(take());
}

static struct declaration telemetry(enum wire_source source)
{
	return (struct declaration){.content_version = WIRE_VERSION_2,
				    .source = source,
				    .guest_pid = 1,
				    .guest_comm = wire_text("a")};
}

/* boot may be NULL; capacity 0: the agent wants no acknowledgements. */
static bool hello(const char *session, uint64_t next, const char *boot, uint64_t capacity)
{
	struct declaration d = telemetry(WIRE_TELEMETRY_HELLO);

	declaration_add_text(&d, WIRE_KEY_AGENT_VERSION, wire_text("1"));
	declaration_add_text(&d, WIRE_KEY_SESSION, wire_text(session));
	declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, next);
	if (boot)
		declaration_add_text(&d, WIRE_KEY_BOOT_ID, wire_text(boot));
	if (capacity > 0) {
		declaration_add_uint(&d, WIRE_KEY_QUEUE_CAPACITY, capacity);
		declaration_add_bool(&d, WIRE_KEY_ACKS, true);
	}
	encode(&d);
	return take();
}

static void add_totals(struct declaration *d, uint64_t observed, uint64_t dropped, uint64_t next)
{
	declaration_add_uint(d, WIRE_KEY_OBSERVED, observed);
	declaration_add_uint(d, WIRE_KEY_SENT, observed);
	declaration_add_uint(d, WIRE_KEY_DROPPED, dropped);
	declaration_add_uint(d, WIRE_KEY_NEXT_SEQ, next);
}

static void heartbeat(uint64_t observed, uint64_t dropped, uint64_t next)
{
	struct declaration d = telemetry(WIRE_TELEMETRY_HEARTBEAT);

	add_totals(&d, observed, dropped, next);
	declaration_add_uint(&d, WIRE_KEY_KERNEL_LOST, observed + 1);
	encode(&d);
	ck_assert(take());
}

static void connect_again(void)
{
	cell.numbering = (struct numbering){0};
	cell.lie_noted = false;
}

/* What is durable of the numbers. */
static void settled(uint64_t seq)
{
	evidence_lines_settle(&lines);
	ck_assert_uint_eq(cell.stream.account->durable.session, cell.numbering.session->id);
	ck_assert_uint_eq(cell.stream.account->durable.seq, seq);
}

#define SPAWNED(seq)                                                                               \
	"guest.v1.process_spawned {'connection':7,'contentVersion':2,'detail':{'ppid':2},"         \
	"'guestComm':'sh','guestMonotonicNs':4,'guestPid':3,'probeSource':'process.spawned'"       \
	",'seq':" seq "}"
#define HELLO(before_next, next, after)                                                            \
	"guest.v1.telemetry_hello {'connection':7,'contentVersion':2,'detail':{" before_next       \
	"'agentVersion':'1'," next after                                                           \
	"},'guestComm':'a','guestMonotonicNs':0,'guestPid':1,'probeSource':'telemetry.hello'}"
#define PLAIN(session, next) HELLO("", "'nextSeq':" next ",", "'session':'" session "'")
#define GAP(session, reason, first, last)                                                          \
	"guest.v1.telemetry_gap {'firstMissing':" first ",'lastMissing':" last                     \
	",'reason':'" reason "','session':'" session "'}"
#define VIOLATION(rest) "guest.v1.channel_violation {'connection':7," rest "}"

UNIT_TEST(frames_in_order_are_evidence_and_settled)
{
	ck_assert(hello(A, 1, NULL, 0));
	spawned(1);
	spawned(2);
	LINES(&lines, PLAIN(A, "1"), SPAWNED("1"), SPAWNED("2"));
	settled(2);
	ck_assert_uint_eq(cell.frames, 3);
	ck_assert_uint_eq(connection.frames, 3);
	ck_assert_uint_eq(registry.stats.frames, 3);
	ck_assert_uint_eq(cell.eventless, 0);
	ck_assert(!cell.acks);
}

UNIT_TEST(what_is_missing_repeated_or_backwards_is_said)
{
	ck_assert(hello(A, 3, NULL, 0));
	spawned(3);
	spawned(6);
	LINES(&lines, GAP(A, "session_start", "1", "2"), PLAIN(A, "3"), SPAWNED("3"),
	      GAP(A, "jump", "4", "5"), SPAWNED("6"));
	settled(6);
	ck_assert_uint_eq(cell.gaps, 2);
	ck_assert_uint_eq(registry.stats.gaps, 2);
	connect_again();
	ck_assert(hello(A, 6, NULL, 0));
	spawned(6);
	ck_assert_uint_eq(cell.repeated, 1);
	ck_assert_uint_eq(registry.stats.repeated, 1);
	ck_assert_uint_eq(cell.eventless, 1);
	spawned(2);
	spawned(2);
	LINES(&lines, PLAIN(A, "6"), VIOLATION("'reason':'sequence'"), SPAWNED("2"), SPAWNED("2"));
	settled(6);
}

UNIT_TEST(a_number_before_a_hello_settles_nothing)
{
	spawned(1);
	spawned(2);
	LINES(&lines, VIOLATION("'reason':'no_hello'"), SPAWNED("1"), SPAWNED("2"));
	ck_assert_uint_eq(cell.stream.account->durable.session, 0);
}

/* The same bytes with another source of the same length, or another version. */
static void rename_source(const char *to)
{
	uint8_t *at = memmem(frame, len, "process.spawned", 15);

	ck_assert_ptr_nonnull(at);
	memcpy(at, to, 15);
}

UNIT_TEST(an_unknown_source_is_refused_alone_and_its_number_settled)
{
	ck_assert(hello(A, 1, NULL, 0));
	encode_spawned(2);
	rename_source("process.vanishd");
	ck_assert(take());
	spawned(3);
	LINES(&lines, PLAIN(A, "1"), GAP(A, "jump", "1", "1"),
	      "guest.v1.unknown_source {'count':1,'source':'process.vanishd'}", SPAWNED("3"));
	encode_spawned(4);
	rename_source("process.vanishd");
	ck_assert(take());
	NO_LINES(&lines);
	settled(4);
	ck_assert_uint_eq(cell.frames_rejected, 2);
	ck_assert_uint_eq(cell.eventless, 2);
	ck_assert_uint_eq(registry.stats.rejected[WIRE_UNKNOWN_SOURCE], 2);
	/* Sent again after a reconnect it is a repeat, and counts as nothing new. */
	connect_again();
	ck_assert(hello(A, 4, NULL, 0));
	encode_spawned(4);
	rename_source("process.vanishd");
	ck_assert(take());
	LINES(&lines, PLAIN(A, "4"));
	ck_assert_uint_eq(cell.repeated, 1);
	ck_assert_uint_eq(cell.limited.kinds[LIMITED_SOURCE].count, 1);
}

UNIT_TEST(another_version_has_no_numbers)
{
	static const char key[] = "content_version";
	uint8_t *version;

	ck_assert(hello(A, 1, NULL, 0));
	encode_spawned(9);
	version = memmem(frame, len, key, strlen(key));
	ck_assert_ptr_nonnull(version);
	version += strlen(key);
	ck_assert_uint_eq(*version, WIRE_VERSION_2);
	memmove(version + 2, version, (size_t)(frame + len - version));
	memcpy(version, (const uint8_t[]){0x19, 0x02, 0x01}, 3);
	len += 2;
	ck_assert(take());
	spawned(1);
	LINES(&lines, PLAIN(A, "1"), "guest.v1.version_rejected {'contentVersion':513,'count':1}",
	      SPAWNED("1"));
	settled(1);
}

UNIT_TEST(a_broken_frame_ends_the_connection_as_a_gap)
{
	ck_assert(hello(A, 1, NULL, 0));
	encode_spawned(1);
	len--;
	ck_assert(!take());
	LINES(&lines, PLAIN(A, "1"), GAP(A, "refused", "1", "1"),
	      "guest.v1.channel_violation {'connection':7,'offset':110,"
	      "'reason':'malformed_cbor'}");
	settled(1);
	ck_assert_uint_eq(cell.frames_rejected, 1);
	ck_assert_uint_eq(cell.gaps, 1);
	ck_assert_uint_eq(registry.stats.rejected[WIRE_MALFORMED_CBOR], 1);
	/* Outside a frame: its violation, and no number. */
	frame_violation(&cell, &(struct wire_refusal){.error = WIRE_FRAME_LENGTH});
	LINES(&lines, VIOLATION("'offset':0,'reason':'frame_length'"));
	ck_assert_uint_eq(cell.frames_rejected, 2);
}

UNIT_TEST(a_second_session_ends_the_connection)
{
	ck_assert(hello(A, 1, NULL, 0));
	ck_assert(hello(A, 1, NULL, 0)); /* a source of the agent changed */
	ck_assert(!hello(B, 1, NULL, 0));
	LINES(&lines, PLAIN(A, "1"), PLAIN(A, "1"), VIOLATION("'reason':'second_session'"));
	ck_assert_uint_eq(cell.frames_rejected, 1);
}

UNIT_TEST(a_clone_of_another_cell_inherits_numbers)
{
	memcpy(other.boot_id, BOOT, sizeof(BOOT));
	ck_assert(hello(A, 5, BOOT, 0));
	ck_assert_str_eq(cell.boot_id, BOOT);
	LINES(&lines, GAP(A, "inherited", "1", "4"),
	      HELLO("", "'bootId':'" BOOT "','nextSeq':5,", "'session':'" A "'"));
	/* Its own boot is no clone's; and a boot that nobody else names is not either. */
	memset(other.boot_id, 0, sizeof(other.boot_id));
	connect_again();
	ck_assert(hello(B, 5, BOOT, 0));
	LINES(&lines, GAP(B, "session_start", "1", "4"),
	      HELLO("", "'bootId':'" BOOT "','nextSeq':5,", "'session':'" B "'"));
	connect_again();
	ck_assert(hello(A, 1, NULL, 0));
	ck_assert_str_eq(cell.boot_id, "");
	ck_assert_uint_eq(registry.stats.sessions_evicted, 0);
}

UNIT_TEST(heartbeats_are_totals_and_no_evidence)
{
	ck_assert(hello(A, 1, NULL, 0));
	heartbeat(10, 3, 1);
	ck_assert_uint_ne(cell.heartbeat_ns, 0);
	ck_assert_uint_eq(cell.eventless, 1);
	LINES(&lines, PLAIN(A, "1"));
	heartbeat(12, 1, 3);
	heartbeat(13, 2, 3);
	/* The first lie only; and numbers that were assigned and did not come. */
	LINES(&lines, VIOLATION("'field':'dropped','reason':'out_of_range'"),
	      GAP(A, "jump", "1", "2"));
	settled(2);
	ck_assert_uint_eq(cell.guest.grown[GUEST_OBSERVED], 13);
	ck_assert_uint_eq(cell.guest.grown[GUEST_DROPPED], 3);
	ck_assert_uint_eq(registry.stats.guest_dropped, 3);
	ck_assert_uint_eq(registry.stats.guest_kernel_lost, 14);
	/* An agent that was started again counts from zero: that is no lie. */
	connect_again();
	ck_assert(hello(B, 1, NULL, 0));
	heartbeat(1, 1, 1);
	LINES(&lines, PLAIN(B, "1"));
	ck_assert_uint_eq(registry.stats.guest_dropped, 4);
	ck_assert(!cell.hurry && !cell.keepalive.said_bye);
}

UNIT_TEST(a_bye_is_evidence_and_hurries)
{
	struct declaration d = telemetry(WIRE_TELEMETRY_BYE);

	declaration_add_text(&d, WIRE_KEY_REASON, wire_text("sigterm"));
	add_totals(&d, 5, 4, 2);
	ck_assert(hello(A, 1, NULL, 0));
	encode(&d);
	ck_assert(take());
	ck_assert(cell.hurry && cell.keepalive.said_bye);
	ck_assert_uint_eq(cell.heartbeat_ns, 0);
	ck_assert_uint_eq(registry.stats.guest_dropped, 4);
	LINES(&lines, PLAIN(A, "1"), GAP(A, "jump", "1", "1"),
	      "guest.v1.telemetry_bye {'connection':7,'contentVersion':2,'detail':{'dropped':4,"
	      "'nextSeq':2,'observed':5,'reason':'sigterm','sent':5},'guestComm':'a',"
	      "'guestMonotonicNs':0,'guestPid':1,'probeSource':'telemetry.bye'}");
}

static int agent; /* the other end of the connection */

static void connect_agent(void)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	connection.fd = pair[0];
	agent = pair[1];
}

static void disconnect_agent(void)
{
	close(connection.fd);
	close(agent);
}

/* The agent receives this acknowledgement, or with -1 none. */
static void acknowledged(int64_t want)
{
	uint8_t ack[WIRE_ACK_SIZE + 1];
	const ssize_t n = recv(agent, ack, sizeof(ack), 0);

	ck_assert_int_eq(n, want < 0 ? -1 : (ssize_t)WIRE_ACK_SIZE);
	if (want >= 0)
		ck_assert_uint_eq(wire_ack_decode(ack), want);
}

UNIT_TEST(a_hello_is_answered_with_what_is_settled)
{
	connect_agent();
	sessions_load(&cell.sessions, wire_text(A), 6);
	ck_assert(hello(A, 4, NULL, 80));
	ck_assert(cell.acks);
	ck_assert_uint_eq(cell.ack_step, 80 / CELL_ACK_FRACTION);
	acknowledged(5);
	/* Only the first hello of a connection is. */
	ck_assert(hello(A, 4, NULL, 80));
	acknowledged(-1);
	connect_again();
	ck_assert(hello(A, 6, NULL, 1));
	ck_assert_uint_eq(cell.ack_step, 1);
	disconnect_agent();
}

static void settle_and_acknowledge(uint64_t settled_now, uint64_t now_ns, int64_t want)
{
	cell.numbering.session->settled = settled_now;
	connections_acknowledge(&cell, now_ns);
	acknowledged(want);
}

UNIT_TEST(an_acknowledgement_has_a_step_or_a_time)
{
	const uint64_t due = 5 + CELL_ACK_MS * NSEC_PER_MSEC;

	connect_agent();
	ck_assert(hello(A, 1, NULL, 80));
	acknowledged(0);
	settle_and_acknowledge(0, 5, -1);
	ck_assert_uint_eq(cell.ack_due_ns, 0);
	settle_and_acknowledge(8, 5, -1);
	settle_and_acknowledge(9, due - 1, -1);
	ck_assert_uint_eq(cell.ack_due_ns, due);
	settle_and_acknowledge(9, due, 9);
	ck_assert_uint_eq(cell.ack_due_ns, 0);
	settle_and_acknowledge(19, due, 19);
	cell.hurry = true;
	settle_and_acknowledge(20, due, 20);
	settle_and_acknowledge(20, due, -1);
	cell.acks = false;
	settle_and_acknowledge(60, due, -1);
	disconnect_agent();
}

UNIT_TEST(a_frame_ends_a_silence)
{
	cell.keepalive.silent = true;
	registry.stats.silent = 2;
	ck_assert(hello(A, 1, NULL, 0));
	ck_assert_uint_eq(registry.stats.silent, 1);
	ck_assert_uint_eq(registry.stats.events[EVENT_AGENT_RESUMED], 1);
	spawned(1);
	ck_assert_uint_eq(registry.stats.silent, 1);
	ck_assert_uint_eq(registry.stats.events[EVENT_AGENT_RESUMED], 1);
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
