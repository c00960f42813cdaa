/* SPDX-License-Identifier: MIT */
/* The golden evidence, and keyrings, for unit tests. */
#pragma once

#include "common/util.h"
#include "host-receiver/sign/keyring.h"
#include "tests/unit/unit.h"

#define LINES_MAX 64

/* That signed the golden logs. */
#define GOLDEN_LOG_KEY "YNo4OgMsIcSrIkmw1OaFr8KRLBIUZSZoluIgVF3NSIk"

/* Owned by the caller. */
static inline char *read_vector(const char *name)
{
	char path[512], *text = NULL;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", unit_vectors(), name);
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	ck_assert_int_ge(getdelim(&text, &size, '\0', f), 0);
	fclose(f);
	return text;
}

/* The lines of evidence-good.jsonl, without '\n'. Returns how many. */
static inline size_t read_golden_lines(char *lines[LINES_MAX])
{
	char *text = read_vector("evidence-good.jsonl"), *at = text, *line;
	size_t n;

	for (n = 0; (line = strsep(&at, "\n")) && *line; n++)
		lines[n] = strdup(line);
	free(text);
	return n;
}

static inline struct keyring *ring_of(const char *json, enum sign_algorithm algorithm)
{
	struct keyring *ring = keyring_new();
	char why[KEYRING_WHY_MAX];

	ck_assert_msg(keyring_parse(ring, json, strlen(json), "test", algorithm, why) == 0, "%s",
		      why);
	return ring;
}
