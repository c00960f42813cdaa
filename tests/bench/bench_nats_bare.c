/* SPDX-License-Identifier: MIT */
/*
 * The yardstick of bench_forward.py: libnats' own asynchronous publisher, which sends each line of
 * the files as a message with an id and waits for all acknowledgements. Prints the messages, the
 * seconds and the processor's seconds.
 *
 *	bench_nats_bare URL FILE...
 */
#include <sys/resource.h>

#include <nats/nats.h>

#include "common/util.h"

#define SUBJECT "cellos.events.bench.bare"

static void check(natsStatus st, const char *what)
{
	if (st == NATS_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(st));
	exit(1);
}

static void publish(jsCtx *js, const char *line, int len, uint64_t n)
{
	natsMsg *msg = NULL;
	char id[64];

	snprintf(id, sizeof(id), "urn:cellos:bench:%020" PRIu64, n);
	check(natsMsg_Create(&msg, SUBJECT, NULL, line, len), "message");
	check(natsMsgHeader_Set(msg, "Nats-Msg-Id", id), "header");
	check(js_PublishMsgAsync(js, &msg, NULL), "publish");
}

static uint64_t publish_file(jsCtx *js, const char *path, uint64_t n)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	if (!f) {
		perror(path);
		exit(1);
	}
	while ((len = getline(&line, &size, f)) > 0)
		publish(js, line, (int)len - 1, n++);
	free(line);
	return n;
}

int main(int argc, char **argv)
{
	natsConnection *nc = NULL;
	jsCtx *js = NULL;
	jsOptions options;
	struct rusage usage;
	uint64_t begin_ns, n = 0;

	check(natsConnection_ConnectTo(&nc, argv[1]), "connect");
	jsOptions_Init(&options);
	options.PublishAsync.MaxPending = 4096;
	options.PublishAsync.StallWait = 60000;
	check(natsConnection_JetStream(&js, nc, &options), "JetStream");
	begin_ns = monotonic_ns();
	for (int i = 2; i < argc; i++)
		n = publish_file(js, argv[i], n);
	check(js_PublishAsyncComplete(js, NULL), "acknowledgements");
	getrusage(RUSAGE_SELF, &usage);
	printf("%" PRIu64 " %.3f %.3f\n", n,
	       (double)(monotonic_ns() - begin_ns) / (double)NSEC_PER_SEC,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	jsCtx_Destroy(js);
	natsConnection_Destroy(nc);
	return 0;
}
