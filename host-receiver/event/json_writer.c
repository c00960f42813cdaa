/* SPDX-License-Identifier: MIT */
#include "host-receiver/event/json_writer.h"

#include <errno.h>
#include <string.h>

void json_writer_init(struct json_writer *w, char *buf, size_t size)
{
	*w = (struct json_writer){.buf = buf, .size = size};
}

static void put(struct json_writer *w, const char *data, size_t len)
{
	if (w->overflow || len > w->size - w->len) {
		w->overflow = true;
		return;
	}
	memcpy(w->buf + w->len, data, len);
	w->len += len;
}

static void put_char(struct json_writer *w, char c)
{
	put(w, &c, 1);
}

/* A value or key begins: it is parted from the one before it in the same container. */
static void begin_value(struct json_writer *w)
{
	if (w->comma)
		put_char(w, ',');
	w->comma = true;
}

static void begin_container(struct json_writer *w, char c)
{
	begin_value(w);
	put_char(w, c);
	w->comma = false;
}

static void end_container(struct json_writer *w, char c)
{
	put_char(w, c);
	w->comma = true;
}

void json_put_begin_object(struct json_writer *w)
{
	begin_container(w, '{');
}

void json_put_end_object(struct json_writer *w)
{
	end_container(w, '}');
}

void json_put_begin_array(struct json_writer *w)
{
	begin_container(w, '[');
}

void json_put_end_array(struct json_writer *w)
{
	end_container(w, ']');
}

void json_put_key(struct json_writer *w, const char *key)
{
	begin_value(w);
	put_char(w, '"');
	put(w, key, strlen(key));
	put(w, "\":", 2);
	w->comma = false;
}

void json_put_uint(struct json_writer *w, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	begin_value(w);
	put(w, digits + at, sizeof(digits) - at);
}

void json_put_int(struct json_writer *w, int64_t v)
{
	if (v >= 0) {
		json_put_uint(w, (uint64_t)v);
		return;
	}
	begin_value(w);
	put_char(w, '-');
	w->comma = false;
	json_put_uint(w, -(uint64_t)v);
}

void json_put_bool(struct json_writer *w, bool v)
{
	begin_value(w);
	put(w, v ? "true" : "false", v ? 4 : 5);
}

void json_put_null(struct json_writer *w)
{
	begin_value(w);
	put(w, "null", 4);
}

/*
 * RFC 8785 section 3.2.2.2: the two-character escapes where JSON has them, \u00xx for the other
 * control bytes, everything else as it is.
 */
static void put_escape(struct json_writer *w, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char short_form[] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n',  ['\f'] = 'f',
		['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\',
	};

	if (c < sizeof(short_form) && short_form[c]) {
		put(w, (const char[]){'\\', short_form[c]}, 2);
		return;
	}
	put(w, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

void json_put_string(struct json_writer *w, const char *data, size_t len)
{
	size_t from = 0;

	begin_value(w);
	put_char(w, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		put(w, data + from, i - from);
		put_escape(w, c);
		from = i + 1;
	}
	if (len > from)
		put(w, data + from, len - from);
	put_char(w, '"');
}

void json_put_key_text(struct json_writer *w, struct wire_text key)
{
	json_put_string(w, key.data, key.len);
	put_char(w, ':');
	w->comma = false;
}

void json_put_raw(struct json_writer *w, const char *data, size_t len)
{
	begin_value(w);
	put(w, data, len);
}

void json_put_kv_uint(struct json_writer *w, const char *key, uint64_t v)
{
	json_put_key(w, key);
	json_put_uint(w, v);
}

void json_put_kv_int(struct json_writer *w, const char *key, int64_t v)
{
	json_put_key(w, key);
	json_put_int(w, v);
}

void json_put_kv_bool(struct json_writer *w, const char *key, bool v)
{
	json_put_key(w, key);
	json_put_bool(w, v);
}

void json_put_kv_null(struct json_writer *w, const char *key)
{
	json_put_key(w, key);
	json_put_null(w);
}

void json_put_kv_string(struct json_writer *w, const char *key, const char *s)
{
	json_put_key(w, key);
	json_put_string(w, s, strlen(s));
}

void json_put_kv_text(struct json_writer *w, const char *key, struct wire_text text)
{
	json_put_key(w, key);
	json_put_string(w, text.data, text.len);
}

int json_writer_done(const struct json_writer *w, size_t *ret_len)
{
	if (w->overflow)
		return -ENOBUFS;
	*ret_len = w->len;
	return 0;
}
