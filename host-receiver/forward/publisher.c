/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/publisher.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/eventfd.h>

#include <jansson.h>
#include <nats/nats.h>

#include "common/util.h"
#include "host-receiver/forward/connection.h"
#include "host-receiver/forward/stream.h"

struct slot {
	bool answered;
	uint64_t sent_ns;
	size_t bytes;
	bool duplicate;
	enum forward_error error;
	int code;
	char *why; /* owned; NULL: nothing to say */
};

struct publisher {
	natsConnection *nc;
	natsSubscription *answers;
	char *stream; /* owned */
	char inbox[64];
	unsigned max_pending;
	size_t bytes; /* sent and not taken */
	int event_fd;

	pthread_mutex_t lock; /* of all below: libnats' threads write it too */
	struct slot *slots;   /* max_pending; message n has slot n % max_pending */
	uint64_t first, next; /* messages whose answer was not taken: [first, next) */
	bool ended;
	char ended_why[PUBLISHER_WHY_MAX];
};

/* ---- answers, on a thread of libnats ---- */

static void wake(struct publisher *p)
{
	const uint64_t one = 1;

	/* It cannot fail: the counter is far from its end. */
	(void)!write(p->event_fd, &one, sizeof(one));
}

static _printf_(2, 3) void put_why(struct slot *slot, const char *fmt, ...)
{
	char text[PUBLISHER_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	free(slot->why);
	slot->why = strdup(text);
}

/* The usual answer, as every nats-server writes it: {"stream":"S", "seq":1}. */
static bool is_plain_answer(const struct publisher *p, natsMsg *msg)
{
	static const char before[] = "{\"stream\":\"", after[] = "\", \"seq\":";
	const size_t name = strlen(p->stream), begin = sizeof(before) - 1, end = sizeof(after) - 1;
	const char *data = natsMsg_GetData(msg);
	const size_t len = (size_t)natsMsg_GetDataLength(msg);
	size_t digits = 0, left;

	if (len < begin + name + end + 2 || memcmp(data, before, begin) != 0 ||
	    memcmp(data + begin, p->stream, name) != 0 ||
	    memcmp(data + begin + name, after, end) != 0)
		return false;
	data += begin + name + end;
	left = len - begin - name - end;
	while (digits < left && data[digits] >= '0' && data[digits] <= '9')
		digits++;
	return digits > 0 && digits + 1 == left && data[digits] == '}';
}

/* {"stream":"S","seq":1,"duplicate":true} or {"error":{"code":..,"err_code":..,"description":..}}
 */
static void read_answer(const struct publisher *p, natsMsg *msg, struct slot *slot)
{
	json_t *root =
		json_loadb(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0, NULL);
	json_t *error = json_object_get(root, "error");
	const char *stream = json_string_value(json_object_get(root, "stream"));

	if (natsMsg_IsNoResponders(msg)) {
		slot->error = FORWARD_NO_STREAM;
		put_why(slot, "no stream takes this subject (stream %.64s is expected to)",
			p->stream);
	} else if (error) {
		const char *text = json_string_value(json_object_get(error, "description"));

		slot->code = (int)json_integer_value(json_object_get(error, "err_code"));
		slot->error = stream_error(slot->code);
		put_why(slot, "the server says: %.200s%s", text ? text : "an error without text",
			"");
	} else if (!stream || strcmp(stream, p->stream) != 0) {
		slot->error = FORWARD_WRONG_STREAM;
		put_why(slot, "stream \"%.64s\" answered instead of \"%.64s\"",
			stream ? stream : "", p->stream);
	} else {
		slot->duplicate = json_is_true(json_object_get(root, "duplicate"));
	}
	json_decref(root);
}

static void on_answer(natsConnection *nc _unused_, natsSubscription *sub _unused_, natsMsg *msg,
		      void *closure)
{
	struct publisher *p = closure;
	const char *token = strrchr(natsMsg_GetSubject(msg), '.');
	struct slot answer = {.answered = true}, *slot;
	uint64_t n = UINT64_MAX;

	if (!is_plain_answer(p, msg))
		read_answer(p, msg, &answer);
	if (token)
		parse_u64(token + 1, 0, UINT64_MAX, &n);
	natsMsg_Destroy(msg);
	pthread_mutex_lock(&p->lock);
	if (n >= p->first && n < p->next && !p->slots[n % p->max_pending].answered) {
		slot = &p->slots[n % p->max_pending];
		answer.sent_ns = slot->sent_ns;
		answer.bytes = slot->bytes;
		*slot = answer;
		answer.why = NULL;
		if (n == p->first)
			wake(p);
	}
	pthread_mutex_unlock(&p->lock);
	free(answer.why);
}

static void on_end(natsConnection *nc, void *closure)
{
	struct publisher *p = closure;
	const char *text = NULL;

	natsConnection_GetLastError(nc, &text);
	pthread_mutex_lock(&p->lock);
	p->ended = true;
	snprintf(p->ended_why, sizeof(p->ended_why), "the connection ended%s%.200s",
		 text && *text ? ": " : "", text && *text ? text : "");
	wake(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- connecting ---- */

static enum forward_error subscribe(struct publisher *p, char why[PUBLISHER_WHY_MAX])
{
	char subject[sizeof(p->inbox) + 2];
	natsInbox *inbox = NULL;
	natsStatus st = natsInbox_Create(&inbox);

	if (st == NATS_OK) {
		snprintf(p->inbox, sizeof(p->inbox), "%s", inbox);
		snprintf(subject, sizeof(subject), "%s.*", p->inbox);
		st = natsConnection_Subscribe(&p->answers, p->nc, subject, on_answer, p);
	}
	if (st == NATS_OK)
		st = natsSubscription_SetPendingLimits(p->answers, -1, -1);
	natsInbox_Destroy(inbox);
	if (st == NATS_OK)
		return FORWARD_OK;
	snprintf(why, PUBLISHER_WHY_MAX, "%s", natsStatus_GetText(st));
	return connection_error(st);
}

static struct publisher *publisher_new(const struct forward_settings *s)
{
	struct publisher *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	pthread_mutex_init(&p->lock, NULL);
	p->max_pending = s->max_pending;
	p->stream = strdup(s->stream);
	p->slots = calloc(p->max_pending, sizeof(*p->slots));
	p->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!p->stream || !p->slots || p->event_fd < 0) {
		publisher_close(p);
		return NULL;
	}
	return p;
}

enum forward_error publisher_open(const struct forward_settings *settings, const char *url,
				  const char *origin, struct publisher **ret,
				  char why[PUBLISHER_WHY_MAX], char warnings[PUBLISHER_WHY_MAX])
{
	struct publisher *p = publisher_new(settings);
	enum forward_error error;

	if (!p) {
		snprintf(why, PUBLISHER_WHY_MAX, "no memory or no file descriptor is left");
		return FORWARD_CONNECT;
	}
	error = connection_open(settings, url, on_end, p, &p->nc, why);
	if (error == FORWARD_OK)
		error = stream_check(p->nc, settings, origin, why, warnings);
	if (error == FORWARD_OK)
		error = subscribe(p, why);
	if (error != FORWARD_OK) {
		publisher_close(p);
		return error;
	}
	*ret = p;
	return FORWARD_OK;
}

/* Waits until no callback runs any more: they use this memory. */
static void close_connection(struct publisher *p)
{
	natsConnection_Close(p->nc);
	for (;;) {
		bool ended;

		pthread_mutex_lock(&p->lock);
		ended = p->ended;
		pthread_mutex_unlock(&p->lock);
		if (ended)
			break;
		poll(NULL, 0, 1);
	}
	natsSubscription_Destroy(p->answers);
	natsConnection_Destroy(p->nc);
}

void publisher_close(struct publisher *p)
{
	if (!p)
		return;
	if (p->nc)
		close_connection(p);
	for (unsigned i = 0; p->slots && i < p->max_pending; i++)
		free(p->slots[i].why);
	free(p->slots);
	free(p->stream);
	close_fd(p->event_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* ---- sending ---- */

int publisher_fd(const struct publisher *p)
{
	return p->event_fd;
}

size_t publisher_max_payload(const struct publisher *p)
{
	const int64_t max = natsConnection_GetMaxPayload(p->nc);

	return max > 0 ? (size_t)max : 0;
}

unsigned publisher_pending(const struct publisher *p)
{
	return (unsigned)(p->next - p->first);
}

bool publisher_has_room(const struct publisher *p)
{
	return publisher_pending(p) < p->max_pending && p->bytes < PUBLISHER_BYTES_MAX;
}

static natsStatus set_headers(natsMsg *msg, const struct publisher_message *m, const char *stream)
{
	char index[24];
	natsStatus st = natsMsgHeader_Set(msg, "Nats-Msg-Id", m->id);

	snprintf(index, sizeof(index), "%" PRIu64, m->index);
	if (st == NATS_OK)
		st = natsMsgHeader_Set(msg, "Nats-Expected-Stream", stream);
	if (st == NATS_OK)
		st = natsMsgHeader_Set(msg, "Content-Type", "application/cloudevents+json");
	if (st == NATS_OK)
		st = natsMsgHeader_Set(msg, "Cellos-Log", m->origin);
	if (st == NATS_OK)
		st = natsMsgHeader_Set(msg, "Cellos-Index", index);
	return st;
}

static uint64_t add_slot(struct publisher *p, size_t bytes)
{
	uint64_t n;

	pthread_mutex_lock(&p->lock);
	n = p->next++;
	p->slots[n % p->max_pending] = (struct slot){.sent_ns = monotonic_ns(), .bytes = bytes};
	pthread_mutex_unlock(&p->lock);
	p->bytes += bytes;
	return n;
}

enum forward_error publisher_send(struct publisher *p, const struct publisher_message *m,
				  char why[PUBLISHER_WHY_MAX])
{
	char reply[sizeof(p->inbox) + 24];
	natsMsg *msg = NULL;
	natsStatus st;

	snprintf(reply, sizeof(reply), "%s.%" PRIu64, p->inbox, add_slot(p, m->len));
	st = natsMsg_Create(&msg, m->subject, reply, m->data, (int)m->len);
	if (st == NATS_OK)
		st = set_headers(msg, m, p->stream);
	if (st == NATS_OK)
		st = natsConnection_PublishMsg(p->nc, msg);
	natsMsg_Destroy(msg);
	if (st == NATS_OK)
		return FORWARD_OK;
	snprintf(why, PUBLISHER_WHY_MAX, "cannot send: %s", natsStatus_GetText(st));
	return st == NATS_MAX_PAYLOAD ? FORWARD_TOO_LARGE : FORWARD_DISCONNECTED;
}

bool publisher_take_answer(struct publisher *p, struct publisher_answer *ret)
{
	struct slot *slot;
	uint64_t ignored;
	bool taken = false;

	(void)!read(p->event_fd, &ignored, sizeof(ignored));
	pthread_mutex_lock(&p->lock);
	slot = &p->slots[p->first % p->max_pending];
	if (p->first < p->next && slot->answered) {
		*ret = (struct publisher_answer){
			.duplicate = slot->duplicate,
			.error = slot->error,
			.code = slot->code,
		};
		snprintf(ret->why, sizeof(ret->why), "%s", slot->why ? slot->why : "");
		p->bytes -= slot->bytes;
		free(take_ptr(slot->why));
		p->first++;
		taken = true;
	}
	pthread_mutex_unlock(&p->lock);
	return taken;
}

enum forward_error publisher_check(struct publisher *p, uint64_t now_ns,
				   char why[PUBLISHER_WHY_MAX])
{
	enum forward_error error = FORWARD_OK;
	const struct slot *oldest;

	pthread_mutex_lock(&p->lock);
	oldest = &p->slots[p->first % p->max_pending];
	if (p->ended) {
		error = FORWARD_DISCONNECTED;
		snprintf(why, PUBLISHER_WHY_MAX, "%s", p->ended_why);
	} else if (p->first < p->next && !oldest->answered &&
		   now_ns > oldest->sent_ns + PUBLISHER_TIMEOUT_MS * NSEC_PER_MSEC) {
		error = FORWARD_TIMEOUT;
		snprintf(why, PUBLISHER_WHY_MAX, "no answer to a message in %u s",
			 PUBLISHER_TIMEOUT_MS / 1000);
	}
	pthread_mutex_unlock(&p->lock);
	return error;
}
