/* SPDX-License-Identifier: MIT */
/*
 * A pipeline whose evidence a test reads back line by line. A line is compared as text: the end of
 * its type, a blank, and its data as JSON with ' instead of ". What every event of a stream has
 * alike (identity, times) is not in that text.
 */
#pragma once

#include <string.h>
#include <sys/mman.h>

#include <jansson.h>

#include "common/util.h"
#include "host-receiver/pipeline/pipeline.h"
#include "host-receiver/pipeline/stdout_sink.h"
#include "tests/unit/unit.h"

struct evidence_lines {
	uv_loop_t loop;
	struct pipeline *pipeline;
	int fd;
	off_t read;
};

static inline void evidence_lines_ignore(void *ctx __attribute__((unused)),
					 int error __attribute__((unused)),
					 bool fatal __attribute__((unused)))
{
}

/* A pipeline into this sink, which is taken as the signer is. */
static inline void
evidence_lines_open(struct evidence_lines *l, struct signer *signer, struct evidence_sink *sink,
		    void (*on_durable)(void *ctx, struct pipeline_account *account))
{
	const struct pipeline_options options = {
		.signer = signer,
		.sink = sink,
		.workers = 1,
		.on_progress = evidence_lines_ignore,
		.on_durable = on_durable,
	};

	ck_assert_int_eq(uv_loop_init(&l->loop), 0);
	ck_assert_int_eq(pipeline_new(&l->loop, &options, &l->pipeline), 0);
}

static inline void evidence_lines_begin(struct evidence_lines *l,
					void (*on_durable)(void *ctx,
							   struct pipeline_account *account))
{
	const struct signing_options off = {.algorithm = "off"};
	struct signer *signer;
	char why[SIGN_WHY_MAX];

	*l = (struct evidence_lines){.fd = memfd_create("evidence", MFD_CLOEXEC)};
	ck_assert_int_ge(l->fd, 0);
	ck_assert_int_eq(signer_open(NULL, &off, &signer, why), 0);
	evidence_lines_open(l, signer, stdout_sink_new(l->fd), on_durable);
}

/* Everything that was submitted is committed and reported. */
static inline void evidence_lines_settle(struct evidence_lines *l)
{
	pipeline_flush(l->pipeline);
	while (!pipeline_idle(l->pipeline))
		uv_run(&l->loop, UV_RUN_ONCE);
}

static inline void evidence_lines_end(struct evidence_lines *l)
{
	pipeline_free(l->pipeline);
	uv_run(&l->loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&l->loop), 0);
	if (l->fd >= 0)
		close(l->fd);
}

static inline char *evidence_lines_text(json_t *event)
{
	static const char *const alike[] = {
		"authority",	     "cellId",	       "hostMonotonicNs", "runId",
		"specSignatureHash", "hostReceivedAt", "sequence",	  "streamId"};
	const char *type = json_string_value(json_object_get(event, "type"));
	json_t *data = json_object_get(event, "data");
	char *json, *text;

	ck_assert(strncmp(type, EVENT_TYPE_PREFIX, strlen(EVENT_TYPE_PREFIX)) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(alike); i++)
		json_object_del(data, alike[i]);
	json = json_dumps(data, JSON_COMPACT | JSON_SORT_KEYS);
	ck_assert_int_gt(asprintf(&text, "%s %s", type + strlen(EVENT_TYPE_PREFIX), json), 0);
	free(json);
	for (char *at = text; (at = strchr(at, '"')); at++)
		*at = '\'';
	return text;
}

/* The lines since the last call are these; the list ends with NULL. */
static inline void evidence_lines_are(struct evidence_lines *l, const char *const want[])
{
	static char buffer[256 * 1024];
	ssize_t len;
	char *at = buffer;

	evidence_lines_settle(l);
	len = pread(l->fd, buffer, sizeof(buffer) - 1, l->read);
	ck_assert_int_ge(len, 0);
	ck_assert_int_lt(len, sizeof(buffer) - 1);
	buffer[len] = '\0';
	l->read += len;
	for (size_t i = 0; *at || want[i]; i++) {
		char *const end = strchrnul(at, '\n');
		json_t *event;
		char *text;

		ck_assert_msg(*at, "missing: %s", want[i]);
		*end = '\0';
		event = json_loads(at, 0, NULL);
		ck_assert_msg(event != NULL, "%s", at);
		text = evidence_lines_text(event);
		ck_assert_msg(want[i] != NULL, "not expected: %s", text);
		ck_assert_msg(strcmp(text, want[i]) == 0, "%s, expected %s", text, want[i]);
		free(text);
		json_decref(event);
		at = end + 1;
	}
}

/* LINES(&l, "...", "...") or NO_LINES(&l) */
#define LINES(l, ...) evidence_lines_are((l), (const char *const[]){__VA_ARGS__, NULL})
#define NO_LINES(l)   evidence_lines_are((l), (const char *const[]){NULL})
