/* SPDX-License-Identifier: MIT */
#include "host-receiver/event/json_writer.h"

#include "common/util.h"

void json_writer_init(struct json_writer *w, char *buf, size_t size)
{
	*w = (struct json_writer){.buf = buf, .size = size};
}

/* The place for the next n bytes. NULL: they do not fit, and from now on nothing is written. */
static inline char *take(struct json_writer *w, size_t n)
{
	char *at = w->buf + w->len;

	if (n > w->size - w->len || w->overflow) {
		w->overflow = true;
		return NULL;
	}
	w->len += n;
	return at;
}

static inline void put(struct json_writer *w, const char *data, size_t len)
{
	char *at = take(w, len);

	if (at)
		memcpy(at, data, len);
}

static inline void put_char(struct json_writer *w, char c)
{
	char *at = take(w, 1);

	if (at)
		*at = c;
}

/* A value or key begins: write the comma that separates it from the one before it. */
static inline void begin_value(struct json_writer *w)
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

/*
 * A member up to its value: ',"key":'. The place for the value's size bytes, or NULL: they do not
 * fit.
 */
static inline char *put_member(struct json_writer *w, const char *key, size_t len, size_t size)
{
	char *at = take(w, len + 3 + w->comma + size);

	if (!at)
		return NULL;
	if (w->comma)
		*at++ = ',';
	w->comma = true;
	*at++ = '"';
	memcpy(at, key, len);
	at[len] = '"';
	at[len + 1] = ':';
	return at + len + 2;
}

void json_put_key_of(struct json_writer *w, const char *key, size_t len)
{
	put_member(w, key, len, 0);
	w->comma = false;
}

#define DIGITS_MAX 20u

/* Writes the number before end; two digits at a time. Returns its first digit. */
static inline char *format_uint(char *end, uint64_t v)
{
	static const char pairs[] = "00010203040506070809101112131415161718192021222324"
				    "25262728293031323334353637383940414243444546474849"
				    "50515253545556575859606162636465666768697071727374"
				    "75767778798081828384858687888990919293949596979899";

	for (; v >= 100; v /= 100)
		memcpy(end -= 2, pairs + v % 100 * 2, 2);
	if (v >= 10)
		return memcpy(end - 2, pairs + v * 2, 2);
	*--end = (char)('0' + v);
	return end;
}

void json_put_uint(struct json_writer *w, uint64_t v)
{
	char digits[DIGITS_MAX];
	const char *first = format_uint(digits + DIGITS_MAX, v);

	begin_value(w);
	put(w, first, (size_t)(digits + DIGITS_MAX - first));
}

void json_put_kv_uint_of(struct json_writer *w, const char *key, size_t key_len, uint64_t v)
{
	char digits[DIGITS_MAX];
	const char *first = format_uint(digits + DIGITS_MAX, v);
	const size_t len = (size_t)(digits + DIGITS_MAX - first);
	char *at = put_member(w, key, key_len, len);

	if (at)
		memcpy(at, first, len);
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

static inline bool is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

#define BYTES(c) (UINT64_C(0x0101010101010101) * (c))

/* Not zero if one of the eight bytes is below n; n is at most 0x80. */
static inline uint64_t has_below(uint64_t v, uint64_t n)
{
	return (v - BYTES(n)) & ~v & BYTES(0x80);
}

static inline bool word_is_plain(const char *data)
{
	uint64_t v;

	memcpy(&v, data, sizeof(v));
	return !(has_below(v, 0x20) | has_below(v ^ BYTES('"'), 1) | has_below(v ^ BYTES('\\'), 1));
}

/*
 * The number of bytes at the beginning that need no escape. It reads eight at a time, because most
 * texts have none, and the last eight once more instead of each byte of the rest.
 */
static inline size_t count_plain(const char *data, size_t len)
{
	size_t i = 0;

	for (; len - i >= sizeof(uint64_t) && word_is_plain(data + i); i += sizeof(uint64_t))
		;
	if (len - i < sizeof(uint64_t) && i > 0 && word_is_plain(data + len - sizeof(uint64_t)))
		return len;
	while (i < len && is_plain((unsigned char)data[i]))
		i++;
	return i;
}

static void put_escaped(struct json_writer *w, const char *data, size_t len)
{
	while (len > 0) {
		const size_t n = count_plain(data, len);

		put(w, data, n);
		if (n < len)
			put_escape(w, (unsigned char)data[n]);
		data += MIN(n + 1, len);
		len -= MIN(n + 1, len);
	}
}

void json_put_string(struct json_writer *w, const char *data, size_t len)
{
	begin_value(w);
	put_char(w, '"');
	put_escaped(w, data, len);
	put_char(w, '"');
}

void json_put_kv_plain_of(struct json_writer *w, const char *key, size_t key_len,
			  struct wire_text plain)
{
	char *at = put_member(w, key, key_len, plain.len + 2);

	if (!at)
		return;
	*at++ = '"';
	memcpy(at, plain.data, plain.len);
	at[plain.len] = '"';
}

void json_put_kv_text_of(struct json_writer *w, const char *key, size_t key_len,
			 struct wire_text text)
{
	if (count_plain(text.data, text.len) == text.len) {
		json_put_kv_plain_of(w, key, key_len, text);
		return;
	}
	json_put_key_of(w, key, key_len);
	json_put_string(w, text.data, text.len);
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

int json_writer_done(const struct json_writer *w, size_t *ret_len)
{
	if (w->overflow)
		return -ENOBUFS;
	*ret_len = w->len;
	return 0;
}
