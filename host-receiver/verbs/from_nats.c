/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/from_nats.h"

#include <ftw.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/forward/stream_reader.h"
#include "host-receiver/judge/findings.h"

const struct option_row from_nats_rows[FROM_NATS_ROWS] = {
	{"nats", "URL", "read a JetStream stream instead of files: nats://HOST:PORT",
	 OPTION_SETS_TEXT(struct from_nats, url)},
	{"stream", "NAME", "default " FORWARD_STREAM_DEFAULT,
	 OPTION_SETS_TEXT(struct from_nats, stream)},
	{"credentials", "FILE", "NATS credentials",
	 OPTION_SETS_TEXT(struct from_nats, credentials)},
	{"tls-ca", "FILE", "the CA of the server's certificate",
	 OPTION_SETS_TEXT(struct from_nats, tls_ca)},
	{"tls-cert", "FILE", "our own certificate", OPTION_SETS_TEXT(struct from_nats, tls_cert)},
	{"tls-key", "FILE", "its key", OPTION_SETS_TEXT(struct from_nats, tls_key)},
};

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

/* fetch.logs has the log that was found last at its head; paths has the order of the stream. */
static int list_paths(struct from_nats *n)
{
	size_t i = n->fetch.n_logs;

	n->paths = calloc(i + 1, sizeof(*n->paths));
	if (!n->paths)
		return -ENOMEM;
	for (struct fetch_log *log = n->fetch.logs; log; log = log->next)
		n->paths[--i] = log->dir;
	return 0;
}

static struct forward_settings settings_of(const struct from_nats *n)
{
	return (struct forward_settings){
		.url = n->url,
		.stream = n->stream ? n->stream : FORWARD_STREAM_DEFAULT,
		.subject = FORWARD_SUBJECT_DEFAULT,
		.credentials = or_empty(n->credentials),
		.tls_ca = or_empty(n->tls_ca),
		.tls_cert = or_empty(n->tls_cert),
		.tls_key = or_empty(n->tls_key),
		.max_pending = 1,
	};
}

int from_nats_fetch(struct from_nats *n, const char *origin)
{
	const struct forward_settings settings = settings_of(n);
	const struct fetch_options options = {
		.settings = &settings, .origin = origin, .dir = n->dir};
	char why[PUBLISHER_WHY_MAX] = "no memory";
	const char *tmp = getenv("TMPDIR");
	int r;

	snprintf(n->dir, sizeof(n->dir), "%.40s/cellos-fetch-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(n->dir)) {
		fprintf(stderr, "cannot make a folder in %s: %s\n", tmp ? tmp : "/tmp",
			strerror(errno));
		n->dir[0] = '\0';
		return EX_CANTCREAT;
	}
	r = fetch_run(&options, &n->fetch, why);
	if (r == 0)
		r = list_paths(n);
	if (r == 0)
		return EX_OK;
	fprintf(stderr, "cannot read evidence from %s: %s\n", n->url, why);
	return EX_NOINPUT;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void from_nats_done(struct from_nats *n)
{
	if (*n->dir)
		nftw(n->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(n->paths);
	fetch_free(&n->fetch);
}

/* Entries of a log that the stream does not have. */
static void print_hole(const struct fetch_log *log, const struct fetch_hole *hole, FILE *f)
{
	const char *why = hole->skipped
				  ? " (the forwarder skipped it: the server took no message of "
				    "its size)"
				  : "";

	if (hole->first == hole->last)
		fprintf(f, "missing in the stream: %s entry %" PRIu64 "%s\n", log->origin,
			hole->first, why);
	else
		fprintf(f, "missing in the stream: %s entries %" PRIu64 "..%" PRIu64 "%s\n",
			log->origin, hole->first, hole->last, why);
}

int from_nats_report(const struct from_nats *n, FILE *f)
{
	int status = EX_OK;

	for (const struct fetch_log *log = n->fetch.logs; log; log = log->next) {
		for (unsigned i = 0; i < log->n_holes; i++)
			print_hole(log, &log->holes[i], f);
		if (log->repeats > 0)
			fprintf(f, "repeated in the stream: %s %" PRIu64 " %s, counted once\n",
				log->origin, log->repeats,
				plural(log->repeats, "entry", "entries"));
		if (log->unanchored > 0)
			fprintf(f, "not verifiable: %s %" PRIu64 " %s beside what is missing\n",
				log->origin, log->unanchored,
				plural(log->unanchored, "entry", "entries"));
		if (log->missing > 0)
			status = VERDICT_MISSING;
		else if (log->unanchored > 0 && status == EX_OK)
			status = VERDICT_UNVERIFIABLE;
	}
	if (n->fetch.strange > 0)
		fprintf(f, "passed over: %" PRIu64 " %s\n", n->fetch.strange,
			plural(n->fetch.strange, "message that is no evidence",
			       "messages that are no evidence"));
	return status;
}

struct lines {
	int (*take)(void *ctx, const char *line, size_t len);
	void *ctx;
};

/* A message has one line without a newline, or several lines that each end with one. */
static int take_lines(void *ctx, natsMsg *msg, char why[PUBLISHER_WHY_MAX])
{
	const struct lines *lines = ctx;
	const char *data = natsMsg_GetData(msg);
	size_t len = (size_t)MAX(natsMsg_GetDataLength(msg), 0);

	while (len > 0) {
		const char *newline = memchr(data, '\n', len);
		const size_t n = newline ? (size_t)(newline - data) : len;
		int r = lines->take(lines->ctx, data, n);

		if (r != 0) {
			snprintf(why, PUBLISHER_WHY_MAX, "it cannot be printed");
			return -EIO;
		}
		data += n + (newline != NULL);
		len -= n + (newline != NULL);
	}
	return 0;
}

int from_nats_lines(const struct from_nats *n, bool follow,
		    int (*take)(void *ctx, const char *line, size_t len), void *ctx)
{
	const struct forward_settings settings = settings_of(n);
	struct lines lines = {.take = take, .ctx = ctx};
	const struct stream_reading reading = {.follow = follow, .take = take_lines, .ctx = &lines};
	char why[PUBLISHER_WHY_MAX] = "no memory";

	if (stream_read(&settings, &reading, why) == 0)
		return EX_OK;
	fprintf(stderr, "cannot read evidence from %s: %s\n", n->url, why);
	return EX_NOINPUT;
}
