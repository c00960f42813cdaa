/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/publisher.h"

#include <poll.h>
#include <stdarg.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <jansson.h>
#include <nats/nats.h>

#include "common/util.h"
#include "host-receiver/forward/connection.h"
#include "host-receiver/forward/stream.h"

/* A peer that disappeared is noticed within a minute, also when nothing is sent. */
#define KEEPALIVE_IDLE_S  30
#define KEEPALIVE_PROBE_S 10
#define KEEPALIVE_PROBES  3

/*
 * Answers that were read. They are returned to libnats together, because a thread of libnats frees
 * them, and would be woken for each single one.
 */
#define SPENT_MAX 1024u

#define HEADER_BEGIN "NATS/1.0\r\n"
#define HEADER_END   "\r\n"

struct slot {
	bool answered;
	uint64_t sent_ns;
	size_t bytes;
	bool duplicate;
	enum forward_error error;
	int code;
	char *why; /* owned; NULL: no message */
};

struct publisher {
	natsConnection *nc;
	natsSubscription *answers;
	char *stream; /* owned */
	char inbox[64];
	size_t inbox_len;
	size_t max_size; /* of a message with its headers */
	unsigned max_pending;

	/* libnats' event loop interface. */
	int fd; /* borrowed; -1: not attached */
	bool wants_read, wants_write;

	struct slot *slots;   /* max_pending; message n has slot n % max_pending */
	uint64_t first, next; /* messages without an answer yet: [first, next) */
	size_t bytes;	      /* of their data */

	natsMsg *spent[SPENT_MAX];
	unsigned n_spent;
};

/* ---- libnats' event loop interface ---- */

static void keep_alive(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_PROBE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			   sizeof(options[i].value));
}

static natsStatus on_attach(void **ret_user, void *loop, natsConnection *nc _unused_, natsSock fd)
{
	struct publisher *p = loop;

	p->fd = fd;
	p->wants_read = true;
	keep_alive(fd);
	*ret_user = p;
	return NATS_OK;
}

static natsStatus on_read(void *user, bool add)
{
	((struct publisher *)user)->wants_read = add;
	return NATS_OK;
}

static natsStatus on_write(void *user, bool add)
{
	((struct publisher *)user)->wants_write = add;
	return NATS_OK;
}

static natsStatus on_detach(void *user)
{
	struct publisher *p = user;

	p->fd = -1;
	p->wants_read = p->wants_write = false;
	return NATS_OK;
}

int publisher_fd(const struct publisher *p)
{
	return p->fd;
}

short publisher_events(const struct publisher *p)
{
	return (short)((p->wants_read ? POLLIN : 0) | (p->wants_write ? POLLOUT : 0));
}

/* ---- answers ---- */

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

static void take_message(struct publisher *p, natsMsg *msg)
{
	const char *subject = natsMsg_GetSubject(msg);
	struct slot *slot;
	uint64_t n;

	/* The last token is the message's number. */
	if (strlen(subject) <= p->inbox_len ||
	    parse_u64(subject + p->inbox_len + 1, 0, UINT64_MAX, &n) < 0 || n < p->first ||
	    n >= p->next)
		return;
	slot = &p->slots[n % p->max_pending];
	if (slot->answered)
		return;
	slot->answered = true;
	if (!is_plain_answer(p, msg))
		read_answer(p, msg, slot);
}

static void free_spent(struct publisher *p)
{
	while (p->n_spent > 0)
		natsMsg_Destroy(p->spent[--p->n_spent]);
}

static void take_messages(struct publisher *p)
{
	natsMsg *msg = NULL;

	while (natsSubscription_NextMsg(&msg, p->answers, 0) == NATS_OK) {
		take_message(p, msg);
		p->spent[p->n_spent++] = take_ptr(msg);
		if (p->n_spent == SPENT_MAX)
			free_spent(p);
	}
}

void publisher_turn(struct publisher *p, short events)
{
	if (p->wants_read && (events & (POLLIN | POLLHUP | POLLERR))) {
		natsConnection_ProcessReadEvent(p->nc);
		take_messages(p);
	}
	if (p->wants_write && (events & POLLOUT))
		natsConnection_ProcessWriteEvent(p->nc);
}

/* ---- connecting ---- */

static enum forward_error subscribe(struct publisher *p, char why[PUBLISHER_WHY_MAX])
{
	char subject[sizeof(p->inbox) + 2];
	natsInbox *inbox = NULL;
	natsStatus st = natsInbox_Create(&inbox);

	if (st == NATS_OK) {
		snprintf(p->inbox, sizeof(p->inbox), "%s", inbox);
		p->inbox_len = strlen(p->inbox);
		snprintf(subject, sizeof(subject), "%s.*", p->inbox);
		st = natsConnection_SubscribeSync(&p->answers, p->nc, subject);
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
	p->max_pending = s->max_pending;
	p->stream = strdup(s->stream);
	p->slots = calloc(p->max_pending, sizeof(*p->slots));
	p->fd = -1;
	if (!p->stream || !p->slots) {
		publisher_close(p);
		return NULL;
	}
	return p;
}

/* libnats' own threads wait for the answers here. They have finished when this function returns. */
static enum forward_error check_stream(const struct forward_settings *settings, const char *url,
				       struct stream_facts *ret, char why[PUBLISHER_WHY_MAX])
{
	natsConnection *nc = NULL;
	enum forward_error error = connection_open(settings, url, NULL, &nc, why);

	if (error == FORWARD_OK)
		error = stream_check(nc, settings, ret, why);
	natsConnection_Destroy(nc);
	return error;
}

enum forward_error publisher_open(const struct forward_settings *settings, const char *url,
				  struct publisher **ret, char why[PUBLISHER_WHY_MAX],
				  char warnings[PUBLISHER_WHY_MAX])
{
	struct publisher *p = publisher_new(settings);
	const struct connection_loop loop = {on_attach, on_read, on_write, on_detach, p};
	struct stream_facts facts = {0};
	enum forward_error error;

	if (!p) {
		snprintf(why, PUBLISHER_WHY_MAX, "no memory is left");
		return FORWARD_CONNECT;
	}
	error = check_stream(settings, url, &facts, why);
	if (error == FORWARD_OK)
		error = connection_open(settings, url, &loop, &p->nc, why);
	if (error == FORWARD_OK)
		error = subscribe(p, why);
	if (error != FORWARD_OK) {
		publisher_close(p);
		return error;
	}
	p->max_size = (size_t)MAX(natsConnection_GetMaxPayload(p->nc), INT64_C(0));
	if (facts.max_msg_size > 0)
		p->max_size = MIN(p->max_size, facts.max_msg_size);
	snprintf(warnings, PUBLISHER_WHY_MAX, "%s", facts.warnings);
	*ret = p;
	return FORWARD_OK;
}

void publisher_close(struct publisher *p)
{
	if (!p)
		return;
	free_spent(p);
	if (p->nc)
		natsConnection_Close(p->nc);
	natsSubscription_Destroy(p->answers);
	natsConnection_Destroy(p->nc);
	for (unsigned i = 0; p->slots && i < p->max_pending; i++)
		free(p->slots[i].why);
	free(p->slots);
	free(p->stream);
	free(p);
}

/* ---- sending ---- */

size_t publisher_max_size(const struct publisher *p)
{
	return p->max_size;
}

unsigned publisher_pending(const struct publisher *p)
{
	return (unsigned)(p->next - p->first);
}

bool publisher_has_room(const struct publisher *p)
{
	return publisher_pending(p) < p->max_pending && p->bytes < PUBLISHER_BYTES_MAX &&
	       natsConnection_Buffered(p->nc) < (int)PUBLISHER_BUFFER_MAX;
}

uint64_t publisher_oldest_ns(const struct publisher *p)
{
	return p->first < p->next ? p->slots[p->first % p->max_pending].sent_ns : 0;
}

/* ---- headers ---- */

enum { HEADER_ID, HEADER_STREAM, HEADER_TYPE, HEADER_LOG, HEADER_INDEX, _HEADER_MAX };

struct header {
	const char *name, *value;
};

static void list_headers(const struct publisher *p, const struct publisher_message *m,
			 char index[static 24], struct header ret[static _HEADER_MAX])
{
	snprintf(index, 24, "%" PRIu64, m->index);
	ret[HEADER_ID] = (struct header){"Nats-Msg-Id", m->id};
	ret[HEADER_STREAM] = (struct header){"Nats-Expected-Stream", p->stream};
	ret[HEADER_TYPE] = (struct header){"Content-Type", "application/cloudevents+json"};
	ret[HEADER_LOG] = (struct header){"Cellos-Log", m->origin};
	ret[HEADER_INDEX] = (struct header){"Cellos-Index", index};
}

bool publisher_fits(const struct publisher *p, const struct publisher_message *m)
{
	size_t size = sizeof(HEADER_BEGIN) - 1 + sizeof(HEADER_END) - 1 + m->len;
	struct header headers[_HEADER_MAX];
	char index[24];

	list_headers(p, m, index, headers);
	for (size_t i = 0; i < _HEADER_MAX; i++)
		size += strlen(headers[i].name) + strlen(": ") + strlen(headers[i].value) +
			strlen("\r\n");
	return size <= p->max_size;
}

static natsStatus set_headers(const struct publisher *p, const struct publisher_message *m,
			      natsMsg *msg)
{
	struct header headers[_HEADER_MAX];
	natsStatus st = NATS_OK;
	char index[24];

	list_headers(p, m, index, headers);
	for (size_t i = 0; i < _HEADER_MAX && st == NATS_OK; i++)
		st = natsMsgHeader_Set(msg, headers[i].name, headers[i].value);
	return st;
}

/* ---- sending ---- */

static uint64_t add_slot(struct publisher *p, size_t bytes, uint64_t now_ns)
{
	const uint64_t n = p->next++;

	p->slots[n % p->max_pending] = (struct slot){.sent_ns = now_ns, .bytes = bytes};
	p->bytes += bytes;
	return n;
}

enum forward_error publisher_send(struct publisher *p, const struct publisher_message *m,
				  uint64_t now_ns, char why[PUBLISHER_WHY_MAX])
{
	char reply[sizeof(p->inbox) + 24];
	natsMsg *msg = NULL;
	natsStatus st;

	snprintf(reply, sizeof(reply), "%s.%" PRIu64, p->inbox, add_slot(p, m->len, now_ns));
	st = natsMsg_Create(&msg, m->subject, reply, m->data, (int)m->len);
	if (st == NATS_OK)
		st = set_headers(p, m, msg);
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
	struct slot *slot = &p->slots[p->first % p->max_pending];

	if (p->first == p->next || !slot->answered)
		return false;
	ret->duplicate = slot->duplicate;
	ret->error = slot->error;
	ret->code = slot->code;
	snprintf(ret->why, sizeof(ret->why), "%s", slot->why ? slot->why : "");
	p->bytes -= slot->bytes;
	free(take_ptr(slot->why));
	p->first++;
	return true;
}

enum forward_error publisher_check(struct publisher *p, uint64_t now_ns,
				   char why[PUBLISHER_WHY_MAX])
{
	const uint64_t oldest_ns = publisher_oldest_ns(p);
	const char *text = NULL;
	natsStatus st = NATS_OK;

	/* The server gives no answer to a refused subject, but an error of the connection. */
	if (p->fd < 0 || oldest_ns > 0)
		st = natsConnection_GetLastError(p->nc, &text);
	if (p->fd < 0 || st == NATS_NOT_PERMITTED) {
		snprintf(why, PUBLISHER_WHY_MAX, "%s%s%.200s",
			 p->fd < 0 ? "the connection ended" : "the server refuses",
			 text && *text ? ": " : "", text && *text ? text : "");
		return p->fd < 0 ? FORWARD_DISCONNECTED : FORWARD_CREDENTIALS;
	}
	if (oldest_ns > 0 && now_ns > oldest_ns + PUBLISHER_TIMEOUT_MS * NSEC_PER_MSEC) {
		snprintf(why, PUBLISHER_WHY_MAX, "no answer to a message in %u s",
			 PUBLISHER_TIMEOUT_MS / 1000);
		return FORWARD_TIMEOUT;
	}
	return FORWARD_OK;
}
