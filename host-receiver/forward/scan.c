/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/scan.h"

#include "common/util.h"
#include "host-receiver/evidence/lines.h"

#define TYPE_ENVELOPE "dev.cellos.events.signed_envelope.v1"

/* The longest value that is searched: a signature or a name, never a guest's text. */
#define VALUE_MAX 512u

#define DATA_BEGIN	"{\"data\":{"
#define ALGORITHM_BEGIN "{\"data\":{\"algorithm\":\""
#define EVENT_BEGIN	"\",\"event\":"
#define CELL_KEY	"cellId"

struct attribute {
	struct wire_text key, value;
};

static bool text_is(struct wire_text text, const char *s)
{
	return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}

/*
 * Take the string that ends with the quote before *end, if it has no escapes. *end moves before its
 * opening quote.
 */
static bool take_string_back(const char *begin, const char **end, struct wire_text *ret)
{
	const char *last = *end - 1, *at = last;

	if (last < begin || *last != '"')
		return false;
	while (at > begin && last - at <= VALUE_MAX) {
		at--;
		if (*at == '\\')
			return false;
		if (*at == '"') {
			*ret = (struct wire_text){at + 1, (size_t)(last - at) - 1};
			*end = at;
			return true;
		}
	}
	return false;
}

/* Take the last `"key":"value"` before *end. *end moves before it. */
static bool take_attribute_back(const char *begin, const char **end, struct attribute *ret)
{
	if (!take_string_back(begin, end, &ret->value) || *end - begin < 2 || (*end)[-1] != ':')
		return false;
	(*end)--;
	return take_string_back(begin, end, &ret->key);
}

/*
 * Take the attributes of the event that ends at *end with '}', back to its data. *end moves to the
 * closing '}' of the data. Only attributes with string values are known.
 */
static bool take_attributes_back(const char *begin, const char **end, struct scanned_line *ret)
{
	struct attribute attribute;

	if (*end - begin < 2 || (*end)[-1] != '}')
		return false;
	(*end)--;
	for (;;) {
		if (!take_attribute_back(begin, end, &attribute))
			return false;
		if (text_is(attribute.key, "id"))
			ret->id = attribute.value;
		else if (text_is(attribute.key, "time"))
			ret->time = attribute.value;
		else if (text_is(attribute.key, "type"))
			ret->type = attribute.value;
		if (*end - begin < 2 || (*end)[-1] != ',')
			return false;
		(*end)--;
		if ((*end)[-1] == '}')
			return true;
	}
}

/* Skip the string that begins at the quote *at, with its escapes. */
static bool pass_string(const char **at, const char *end)
{
	for (const char *p = *at + 1; p < end; p++) {
		if (*p == '\\') {
			p++;
		} else if (*p == '"') {
			*at = p + 1;
			return true;
		}
	}
	return false;
}

/* Skip a string, a number or a word; false for an object or an array. */
static bool pass_value(const char **at, const char *end)
{
	if (*at == end || **at == '{' || **at == '[')
		return false;
	if (**at == '"')
		return pass_string(at, end);
	while (*at < end && **at != ',' && **at != '}')
		(*at)++;
	return true;
}

/*
 * Find cellId among the members of the data that begins at `at`. They are sorted, so the search
 * ends at a later key. False: a member before it is not simple.
 */
static bool read_cell(const char *at, const char *end, struct wire_text *ret)
{
	while (at < end && *at == '"') {
		const char *key = at + 1, *value;
		size_t len;
		int order;

		if (!pass_string(&at, end) || at == end || *at++ != ':')
			return false;
		len = (size_t)(at - key) - 2;
		order = memcmp(key, CELL_KEY, MIN(len, strlen(CELL_KEY)));
		if (order > 0 || (order == 0 && len > strlen(CELL_KEY)))
			return true;
		value = at + 1;
		if (!pass_value(&at, end) || at == end)
			return false;
		if (order == 0 && len == strlen(CELL_KEY)) {
			*ret = (struct wire_text){value, (size_t)(at - value) - 1};
			return value[-1] == '"' && !memchr(ret->data, '\\', ret->len);
		}
		if (*at++ == '}')
			return true;
	}
	return at < end && *at == '}';
}

static bool begins_with(const char *at, const char *end, const char *text)
{
	return (size_t)(end - at) >= strlen(text) && memcmp(at, text, strlen(text)) == 0;
}

/* Read one event without an envelope between begin and end. */
static bool read_event(const char *begin, const char *end, struct scanned_line *ret)
{
	if (!begins_with(begin, end, DATA_BEGIN) || !take_attributes_back(begin, &end, ret))
		return false;
	return read_cell(begin + strlen(DATA_BEGIN), end, &ret->cell);
}

/*
 * {"data":{"algorithm":"..","event":{..},"signature":"..","signerKid":".."},..}: end is after the
 * data. Time and id are the envelope's, which are the event's.
 */
static bool read_enveloped(const char *begin, const char *end, struct scanned_line *ret)
{
	struct scanned_line inner = {0};
	struct attribute attribute;
	const char *at = begin + strlen(ALGORITHM_BEGIN) - 1;

	if (!begins_with(begin, end, ALGORITHM_BEGIN) || !pass_string(&at, end) ||
	    !begins_with(at - 1, end, EVENT_BEGIN))
		return false;
	at += strlen(EVENT_BEGIN) - 1;
	end--;
	for (int i = 0; i < 2; i++)
		if (!take_attribute_back(at, &end, &attribute) || *--end != ',')
			return false;
	if (!text_is(attribute.key, "signature") || !read_event(at, end, &inner))
		return false;
	ret->type = inner.type;
	ret->cell = inner.cell;
	return true;
}

bool scan_line(const char *line, size_t len, struct scanned_line *ret)
{
	const char *end = line + len;

	*ret = (struct scanned_line){0};
	if (!begins_with(line, end, DATA_BEGIN) || !take_attributes_back(line, &end, ret) ||
	    ret->id.len == 0 || ret->type.len == 0)
		return false;
	if (text_is(ret->type, LINE_TYPE_SEGMENT) || text_is(ret->type, LINE_TYPE_CHECKPOINT))
		return true;
	if (text_is(ret->type, TYPE_ENVELOPE))
		return read_enveloped(line, end, ret);
	return read_cell(line + strlen(DATA_BEGIN), end, &ret->cell);
}
