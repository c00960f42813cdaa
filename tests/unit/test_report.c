/* SPDX-License-Identifier: MIT */
/* Every report of a cell's stream, as the evidence shows it; and those that come once a second. */
#include "host-receiver/cell/report.h"

#include "host-receiver/cell/limited.h"
#include "tests/unit/evidence_lines.h"

#define SECOND	NSEC_PER_SEC
#define SESSION "00000000000000aa"

static struct evidence_lines lines;
static struct stream stream;
static uint64_t counts[_EVENT_TYPE_MAX];
static const uint8_t id[UUID_SIZE] = {1}, next_id[UUID_SIZE] = {2};

static void setup(void)
{
	memset(counts, 0, sizeof(counts));
	evidence_lines_begin(&lines, NULL);
	ck_assert_int_eq(stream_open(&stream, lines.pipeline, counts, NULL, "c", "r", "h", id), 0);
}

static void teardown(void)
{
	stream_close(&stream);
	evidence_lines_end(&lines);
}

UNIT_TEST(a_stream_says_who_opened_it_and_what_was_before)
{
	const struct stream_end end = {.stream_id = {1}, .sequence = 9},
				unknown = {.stream_id = {1}};
	struct report_opened opened = {
		.hostname = "h1", .boot_id = "b1", .origin = "", .keepalive_ms = 5000};

	report_opened(&stream, &opened);
	opened.origin = "o1";
	opened.previous = &end;
	report_opened(&stream, &opened);
	opened.previous = &unknown;
	report_opened(&stream, &opened);
	ck_assert_uint_eq(counts[EVENT_STREAM_OPENED], 3);
	ck_assert_uint_eq(stream.sequence, 3);
#define HOST(origin) "stream.v1.opened {'hostBootId':'b1','hostname':'h1','keepaliveMs':5000" origin
#define VERSION	     "'receiverVersion':'" CELLOS_VERSION "'}"
#define BEFORE	     "'previousStreamId':'01000000-0000-0000-0000-000000000000',"
	LINES(&lines, HOST(",") VERSION,
	      HOST(",'origin':'o1','previousSequence':9,") BEFORE VERSION,
	      HOST(",'origin':'o1',") BEFORE VERSION);
}

UNIT_TEST(totals_are_the_same_in_checkpoints_and_seals)
{
	static const uint64_t guest[_GUEST_TOTAL_MAX] = {
		[GUEST_OBSERVED] = 21,
		[GUEST_SENT] = 22,
		[GUEST_DROPPED] = 23,
		[GUEST_KERNEL_LOST] = 24,
	};
	const struct session session = {.name = SESSION, .next = 31};
	struct report_totals totals = {.frames = 11,
				       .frames_rejected = 12,
				       .bytes = 13,
				       .gaps = 14,
				       .repeated = 15,
				       .guest = guest};

	report_checkpoint(&stream, &totals, 9 * SECOND);
	totals.heartbeat_ns = 8 * SECOND + 1;
	totals.reads_vmm = true;
	totals.vmm_bytes = 16;
	report_sealed(&stream, "removed", &totals,
		      &(struct report_numbers){.session = &session, .unread_bytes = 17},
		      9 * SECOND);
	/* A clock of the caller that is older than the heartbeat. */
	report_sealed(&stream, "once", &totals, &(struct report_numbers){0}, 8 * SECOND);
#define TOTALS(events)                                                                             \
	"{'bytes':13,'events':" events ",'frames':11,'framesRejected':12,'gaps':14,"               \
	"'guestDropped':23,'guestKernelLost':24,'guestObserved':21,'guestSent':22,"                \
	"'lastHeartbeatAgeMs':"
	LINES(&lines, "stream.v1.checkpoint " TOTALS("1") "null,'repeated':15}",
	      "stream.v1.sealed " TOTALS("2") "999,'nextSeq':31,'reason':'removed','repeated':15,"
					      "'session':'" SESSION
					      "','unreadBytes':17,'vmmBytes':16}",
	      "stream.v1.sealed " TOTALS("3") "0,'reason':'once','repeated':15,'unreadBytes':0,"
					      "'vmmBytes':16}");
}

UNIT_TEST(connections_and_silences_have_their_reasons)
{
	const struct session session = {.name = SESSION, .next = 4};
	const struct ucred peer = {.pid = 1, .uid = 2, .gid = 3};
	struct report_silenced silence = {.reason = "no_frame", .window_ms = 100};

	report_connected(&stream, 7, &peer);
	report_contested(&stream, "second_connection", &peer, 5);
	report_contested(&stream, "vmm_counts_more", NULL, 6);
	report_disconnected(&stream, &(struct report_disconnected){
					     .connection = 7,
					     .frames = 8,
					     .bytes = 9,
					     .reason = "eof",
					     .numbers = {.session = &session, .unread_bytes = 10},
				     });
	report_silenced(&stream, &silence, SECOND);
	silence.last_frame_ns = SECOND / 2;
	silence.connected = true;
	report_silenced(&stream, &silence, SECOND);
	report_resumed(&stream, 12);
	LINES(&lines,
	      "guest.v1.agent_connected {'connection':7,'peerGid':3,'peerPid':1,'peerUid':2}",
	      "guest.v1.channel_contested {'count':5,'peerGid':3,'peerPid':1,'peerUid':2,"
	      "'reason':'second_connection'}",
	      "guest.v1.channel_contested {'count':6,'reason':'vmm_counts_more'}",
	      "guest.v1.agent_disconnected {'bytes':9,'connection':7,'frames':8,'nextSeq':4,"
	      "'reason':'eof','session':'" SESSION "','unreadBytes':10}",
	      "guest.v1.agent_silenced {'connected':false,'lastFrameAgeMs':null,"
	      "'reason':'no_frame','windowMs':100}",
	      "guest.v1.agent_silenced {'connected':true,'lastFrameAgeMs':500,"
	      "'reason':'no_frame','windowMs':100}",
	      "guest.v1.agent_resumed {'silentMs':12}");
}

UNIT_TEST(frames_and_their_faults_are_named)
{
	const struct session session = {.name = SESSION, .next = 4};
	struct declaration d = {.content_version = 2,
				.source = WIRE_PROCESS_SPAWNED,
				.guest_pid = 41,
				.guest_comm = wire_text("sh"),
				.guest_monotonic_ns = 42};

	report_declaration(&stream, 7, &d);
	d.seq = 43;
	declaration_add_uint(&d, WIRE_KEY_PPID, 44);
	report_declaration(&stream, 7, &d);
	report_violation(&stream, 7, &(struct report_violation){.reason = "sequence"});
	report_violation(&stream, 7,
			 &(struct report_violation){
				 .reason = "bad_type", .field = "seq", .offset_known = true});
	report_gap(&stream, &session,
		   &(struct gap){.first = 5, .last = 6, .reason = GAP_INHERITED});
	report_version_rejected(&stream, 258, 3);
	report_unknown_source(&stream, wire_text("x.y"), 4);
	report_rate_limited(&stream, CEILING_CONNECTIONS, 5);
	report_rate_limited(&stream, CEILING_BYTES, 6);
#define DECLARED                                                                                   \
	"'guestComm':'sh','guestMonotonicNs':42,'guestPid':41,"                                    \
	"'probeSource':'process.spawned'"
	LINES(&lines, "guest.v1.process_spawned {'connection':7,'contentVersion':2," DECLARED "}",
	      "guest.v1.process_spawned {'connection':7,'contentVersion':2,'detail':{'ppid':44}"
	      "," DECLARED ",'seq':43}",
	      "guest.v1.channel_violation {'connection':7,'reason':'sequence'}",
	      "guest.v1.channel_violation {'connection':7,'field':'seq','offset':0,"
	      "'reason':'bad_type'}",
	      "guest.v1.telemetry_gap {'firstMissing':5,'lastMissing':6,'reason':'inherited',"
	      "'session':'" SESSION "'}",
	      "guest.v1.version_rejected {'contentVersion':258,'count':3}",
	      "guest.v1.unknown_source {'count':4,'source':'x.y'}",
	      "guest.v1.rate_limited {'count':5,'limit':'connections'}",
	      "guest.v1.rate_limited {'limit':'bytes','pausedMs':6}");
}

UNIT_TEST(each_part_of_a_reading_is_an_event)
{
	static char inputs[] = "{\"path\":1}", outputs[] = "{}[1]{}";
	const struct probe_reading reading = {
		.inputs = inputs,
		.outputs = outputs,
		.n_parts = 3,
		.part_end = {2, 5, 7},
	};
	const struct witness_verdict verdict = {
		.declared = 3,
		.since_ns = SECOND,
		.witnesses = 1u << PROBE_TAP_LINK | 1u << PROBE_NFTABLES,
	};

	report_reading(&stream, PROBE_TAP_LINK, &reading);
	report_unwitnessed(&stream, &verdict, 4 * SECOND);
#define READING(output)                                                                            \
	"host.v1.tap_link {'inputs':{'path':1},'output':" output ",'probeSource':'host.tap_link'}"
	LINES(&lines, READING("{}"), READING("[1]"), READING("{}"),
	      "guest.v1.declaration_unwitnessed {'declared':3,'sinceMs':3000,"
	      "'witnesses':['host.tap_link','host.nftables']}");
}

UNIT_TEST(the_next_stream_begins_at_one)
{
	report_resumed(&stream, 1);
	ck_assert_int_eq(stream_succeed(&stream, next_id), 0);
	ck_assert_uint_eq(stream.sequence, 0);
	report_resumed(&stream, 2);
	ck_assert_int_eq(stream_succeed(&stream, id), 0);
	report_resumed(&stream, 3);
	ck_assert_uint_eq(stream.sequence, 1);
	ck_assert_uint_eq(counts[EVENT_AGENT_RESUMED], 3);
	LINES(&lines, "guest.v1.agent_resumed {'silentMs':1}",
	      "guest.v1.agent_resumed {'silentMs':2}", "guest.v1.agent_resumed {'silentMs':3}");
}

static void refuse(struct limited *l, const char *source, uint64_t now_ns)
{
	const struct wire_refusal refusal = {.error = WIRE_UNKNOWN_SOURCE,
					     .source = wire_text(source)};

	limited_refusal(l, &stream, &refusal, now_ns);
}

UNIT_TEST(a_flood_of_refusals_is_one_report_a_second)
{
	const struct wire_refusal version = {.error = WIRE_UNSUPPORTED_VERSION,
					     .content_version = 259};
	struct limited l = {0};

	ck_assert_uint_eq(limited_due(&l), 0);
	refuse(&l, "first", SECOND);
	ck_assert_uint_eq(limited_due(&l), 0);
	limited_refusal(&l, &stream, &version, SECOND + 5);
	limited_refusal(&l, &stream, &version, SECOND + 6);
	ck_assert_uint_eq(limited_due(&l), 2 * SECOND + 5);
	/* Of two kinds the earlier is due first. */
	refuse(&l, "second", SECOND + 7);
	refuse(&l, "the last", SECOND + 8);
	ck_assert_uint_eq(limited_due(&l), 2 * SECOND);
	limited_flush(&l, &stream, 2 * SECOND - 1, false);
	LINES(&lines, "guest.v1.unknown_source {'count':1,'source':'first'}",
	      "guest.v1.version_rejected {'contentVersion':259,'count':1}");
	limited_flush(&l, &stream, 2 * SECOND, false);
	LINES(&lines, "guest.v1.unknown_source {'count':2,'source':'the last'}");
	limited_flush(&l, &stream, 2 * SECOND, true);
	limited_flush(&l, &stream, 9 * SECOND, true);
	LINES(&lines, "guest.v1.version_rejected {'contentVersion':259,'count':1}");
	ck_assert_uint_eq(limited_due(&l), 0);
}

UNIT_TEST(contested_channels_say_by_whom)
{
	const struct ucred own = {.pid = 1, .uid = 2, .gid = 3};
	const struct ucred other = {.pid = 4, .uid = 5, .gid = 6};
	struct limited l = {0};

#define OWN   "'peerGid':3,'peerPid':1,'peerUid':2,"
#define OTHER "'peerGid':6,'peerPid':4,'peerUid':5,"
	limited_contest(&l, &stream, LIMITED_PEER, &other, SECOND);
	limited_contest(&l, &stream, LIMITED_SECOND_CONNECTION, &own, SECOND);
	limited_count(&l, &stream, LIMITED_VMM_COUNTS, 4, SECOND);
	LINES(&lines, "guest.v1.channel_contested {'count':1," OTHER "'reason':'peer_credentials'}",
	      "guest.v1.channel_contested {'count':1," OWN "'reason':'second_connection'}",
	      "guest.v1.channel_contested {'count':4,'reason':'vmm_counts_more'}");
	/* A late report names its own peer, although another one has done the other thing since. */
	limited_contest(&l, &stream, LIMITED_PEER, &other, SECOND + 1);
	limited_contest(&l, &stream, LIMITED_SECOND_CONNECTION, &other, SECOND + 2);
	limited_contest(&l, &stream, LIMITED_SECOND_CONNECTION, &own, SECOND + 3);
	limited_flush(&l, &stream, 2 * SECOND, false);
	LINES(&lines, "guest.v1.channel_contested {'count':2," OWN "'reason':'second_connection'}",
	      "guest.v1.channel_contested {'count':1," OTHER "'reason':'peer_credentials'}");
}

UNIT_SUITE(.setup = setup, .teardown = teardown);
