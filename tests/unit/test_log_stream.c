/* SPDX-License-Identifier: MIT */
/*
 * How a process begins its log: it goes on, or a new one begins and says why. And the records of
 * the log's own stream.
 */
#include "host-receiver/pipeline/log_stream.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "host-receiver/evidence/own_mark.h"
#include "tests/unit/evidence_lines.h"
#include "tests/unit/sign_client.h"

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
#define KEY_B "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n"

static struct evidence_lines lines;
static struct log_stream *stream;

/* ---- the decision, with a real log and a real signer ---- */

static char dir[64], key_file[64], saved[64];
static struct sign_client *client;
static struct signer *signer;
static struct evidence_log *evidence;
static struct log_start start;
static char why[EVIDENCE_WHY_MAX];
static bool copies; /* live() copies the log after its first group */

static void put_key(const char *text)
{
	FILE *f = fopen(key_file, "we");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fchmod(fileno(f), 0600), 0);
	fputs(text, f);
	fclose(f);
}

static _printf_(1, 2) void shell(const char *format, ...)
{
	char command[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	ck_assert_msg(system(command) == 0, "%s", command);
}

static void begin_log(void)
{
	strcpy(dir, "/tmp/cellos-start-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(key_file, sizeof(key_file), "%s.key", dir);
	snprintf(saved, sizeof(saved), "%s.saved", dir);
	put_key(KEY_A);
	client = unit_sign_client();
}

static void end_log(void)
{
	sign_client_free(client);
	shell("rm -r %s*", dir);
}

static int decide(const struct signing_options *signing, enum evidence_sync sync, bool planned)
{
	const struct evidence_limits limits = {.rotate_size = EVIDENCE_ROTATE_SIZE_DEFAULT,
					       .sync = sync};
	static struct recover_point points[RECOVER_POINTS];

	ck_assert_msg(signer_open(client, signing, &signer, why) == 0, "%s", why);
	ck_assert_int_eq(log_start_points(signer, points), 0);
	ck_assert_msg(evidence_log_open(dir, &limits, UINT64_MAX, points, &evidence, why) == 0,
		      "%s", why);
	return log_start_decide(evidence, signer, "p", sync, points, planned, &start, why);
}

static void decide_key(const char *kid, enum evidence_sync sync, bool planned)
{
	const struct signing_options signing = {
		.algorithm = "ed25519-log", .kid = kid, .key_file = key_file};

	ck_assert_msg(decide(&signing, sync, planned) == 0, "%s", why);
}

/* The process lives: `opened` or `resumed`, so many groups, and at an orderly end `closed`. */
static void live(unsigned groups, bool orderly)
{
	struct log_stream_options options = {.log = evidence, .hostname = "h", .boot_id = "b"};

	lines = (struct evidence_lines){.fd = -1};
	evidence_lines_open(&lines, signer, evidence_log_sink(evidence), NULL);
	options.pipeline = lines.pipeline;
	stream = log_stream_new(&options, &start);
	evidence_lines_settle(&lines);
	if (copies)
		shell("cp -r %s %s", dir, saved);
	copies = false;
	for (unsigned i = 0; i < groups; i++) {
		log_stream_cell_served(stream, "c");
		evidence_lines_settle(&lines);
		log_stream_progress(stream);
	}
	if (orderly)
		log_stream_close(stream, 0);
	evidence_lines_settle(&lines);
	evidence_lines_end(&lines);
	log_stream_free(stream);
}

static void decided(enum log_reason reason, bool alarm)
{
	ck_assert_str_eq(log_reason_name(start.reason), log_reason_name(reason));
	ck_assert(start.alarm == alarm);
	ck_assert((start.why != NULL) == (reason == LOG_DAMAGED));
}

/* A first process that ended in order; its log has `opened`, one record and `closed`. */
static struct log_start first_run(void)
{
	struct log_start first;

	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_NEW, false);
	first = start;
	ck_assert(strncmp(first.origin, "p/", 2) == 0);
	ck_assert_str_eq(first.previous_origin, "");
	live(1, true);
	return first;
}

static void follows(const struct log_start *first, uint64_t size)
{
	ck_assert_str_eq(start.previous_origin, first->origin);
	ck_assert_uint_eq(start.previous_size, size);
	ck_assert_str_ne(start.origin, first->origin);
	ck_assert_uint_eq(start.sequence, 0);
}

UNIT_TEST(a_log_goes_on_where_it_ended)
{
	struct log_start first;

	begin_log();
	first = first_run();
	for (uint64_t size = 3; size < 9; size += 2) {
		decide_key("k1", EVIDENCE_SYNC_BATCH, false);
		decided(LOG_RESUMED, false);
		ck_assert_str_eq(start.origin, first.origin);
		ck_assert_mem_eq(start.uuid, first.uuid, UUID_SIZE);
		ck_assert_uint_eq(start.sequence, size);
		ck_assert_uint_eq(start.size, size);
		/* Only the first one ended with `closed`. */
		ck_assert(start.unclean == (size > 3));
		ck_assert_uint_eq(start.cut_bytes, 0);
		ck_assert(!start.abandoned && !start.key_changed);
		live(1, false);
	}
	end_log();
}

/*
 * The mark of the log's own records must not be ahead of them: after a crash the next process would
 * number its records from there, with a hole before them.
 */
UNIT_TEST(the_mark_waits_until_the_records_are_durable)
{
	struct log_stream_options options = {.hostname = "h", .boot_id = "b"};
	struct own_mark mark;
	uint64_t end;
	int folder;

	begin_log();
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(folder, 0);
	lines = (struct evidence_lines){.fd = -1};
	evidence_lines_open(&lines, signer, evidence_log_sink(evidence), NULL);
	options.log = evidence;
	options.pipeline = lines.pipeline;
	stream = log_stream_new(&options, &start);
	evidence_lines_settle(&lines);
	/* The second record is not committed yet; the commits that follow write no mark of it. */
	log_stream_cell_served(stream, "c");
	log_stream_progress(stream);
	evidence_lines_settle(&lines);
	ck_assert(!own_mark_read(folder, &mark));
	/* Now all are durable, and the next commit writes the mark. */
	log_stream_progress(stream);
	end = evidence_log_end(evidence).offset;
	log_stream_cell_served(stream, "d");
	evidence_lines_settle(&lines);
	ck_assert(own_mark_read(folder, &mark));
	ck_assert_str_eq(mark.origin, start.origin);
	ck_assert_uint_eq(mark.sequence, 2);
	ck_assert_uint_eq(mark.offset, end);
	evidence_lines_end(&lines);
	log_stream_free(stream);
	close(folder);
	end_log();
}

/* The log as it was before a second process signed two more groups. */
UNIT_TEST(a_log_without_two_signatures_is_an_alarm)
{
	struct log_start first;

	begin_log();
	first = first_run();
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	copies = true;
	live(2, false);
	shell("rm -r %s && mv %s %s", dir, saved, dir);
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_SHORTER_THAN_SIGNED, true);
	follows(&first, 6);
	live(0, true);
	end_log();
}

UNIT_TEST(a_log_that_is_gone_is_an_alarm)
{
	struct log_start first;

	begin_log();
	first = first_run();
	shell("rm %s/evidence-*", dir);
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_SHORTER_THAN_SIGNED, true);
	follows(&first, 3);
	live(0, true);
	end_log();
	/* Without any sync the power may have taken it: no alarm. */
	begin_log();
	first = first_run();
	shell("rm %s/evidence-*", dir);
	decide_key("k1", EVIDENCE_SYNC_OFF, false);
	decided(LOG_UNSYNCED, false);
	follows(&first, 3);
	live(0, true);
	end_log();
}

UNIT_TEST(a_signer_without_its_state_is_an_alarm)
{
	struct log_start first;

	begin_log();
	first = first_run();
	sign_client_free(client);
	client = unit_sign_client();
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_STATE_LOST, true);
	follows(&first, 3);
	live(0, true);
	end_log();
}

UNIT_TEST(a_damaged_log_is_an_alarm)
{
	struct log_start first;

	begin_log();
	first = first_run();
	shell("sed -i 's/\"cellId\":\"c\"/\"cellId\":\"d\"/' %s/evidence-*", dir);
	decide_key("k1", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_DAMAGED, true);
	follows(&first, 3);
	live(0, true);
	end_log();
}

UNIT_TEST(an_operator_may_begin_a_new_log)
{
	const struct signing_options off = {.algorithm = "off"};
	struct log_start first;

	begin_log();
	first = first_run();
	decide_key("k1", EVIDENCE_SYNC_BATCH, true);
	decided(LOG_PLANNED, false);
	follows(&first, 3);
	first = start;
	live(0, true);
	ck_assert_int_eq(decide(&off, EVIDENCE_SYNC_BATCH, false), 0);
	decided(LOG_SIGNING_CHANGED, false);
	ck_assert_str_eq(start.origin, "");
	ck_assert_str_eq(start.previous_origin, first.origin);
	live(0, true);
	/* Without a tree it goes on by its own records. */
	ck_assert_int_eq(decide(&off, EVIDENCE_SYNC_BATCH, false), 0);
	decided(LOG_RESUMED, false);
	ck_assert_uint_eq(start.sequence, 2);
	live(0, true);
	end_log();
}

UNIT_TEST(a_kid_names_one_key)
{
	const struct signing_options same = {
		.algorithm = "ed25519-log", .kid = "k1", .key_file = key_file};
	struct evidence_sink *sink;

	begin_log();
	first_run();
	put_key(KEY_B);
	ck_assert_int_eq(decide(&same, EVIDENCE_SYNC_BATCH, false), -EKEYREJECTED);
	ck_assert_msg(strstr(why, "kid k1 had another key"), "%s", why);
	sink = evidence_log_sink(evidence);
	sink->ops->close(sink);
	signer_free(signer);
	decide_key("k2", EVIDENCE_SYNC_BATCH, false);
	decided(LOG_RESUMED, false);
	ck_assert(start.key_changed);
	ck_assert_str_eq(start.kid, "k2");
	ck_assert_str_eq(start.retired_kid, "k1");
	ck_assert_mem_ne(start.public_key, start.retired_key, sizeof(start.public_key));
	ck_assert_mem_eq(start.public_key, signer_public_key(signer), sizeof(start.public_key));
	live(0, true);
	end_log();
}

UNIT_TEST(an_origin_has_only_its_bytes)
{
	char prefix[LOG_PREFIX_MAX + 1], longest[LOG_PREFIX_MAX + 2];

	log_origin_prefix("", "a b", prefix);
	ck_assert_str_eq(prefix, "cellos/a_b");
	log_origin_prefix("x/y", "a b", prefix);
	ck_assert_str_eq(prefix, "x/y");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[LOG_PREFIX_MAX + 1] = '\0';
	ck_assert(!log_origin_prefix_valid(longest));
	longest[LOG_PREFIX_MAX] = '\0';
	ck_assert(log_origin_prefix_valid(longest));
	ck_assert(!log_origin_prefix_valid("") && !log_origin_prefix_valid("a b"));
}

/* ---- the records, as the evidence shows them ---- */

static void begin_stream(const struct log_start *from)
{
	struct log_stream_options options = {.hostname = "h1", .boot_id = "b1"};

	evidence_lines_begin(&lines, NULL);
	options.pipeline = lines.pipeline;
	stream = log_stream_new(&options, from);
	ck_assert_ptr_nonnull(stream);
}

static void end_stream(void)
{
	evidence_lines_end(&lines);
	log_stream_free(stream);
}

#define OPENED(rest)                                                                               \
	"log.v1.opened {'hostBootId':'b1','hostname':'h1'," rest                                   \
	",'receiverVersion':'" CELLOS_VERSION "'"

UNIT_TEST(a_new_log_says_what_was_before)
{
	const struct log_start alone = {.reason = LOG_NEW};
	struct log_start next = {.reason = LOG_PLANNED,
				 .origin = "o2",
				 .previous_origin = "o1",
				 .previous_size = 9,
				 .plan = "moved"};

	begin_stream(&alone);
	LINES(&lines, OPENED("'origin':null,'previousOrigin':null,'previousSize':null,"
			     "'reason':'new'") "}");
	ck_assert_str_eq(log_stream_origin(stream), "");
	end_stream();
	begin_stream(&next);
	LINES(&lines, OPENED("'origin':'o2','previousOrigin':'o1','previousSize':9,"
			     "'reason':'planned'") ",'why':'moved'}");
	ck_assert_str_eq(log_stream_origin(stream), "o2");
	end_stream();
	/* It was begun, and its process died before the first entry. */
	next.reason = LOG_RESUMED;
	begin_stream(&next);
	LINES(&lines, OPENED("'origin':'o2','previousOrigin':'o1','previousSize':9,"
			     "'reason':'new'") "}");
	end_stream();
}

UNIT_TEST(a_log_that_goes_on_says_what_was_cut)
{
	struct log_start from = {.reason = LOG_RESUMED,
				 .sequence = 4,
				 .unclean = true,
				 .cut_bytes = 5,
				 .cut_lines = 6,
				 .abandoned = true,
				 .abandoned_size = 7,
				 .key_changed = true,
				 .kid = "k2",
				 .retired_kid = "k1",
				 .public_key = {1}};

	begin_stream(&from);
#define ZEROS "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	LINES(&lines,
	      "log.v1.resumed {'abandoned':{'root':'" ZEROS "AA=','size':7},'cutBytes':5,"
	      "'cutLines':6,'hostBootId':'b1','lastIndex':null,'unclean':true}",
	      "log.v1.key_added {'kid':'k2','publicKey':'AQ" ZEROS "'}",
	      "log.v1.key_retired {'kid':'k1','publicKey':'AA" ZEROS "'}");
	end_stream();
	from = (struct log_start){.reason = LOG_RESUMED, .sequence = 4, .size = 8};
	begin_stream(&from);
	LINES(&lines, "log.v1.resumed {'abandoned':null,'cutBytes':0,'cutLines':0,"
		      "'hostBootId':'b1','lastIndex':7,'unclean':false}");
	end_stream();
}

UNIT_TEST(cells_and_alarms_are_records_until_the_end)
{
	const struct log_start alone = {.reason = LOG_NEW};

	begin_stream(&alone);
	log_stream_cell_unserved(stream, "c1", "no socket");
	log_stream_cell_served(stream, "c1");
	log_stream_acknowledged(stream, "log_shorter", 11);
	log_stream_progress(stream); /* without a log there are no notices */
	ck_assert(!log_stream_closed(stream));
	log_stream_close(stream, 12);
	log_stream_close(stream, 13);
	ck_assert(log_stream_closed(stream));
	LINES(&lines,
	      OPENED("'origin':null,'previousOrigin':null,'previousSize':null,'reason':'new'") "}",
	      "log.v1.cell_unserved {'why':'no socket'}", "log.v1.cell_served {}",
	      "log.v1.acknowledged {'byUid':11,'what':'log_shorter'}",
	      "log.v1.closed {'cells':12}");
	end_stream();
}
