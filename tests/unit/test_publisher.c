/* SPDX-License-Identifier: MIT */
/* What counts as the acknowledgement of a message: libnats' connection is replaced, its messages
 * are real. */
#include <poll.h>

#include <nats/nats.h>

#include "common/util.h"
#include "host-receiver/forward/connection.h"
#include "host-receiver/forward/stream.h"
#include "tests/unit/unit.h"

#define STREAM "CELLOS_EVENTS"

/* ---- the server ---- */

static char reply_to[128]; /* of the last message that was sent */
static const char *answer; /* the next one; NULL: none */

enum forward_error __wrap_connection_open(const struct forward_settings *settings, const char *url,
					  const struct connection_loop *loop, natsConnection **ret,
					  char why[PUBLISHER_WHY_MAX]);
enum forward_error __wrap_connection_open(const struct forward_settings *settings _unused_,
					  const char *url _unused_,
					  const struct connection_loop *loop, natsConnection **ret,
					  char why[PUBLISHER_WHY_MAX] _unused_)
{
	void *user;

	*ret = NULL;
	if (loop)
		loop->attach(&user, loop->owner, NULL, -1);
	return FORWARD_OK;
}

enum forward_error __wrap_stream_check(natsConnection *nc, const struct forward_settings *settings,
				       struct stream_facts *ret, char why[PUBLISHER_WHY_MAX]);
enum forward_error __wrap_stream_check(natsConnection *nc _unused_,
				       const struct forward_settings *settings _unused_,
				       struct stream_facts *ret,
				       char why[PUBLISHER_WHY_MAX] _unused_)
{
	*ret = (struct stream_facts){0};
	return FORWARD_OK;
}

natsStatus __wrap_natsConnection_SubscribeSync(natsSubscription **ret, natsConnection *nc,
					       const char *subject);
natsStatus __wrap_natsConnection_SubscribeSync(natsSubscription **ret, natsConnection *nc _unused_,
					       const char *subject _unused_)
{
	*ret = NULL;
	return NATS_OK;
}

natsStatus __wrap_natsSubscription_SetPendingLimits(natsSubscription *sub, int messages, int bytes);
natsStatus __wrap_natsSubscription_SetPendingLimits(natsSubscription *sub _unused_,
						    int messages _unused_, int bytes _unused_)
{
	return NATS_OK;
}

natsStatus __wrap_natsConnection_PublishMsg(natsConnection *nc, natsMsg *msg);
natsStatus __wrap_natsConnection_PublishMsg(natsConnection *nc _unused_, natsMsg *msg)
{
	snprintf(reply_to, sizeof(reply_to), "%s", natsMsg_GetReply(msg));
	return NATS_OK;
}

void __wrap_natsConnection_ProcessReadEvent(natsConnection *nc);
void __wrap_natsConnection_ProcessReadEvent(natsConnection *nc _unused_)
{
}

natsStatus __wrap_natsSubscription_NextMsg(natsMsg **ret, natsSubscription *sub, int64_t timeout);
natsStatus __wrap_natsSubscription_NextMsg(natsMsg **ret, natsSubscription *sub _unused_,
					   int64_t timeout _unused_)
{
	const char *data = take_ptr(answer);

	return data ? natsMsg_Create(ret, reply_to, NULL, data, (int)strlen(data)) : NATS_TIMEOUT;
}

/* ---- answers ---- */

static struct publisher *publisher;

static void begin(void)
{
	static const struct forward_settings settings = {.stream = STREAM, .max_pending = 1};
	char why[PUBLISHER_WHY_MAX], warnings[PUBLISHER_WHY_MAX];

	ck_assert_int_eq(nats_Open(-1), NATS_OK);
	ck_assert_int_eq(publisher_open(&settings, "", &publisher, why, warnings), FORWARD_OK);
}

static void end(void)
{
	publisher_close(publisher);
	nats_CloseAndWait(0);
}

static void send_one(void)
{
	static const struct publisher_message message = {
		.subject = "s", .id = "i", .origin = "o", .data = "{}", .len = 2};
	char why[PUBLISHER_WHY_MAX];

	ck_assert_int_eq(publisher_send(publisher, &message, 1, why), FORWARD_OK);
	ck_assert_uint_eq(publisher_pending(publisher), 1);
}

/* The text of the next message's answer, and what it means. */
static struct publisher_answer answer_of(const char *text)
{
	struct publisher_answer got;

	send_one();
	answer = text;
	publisher_turn(publisher, POLLIN);
	ck_assert_msg(publisher_take_answer(publisher, &got), "%s", text);
	ck_assert_uint_eq(publisher_pending(publisher), 0);
	return got;
}

UNIT_TEST(only_the_streams_own_answer_acknowledges)
{
	/* In both forms: as every nats-server writes it, and as any JSON. */
	static const char *const good[] = {
		"{\"stream\":\"" STREAM "\", \"seq\":1}",
		"{\"stream\":\"" STREAM "\", \"seq\":18446744073709551615}",
		"{\"seq\":1,\"stream\":\"" STREAM "\"}",
		"{\"stream\":\"" STREAM "\", \"domain\":\"hub\", \"seq\":1}",
	};
	/* Of a name of the same length, a shorter and a longer one; without a name; no JSON. */
	static const char *const bad[] = {
		"{\"stream\":\"CELLOS_OTHERS\", \"seq\":1}",
		"{\"stream\":\"cellos_events\", \"seq\":1}",
		"{\"stream\":\"CELLOS_EVENT\", \"seq\":1}",
		"{\"stream\":\"" STREAM "S\", \"seq\":1}",
		"{\"seq\":1,\"stream\":\"CELLOS_OTHERS\"}",
		"{\"seq\":1}",
		"{\"stream\":\"" STREAM "\", \"seq\":}",
		"{\"stream\":\"" STREAM "\", \"seq\":1",
		"+OK",
		"",
	};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		const struct publisher_answer got = answer_of(good[i]);

		ck_assert_msg(got.error == FORWARD_OK && !got.duplicate, "%s", good[i]);
		ck_assert_str_eq(got.why, "");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(answer_of(bad[i]).error == FORWARD_WRONG_STREAM, "%s", bad[i]);
	end();
}

UNIT_TEST(repeats_and_refusals_are_told_apart)
{
	struct publisher_answer got;

	begin();
	got = answer_of("{\"stream\":\"" STREAM "\", \"seq\":7,\"duplicate\": true}");
	ck_assert_int_eq(got.error, FORWARD_OK);
	ck_assert(got.duplicate);
	got = answer_of("{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"maximum "
			"messages exceeded\"},\"stream\":\"" STREAM "\",\"seq\":0}");
	ck_assert_int_eq(got.error, stream_error(10077));
	ck_assert_int_ne(got.error, FORWARD_OK);
	ck_assert_int_eq(got.code, 10077);
	ck_assert_str_eq(got.why, "the server says: maximum messages exceeded");
	/* The next one is not a repeat. */
	got = answer_of("{\"stream\":\"" STREAM "\", \"seq\":8}");
	ck_assert(got.error == FORWARD_OK && !got.duplicate && got.code == 0);
	end();
}

/* The number of a message is the last token of the subject that its answer comes to. */
UNIT_TEST(an_answer_to_another_message_is_not_taken)
{
	static const char good[] = "{\"stream\":\"" STREAM "\", \"seq\":1}";
	struct publisher_answer got;
	char subject[sizeof(reply_to)];

	begin();
	answer_of(good);
	strcpy(subject, reply_to);
	send_one();
	ck_assert_str_ne(reply_to, subject);
	strcpy(reply_to, subject);
	answer = good;
	publisher_turn(publisher, POLLIN);
	ck_assert(!publisher_take_answer(publisher, &got));
	ck_assert_uint_eq(publisher_pending(publisher), 1);
	end();
}
