/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/flat_keyed.h"

#include "common/util.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of the line, or an empty one. */
static struct wire_text next_word(const char **at, const char *end)
{
	struct wire_text word;

	while (*at < end && is_space(**at))
		(*at)++;
	word.data = *at;
	while (*at < end && !is_space(**at))
		(*at)++;
	word.len = (size_t)(*at - word.data);
	return word;
}

static bool key_valid(struct wire_text key)
{
	if (key.len > FLAT_KEYED_KEY_MAX)
		return false;
	for (size_t i = 0; i < key.len; i++)
		if (key.data[i] <= ' ' || key.data[i] > '~')
			return false;
	return true;
}

static bool read_value(struct wire_text word, uint64_t *ret)
{
	char digits[24];

	if (word.len == 0 || word.len >= sizeof(digits))
		return false;
	memcpy(digits, word.data, word.len);
	digits[word.len] = '\0';
	return strlen(digits) == word.len && parse_u64(digits, 0, UINT64_MAX, ret) == 0;
}

static int compare(struct wire_text a, struct wire_text b)
{
	const int r = memcmp(a.data, b.data, MIN(a.len, b.len));

	return r ? r : a.len < b.len ? -1 : a.len > b.len;
}

/* Insert in order. The files have no fixed order, but only a few dozen lines. */
static int insert(struct flat_keyed *pairs, struct wire_text key, uint64_t value)
{
	size_t i = pairs->n;

	for (; i > 0; i--) {
		const int order = compare(pairs->pairs[i - 1].key, key);

		if (order == 0)
			return -EEXIST;
		if (order < 0)
			break;
	}
	memmove(&pairs->pairs[i + 1], &pairs->pairs[i], (pairs->n - i) * sizeof(pairs->pairs[0]));
	pairs->pairs[i].key = key;
	pairs->pairs[i].value = value;
	pairs->n++;
	return 0;
}

/* Returns NULL, or the mistake in the line. */
static const char *parse_line(const char *line, const char *end, struct flat_keyed *pairs,
			      int *ret_error)
{
	const struct wire_text key = next_word(&line, end), word = next_word(&line, end);
	uint64_t value;

	*ret_error = -EBADMSG;
	if (key.len == 0)
		return NULL;
	if (!key_valid(key))
		return "the key is no word of at most 64 printable characters";
	if (!read_value(word, &value))
		return "the value is not an unsigned 64-bit number";
	if (next_word(&line, end).len > 0)
		return "more than a key and a value";
	if (pairs->n == FLAT_KEYED_KEYS_MAX) {
		*ret_error = -E2BIG;
		return "more than 256 keys";
	}
	return insert(pairs, key, value) < 0 ? "the key is there twice" : NULL;
}

int flat_keyed_parse(const char *text, size_t len, struct flat_keyed *ret, unsigned *ret_line,
		     const char **ret_what)
{
	const char *end = text + len;

	ret->n = 0;
	for (unsigned line = 1; text < end; line++) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *what;
		int r;

		what = parse_line(text, newline ? newline : end, ret, &r);
		if (what) {
			*ret_line = line;
			*ret_what = what;
			return r;
		}
		text = newline ? newline + 1 : end;
	}
	return 0;
}

void flat_keyed_write(const struct flat_keyed *pairs, struct json_writer *w)
{
	json_put_begin_object(w);
	for (size_t i = 0; i < pairs->n; i++) {
		json_put_key_text(w, pairs->pairs[i].key);
		json_put_uint(w, pairs->pairs[i].value);
	}
	json_put_end_object(w);
}
