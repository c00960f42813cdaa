/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/stream.h"

#include <jansson.h>

#include "common/util.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/subject.h"

#define WAIT_MS 10000

/* An account without the permission gets no answer; then the version is unknown. */
#define VERSION_SUBJECT "$SYS.REQ.USER.INFO"
#define VERSION_WAIT_MS 2000

static const struct {
	int code;
	enum forward_error error;
} codes[] = {
	{JSAccountResourcesExceededErr, FORWARD_FULL},
	{JSInsufficientResourcesErr, FORWARD_FULL},
	{JSMemoryResourcesExceededErr, FORWARD_FULL},
	{JSStorageResourcesExceededErr, FORWARD_FULL},
	{JSStreamStoreFailedErr, FORWARD_FULL},
	{JSNotEnabledErr, FORWARD_NO_JETSTREAM},
	{JSNotEnabledForAccountErr, FORWARD_NO_JETSTREAM},
	{JSStreamMessageExceedsMaximumErr, FORWARD_TOO_LARGE},
	{JSStreamNotFoundErr, FORWARD_NO_STREAM},
	{JSStreamNotMatchErr, FORWARD_WRONG_STREAM},
	{JSStreamSealedErr, FORWARD_STREAM},
};

enum forward_error stream_error(int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].code == code)
			return codes[i].error;
	return FORWARD_REFUSED;
}

static enum forward_error fail(natsStatus st, jsErrCode code, const char *what,
			       char why[PUBLISHER_WHY_MAX])
{
	const char *text = nats_GetLastError(NULL);

	snprintf(why, PUBLISHER_WHY_MAX, "%s: %s%s%.200s", what, natsStatus_GetText(st),
		 text && *text ? ": " : "", text ? text : "");
	if (st == NATS_NO_RESPONDERS)
		return FORWARD_NO_JETSTREAM;
	if (st == NATS_TIMEOUT)
		return FORWARD_TIMEOUT;
	return code ? stream_error(code) : FORWARD_REFUSED;
}

/* Settings under which the server forgets evidence that it acknowledged, or never keeps it. */
static const char *fatal_setting(const jsStreamConfig *c)
{
	if (c->Storage != js_FileStorage)
		return "its storage is memory: a restart of the server loses it; make it file";
	if (c->Retention != js_LimitsPolicy)
		return "its retention is not limits: readers make it delete evidence";
	if (c->NoAck)
		return "it gives no acknowledgements (no_ack)";
	if (c->Sealed)
		return "it is sealed and takes nothing";
	return NULL;
}

static void add(char warnings[PUBLISHER_WHY_MAX], const char *text)
{
	const size_t len = strlen(warnings);

	snprintf(warnings + len, PUBLISHER_WHY_MAX - len, "%s%s", len ? "; " : "", text);
}

bool stream_version_at_least(const char *version, unsigned major, unsigned minor, unsigned patch)
{
	unsigned have[3] = {0};

	if (sscanf(version, "%u.%u.%u", &have[0], &have[1], &have[2]) < 2)
		return false;
	if (have[0] != major)
		return have[0] > major;
	if (have[1] != minor)
		return have[1] > minor;
	return have[2] >= patch;
}

/*
 * Returns true if the server gave its version. "": the server is older than 2.10, which cannot be
 * asked.
 */
static bool ask_version(natsConnection *nc, char ret[static 32])
{
	natsMsg *msg = NULL;
	natsStatus st =
		natsConnection_RequestString(&msg, nc, VERSION_SUBJECT, "", VERSION_WAIT_MS);
	json_t *root;
	const char *text;

	ret[0] = '\0';
	if (st != NATS_OK)
		return st == NATS_NO_RESPONDERS;
	root = json_loadb(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0, NULL);
	text = json_string_value(json_object_get(json_object_get(root, "server"), "ver"));
	if (text)
		snprintf(ret, 32, "%s", text);
	json_decref(root);
	natsMsg_Destroy(msg);
	return text != NULL;
}

/*
 * When the stream is full, a server before 2.10.5 may acknowledge a message that it does not store
 * (nats-server issue 4771).
 */
static void warn_of_version(natsConnection *nc, char warnings[PUBLISHER_WHY_MAX])
{
	char version[32], text[160];

	if (!ask_version(nc, version) || stream_version_at_least(version, 2, 10, 5))
		return;
	snprintf(text, sizeof(text),
		 "discard is new and the server is %.30s: before 2.10.5 it may acknowledge "
		 "messages that it does not store",
		 *version ? version : "older than 2.10");
	add(warnings, text);
}

static void warn_of(natsConnection *nc, const jsStreamConfig *c, char warnings[PUBLISHER_WHY_MAX])
{
	const bool limited = c->MaxMsgs > 0 || c->MaxBytes > 0;

	if (c->Duplicates < STREAM_DUPLICATES_MIN_S * (int64_t)NSEC_PER_SEC)
		add(warnings, "duplicate window below 120 s: a repeat may be stored twice");
	if (limited && c->Discard != js_DiscardNew)
		add(warnings, "discard is old: a full stream deletes the oldest evidence unseen");
	if (c->MaxAge > 0)
		add(warnings, "max_age deletes evidence by time");
	if (c->MaxMsgsPerSubject > 0)
		add(warnings, "max_msgs_per_subject deletes evidence");
	if (c->MaxMsgSize > 0 && c->MaxMsgSize < (int32_t)EVIDENCE_LINE_MAX)
		add(warnings, "max_msg_size is below 64 KiB: larger entries are skipped");
	if (limited && c->Discard == js_DiscardNew)
		warn_of_version(nc, warnings);
}

static natsStatus create(jsCtx *js, const struct forward_settings *s, jsStreamInfo **info,
			 jsErrCode *code)
{
	char entries[SUBJECT_MAX];
	const char *subjects[] = {entries, SUBJECT_CHECKPOINTS ".*", SUBJECT_LOGS ".*"};
	jsStreamConfig config;

	subject_wildcard(s->subject, entries);
	jsStreamConfig_Init(&config);
	config.Name = s->stream;
	config.Description = "CellOS evidence";
	config.Subjects = subjects;
	config.SubjectsLen = ARRAY_SIZE(subjects);
	config.Storage = js_FileStorage;
	config.Retention = js_LimitsPolicy;
	config.Discard = js_DiscardNew;
	config.Duplicates = STREAM_DUPLICATES_MIN_S * (int64_t)NSEC_PER_SEC;
	return js_AddStream(info, js, &config, NULL, code);
}

/* Get the stream, or create it if the settings ask for that. */
static natsStatus get_or_create(jsCtx *js, const struct forward_settings *s, jsStreamInfo **info,
				jsErrCode *code)
{
	natsStatus st = js_GetStreamInfo(info, js, s->stream, NULL, code);

	if (st == NATS_OK || *code != JSStreamNotFoundErr || !s->create_stream)
		return st;
	*code = 0;
	return create(js, s, info, code);
}

enum forward_error stream_check(natsConnection *nc, const struct forward_settings *s,
				struct stream_facts *ret, char why[PUBLISHER_WHY_MAX])
{
	enum forward_error error = FORWARD_OK;
	jsStreamInfo *info = NULL;
	jsErrCode code = 0;
	jsCtx *js = NULL;
	jsOptions opts;
	char what[128];
	const char *fatal;
	natsStatus st;

	*ret = (struct stream_facts){0};
	jsOptions_Init(&opts);
	opts.Wait = WAIT_MS;
	st = natsConnection_JetStream(&js, nc, &opts);
	if (st == NATS_OK)
		st = get_or_create(js, s, &info, &code);
	if (st != NATS_OK) {
		snprintf(what, sizeof(what), "stream %.64s", s->stream);
		error = fail(st, code, what, why);
	} else if ((fatal = fatal_setting(info->Config))) {
		snprintf(why, PUBLISHER_WHY_MAX, "stream %.64s: %s", s->stream, fatal);
		error = FORWARD_STREAM;
	} else {
		ret->max_msg_size = (size_t)MAX(info->Config->MaxMsgSize, 0);
		warn_of(nc, info->Config, ret->warnings);
	}
	jsStreamInfo_Destroy(info);
	jsCtx_Destroy(js);
	return error;
}
