/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/stream_reader.h"

#include "common/util.h"
#include "host-receiver/forward/connection.h"

#define NEXT_MS	   10000 /* after this time without a message the consumer is created again */
#define NEXT_TRIES 6u

struct stream_reader {
	const struct forward_settings *settings;
	const struct stream_reading *reading;
	jsCtx *js;
	natsSubscription *sub;
	uint64_t at;   /* sequence of the last message */
	uint64_t last; /* of the last message to read */
};

static int last_sequence(struct stream_reader *r, char why[PUBLISHER_WHY_MAX])
{
	jsStreamInfo *info = NULL;
	jsErrCode code = 0;
	natsStatus st = js_GetStreamInfo(&info, r->js, r->settings->stream, NULL, &code);

	if (st != NATS_OK) {
		snprintf(why, PUBLISHER_WHY_MAX, "stream %.64s: %s", r->settings->stream,
			 natsStatus_GetText(st));
		return -ENOENT;
	}
	r->last = info->State.Msgs > 0 ? info->State.LastSeq : 0;
	if (r->reading->follow) {
		r->at = r->last;
		r->last = UINT64_MAX;
	}
	jsStreamInfo_Destroy(info);
	return 0;
}

/* Subscribe from the message after the last one. */
static int subscribe(struct stream_reader *r, char why[PUBLISHER_WHY_MAX])
{
	jsSubOptions ordered;
	natsStatus st;

	natsSubscription_Destroy(take_ptr(r->sub));
	jsSubOptions_Init(&ordered);
	ordered.Stream = r->settings->stream;
	ordered.Ordered = true;
	if (r->at > 0) {
		ordered.Config.DeliverPolicy = js_DeliverByStartSequence;
		ordered.Config.OptStartSeq = r->at + 1;
	}
	st = js_SubscribeSync(&r->sub, r->js, ">", NULL, &ordered, NULL);
	if (st == NATS_OK)
		return 0;
	snprintf(why, PUBLISHER_WHY_MAX, "cannot read stream %.64s: %s", r->settings->stream,
		 natsStatus_GetText(st));
	return -EIO;
}

/* The stream's sequence of a message; 0: it has none. */
static uint64_t sequence_of(natsMsg *msg)
{
	jsMsgMetaData *meta = NULL;
	uint64_t sequence = 0;

	if (natsMsg_GetMetaData(&meta, msg) == NATS_OK)
		sequence = meta->Sequence.Stream;
	jsMsgMetaData_Destroy(meta);
	return sequence;
}

/* Returns 1 and a message, 0: none came for a while, or a negative errno. */
static int next(struct stream_reader *r, natsMsg **ret, char why[PUBLISHER_WHY_MAX])
{
	natsStatus st = natsSubscription_NextMsg(ret, r->sub, NEXT_MS);

	if (st == NATS_OK)
		return 1;
	if (st == NATS_TIMEOUT)
		return 0;
	snprintf(why, PUBLISHER_WHY_MAX, "after message %" PRIu64 ": %s", r->at,
		 natsStatus_GetText(st));
	return -EIO;
}

static int take_next(struct stream_reader *r, unsigned *tries, char why[PUBLISHER_WHY_MAX])
{
	natsMsg *msg = NULL;
	int result = next(r, &msg, why);

	if (result == 0 && r->reading->follow)
		return 0;
	if (result == 0 && ++*tries == NEXT_TRIES) {
		snprintf(why, PUBLISHER_WHY_MAX, "no message after %" PRIu64 " of %" PRIu64, r->at,
			 r->last);
		return -ETIMEDOUT;
	}
	if (result <= 0)
		return result == 0 ? subscribe(r, why) : result;
	*tries = 0;
	r->at = MAX(r->at, sequence_of(msg));
	result = r->reading->take(r->reading->ctx, msg, why);
	natsMsg_Destroy(msg);
	return result;
}

static int read_all(struct stream_reader *r, char why[PUBLISHER_WHY_MAX])
{
	unsigned tries = 0;
	int result = last_sequence(r, why);

	if (result == 0)
		result = subscribe(r, why);
	while (result == 0 && r->at < r->last)
		result = take_next(r, &tries, why);
	natsSubscription_Destroy(r->sub);
	return result;
}

int stream_read(const struct forward_settings *settings, const struct stream_reading *reading,
		char why[PUBLISHER_WHY_MAX])
{
	struct stream_reader r = {.settings = settings, .reading = reading};
	natsConnection *nc = NULL;
	int result = -EIO;

	if (connection_open(settings, settings->url, NULL, &nc, why) != FORWARD_OK)
		return -ECONNREFUSED;
	if (natsConnection_JetStream(&r.js, nc, NULL) == NATS_OK)
		result = read_all(&r, why);
	else
		snprintf(why, PUBLISHER_WHY_MAX, "no memory");
	jsCtx_Destroy(r.js);
	natsConnection_Destroy(nc);
	return result;
}
