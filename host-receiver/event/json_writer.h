/* SPDX-License-Identifier: MIT */
/*
 * The writer of canonical JSON (RFC 8785): no white space, minimal escapes, integers only. It
 * keeps the caller's order: the caller gives object keys in ascending order (the tests compare
 * every kind of event with a canonicaliser). The bytes it produces are the bytes that are signed
 * and stored.
 *
 * Fixed buffer, no allocation. An overflow is remembered, and json_writer_done() reports it at the
 * end, so the calls before need no checks. Not shared between threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/wire.h"

struct json_writer {
	char *buf; /* borrowed until json_writer_done() */
	size_t len, size;
	bool comma, overflow;
};

void json_writer_init(struct json_writer *w, char *buf, size_t size);

void json_put_begin_object(struct json_writer *w);
void json_put_end_object(struct json_writer *w);
void json_put_begin_array(struct json_writer *w);
void json_put_end_array(struct json_writer *w);

/* key is plain ASCII that needs no escape. */
void json_put_key_of(struct json_writer *w, const char *key, size_t len);
/* Inline, so that the compiler knows the length of a literal. */
static inline void json_put_key(struct json_writer *w, const char *key)
{
	json_put_key_of(w, key, strlen(key));
}

/* Any key; escaped. */
void json_put_key_text(struct json_writer *w, struct wire_text key);

void json_put_uint(struct json_writer *w, uint64_t v);
void json_put_int(struct json_writer *w, int64_t v);
void json_put_bool(struct json_writer *w, bool v);
void json_put_null(struct json_writer *w);
void json_put_string(struct json_writer *w, const char *data,
		     size_t len); /* valid UTF-8; escaped */
void json_put_raw(struct json_writer *w, const char *data,
		  size_t len); /* one JSON value, as it is */

/*
 * "key":value in one call; the key as in json_put_key_of(). text is valid UTF-8 and is escaped;
 * plain is text of which the caller knows that it needs no escape.
 */
void json_put_kv_uint_of(struct json_writer *w, const char *key, size_t key_len, uint64_t v);
void json_put_kv_text_of(struct json_writer *w, const char *key, size_t key_len,
			 struct wire_text text);
void json_put_kv_plain_of(struct json_writer *w, const char *key, size_t key_len,
			  struct wire_text plain);

static inline void json_put_kv_plain(struct json_writer *w, const char *key, struct wire_text plain)
{
	json_put_kv_plain_of(w, key, strlen(key), plain);
}

static inline void json_put_kv_uint(struct json_writer *w, const char *key, uint64_t v)
{
	json_put_kv_uint_of(w, key, strlen(key), v);
}

static inline void json_put_kv_int(struct json_writer *w, const char *key, int64_t v)
{
	json_put_key(w, key);
	json_put_int(w, v);
}

static inline void json_put_kv_bool(struct json_writer *w, const char *key, bool v)
{
	json_put_key(w, key);
	json_put_bool(w, v);
}

static inline void json_put_kv_null(struct json_writer *w, const char *key)
{
	json_put_key(w, key);
	json_put_null(w);
}

/* s is NUL-terminated. */
static inline void json_put_kv_string(struct json_writer *w, const char *key, const char *s)
{
	json_put_kv_text_of(w, key, strlen(key), wire_text(s));
}

static inline void json_put_kv_text(struct json_writer *w, const char *key, struct wire_text text)
{
	json_put_kv_text_of(w, key, strlen(key), text);
}

/* 0 and the length written, or -ENOBUFS if it did not fit. */
int json_writer_done(const struct json_writer *w, size_t *ret_len);
