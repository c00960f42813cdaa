/* SPDX-License-Identifier: MIT */
/*
 * What one frame costs the receiver before anything is signed: nanoseconds of CPU to decode its
 * body and to write its canonical event, for five typical frames, beside one crypto_sign_detached()
 * of that event's bytes. All take turns, so that other work on the machine disturbs all of them.
 * Prints medians; never fails on time.
 */
#include <sodium.h>

#include "common/util.h"
#include "common/wire.h"
#include "host-receiver/event/event.h"

#define TURNS	      41
#define ROUNDS	      2000u
#define ROUNDS_SIGNED 40u

static uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* ---- the frames ---- */

static void add_spawned(struct declaration *d)
{
	declaration_add_uint(d, WIRE_KEY_PPID, 1207);
}

static void add_executed(struct declaration *d)
{
	declaration_add_text(d, WIRE_KEY_EXE, wire_text("/usr/lib/git-core/git-remote-https"));
	declaration_add_uint(d, WIRE_KEY_PPID, 1207);
	declaration_add_uint(d, WIRE_KEY_UID, 1000);
	declaration_add_uint(d, WIRE_KEY_EUID, 1000);
	declaration_add_text(d, WIRE_KEY_CWD, wire_text("/home/worker/checkout"));
	declaration_add_text(d, WIRE_KEY_ARGS,
			     wire_text("git remote-https origin \"https://git.example.org/a\""));
}

static void add_connect(struct declaration *d)
{
	declaration_add_text(d, WIRE_KEY_FAMILY, wire_text("inet6"));
	declaration_add_text(d, WIRE_KEY_ADDRESS, wire_text("2001:db8:0:17::25"));
	declaration_add_uint(d, WIRE_KEY_PORT, 443);
	declaration_add_text(d, WIRE_KEY_RESULT, wire_text("EINPROGRESS"));
	declaration_add_text(d, WIRE_KEY_EXE, wire_text("/usr/lib/git-core/git-remote-https"));
}

static void add_denied(struct declaration *d)
{
	declaration_add_text(d, WIRE_KEY_SYSCALL, wire_text("mount"));
	declaration_add_text(d, WIRE_KEY_ERROR, wire_text("EPERM"));
	declaration_add_text(d, WIRE_KEY_CAPABILITY, wire_text("CAP_SYS_ADMIN"));
	declaration_add_text(d, WIRE_KEY_EXE, wire_text("/usr/bin/mount"));
}

static void add_fs(struct declaration *d)
{
	declaration_add_text(d, WIRE_KEY_PATH, wire_text("/etc"));
	declaration_add_text(d, WIRE_KEY_EVENT, wire_text("modify,close_write"));
	declaration_add_text(d, WIRE_KEY_NAME, wire_text("resolv.conf"));
	declaration_add_text(d, WIRE_KEY_EXE, wire_text("/usr/bin/vi"));
}

static const struct {
	enum wire_source source;
	void (*add)(struct declaration *d);
} frames[] = {
	{WIRE_PROCESS_SPAWNED, add_spawned},
	{WIRE_PROCESS_EXECUTED, add_executed},
	{WIRE_NET_CONNECT_ATTEMPTED, add_connect},
	{WIRE_CAPABILITY_DENIED, add_denied},
	{WIRE_FS_CHANGED, add_fs},
};

/* ---- what is measured ---- */

enum work {
	DECODE,
	WRITE,
	SIGN,
	_WORK_MAX,
};

struct subject {
	uint8_t frame[WIRE_FRAME_SEND_MAX];
	size_t body_len;
	struct declaration declaration; /* borrows from frame */
	char json[8192];
	size_t json_len;
	double ns[_WORK_MAX][TURNS];
	double ratio[_WORK_MAX][TURNS]; /* to the signature of the same turn */
};

static struct stream_identity stream = {
	.cell_id = (char[]){"web-1"},
	.run_id = (char[]){"run-2026-11-22-0001"},
	.spec_hash = (char[]){"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
};
static uint8_t secret[crypto_sign_SECRETKEYBYTES];

static int encode(size_t i, struct subject *s)
{
	struct declaration d = {
		.content_version = WIRE_VERSION_2,
		.source = frames[i].source,
		.guest_pid = 41207,
		.guest_comm = wire_text("git-remote-http"),
		.guest_monotonic_ns = UINT64_C(86412345678901),
		.seq = 1048577,
	};
	int len;

	frames[i].add(&d);
	len = wire_encode(&d, s->frame, sizeof(s->frame));
	if (len < 0)
		return len;
	s->body_len = (size_t)len - WIRE_PREFIX_SIZE;
	return 0;
}

static int decode(struct subject *s)
{
	struct wire_refusal refusal;

	return wire_decode(s->frame + WIRE_PREFIX_SIZE, s->body_len, &s->declaration, &refusal);
}

/* The same fields as in report_declaration(). */
static int write_event(struct subject *s)
{
	static struct event_clock clock;
	const struct declaration *d = &s->declaration;
	struct event_head head;
	struct event e;

	/* An event of the pipeline has no value either before it is filled. */
	e.type = event_type_of_source(d->source);
	e.stream = &stream;
	e.realtime_ms = UINT64_C(1795334400123);
	e.monotonic_ns = UINT64_C(86412345999999);
	e.sequence = 1048999;
	e.n_fields = e.n_details = 0;
	memset(e.id, 0xa5, sizeof(e.id));
	event_add_uint(&e, EVENT_KEY_CONNECTION, 3);
	event_add_uint(&e, EVENT_KEY_CONTENT_VERSION, d->content_version);
	event_add_text(&e, EVENT_KEY_PROBE_SOURCE, wire_text(wire_source_name(d->source)));
	event_add_uint(&e, EVENT_KEY_GUEST_PID, d->guest_pid);
	event_add_text(&e, EVENT_KEY_GUEST_COMM, d->guest_comm);
	event_add_uint(&e, EVENT_KEY_GUEST_MONOTONIC_NS, d->guest_monotonic_ns);
	event_add_uint(&e, EVENT_KEY_SEQ, d->seq);
	event_add_details(&e, d->details, d->n_details);
	return event_write(&e, &clock, s->json, sizeof(s->json), &s->json_len, &head);
}

static int sign(struct subject *s)
{
	uint8_t signature[crypto_sign_BYTES];

	return crypto_sign_detached(signature, NULL, (const uint8_t *)s->json, s->json_len, secret);
}

static const struct {
	int (*run)(struct subject *s);
	unsigned rounds;
} works[] = {
	[DECODE] = {decode, ROUNDS},
	[WRITE] = {write_event, ROUNDS},
	[SIGN] = {sign, ROUNDS_SIGNED},
};
_Static_assert(ARRAY_SIZE(works) == _WORK_MAX, "a row for each kind of work");

static int turn(struct subject *s, int number)
{
	for (size_t i = 0; i < _WORK_MAX; i++) {
		const uint64_t begin = cpu_ns();

		for (unsigned n = 0; n < works[i].rounds; n++)
			if (works[i].run(s) != 0)
				return -EINVAL;
		s->ns[i][number] = (double)(cpu_ns() - begin) / works[i].rounds;
	}
	for (size_t i = 0; i < _WORK_MAX; i++)
		s->ratio[i][number] = s->ns[i][number] / s->ns[SIGN][number];
	return 0;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double values[static TURNS])
{
	qsort(values, TURNS, sizeof(*values), compare);
	return values[TURNS / 2];
}

int main(void)
{
	static struct subject subjects[ARRAY_SIZE(frames)];
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES];

	if (sodium_init() < 0)
		return EXIT_FAILURE;
	crypto_sign_keypair(public_key, secret);
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		if (encode(i, &subjects[i]) < 0)
			return EXIT_FAILURE;
	for (int number = 0; number < TURNS; number++)
		for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
			if (turn(&subjects[i], number) < 0)
				return EXIT_FAILURE;
	printf("%-24s %5s %5s %8s %8s %8s %14s %14s\n", "ns, medians", "body", "event", "decode",
	       "event", "sign", "decode / sign", "event / sign");
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		struct subject *s = &subjects[i];

		printf("%-24s %5zu %5zu %8.0f %8.0f %8.0f %14.4f %14.4f\n",
		       wire_source_name(frames[i].source), s->body_len, s->json_len,
		       median(s->ns[DECODE]), median(s->ns[WRITE]), median(s->ns[SIGN]),
		       median(s->ratio[DECODE]), median(s->ratio[WRITE]));
	}
	return EXIT_SUCCESS;
}
