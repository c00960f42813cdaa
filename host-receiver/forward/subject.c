/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/subject.h"

#include "common/util.h"

#define TEMPLATE_MAX  256u
#define EVENTS_PREFIX "dev.cellos.events."
#define CELL_PREFIX   "cell.observability."

static const char token_bytes[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

struct writer {
	char *out;
	size_t len;
};

static void put(struct writer *w, const char *data, size_t len)
{
	len = MIN(len, SUBJECT_MAX - 1 - w->len);
	memcpy(w->out + w->len, data, len);
	w->len += len;
	w->out[w->len] = '\0';
}

/* Faster than isalnum(), and independent of the locale. */
static bool is_token_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static void put_token(struct writer *w, struct wire_text text)
{
	if (text.len == 0) {
		put(w, SUBJECT_NO_CELL, 1);
		return;
	}
	for (size_t i = 0; i < text.len && w->len < SUBJECT_MAX - 1; i++)
		w->out[w->len++] = is_token_byte(text.data[i]) ? text.data[i] : '_';
	w->out[w->len] = '\0';
}

bool subject_template_valid(const char *template, const char **ret_why)
{
	const char *p = template;

	if (!*template || strlen(template) > TEMPLATE_MAX) {
		*ret_why = "expected 1..256 bytes";
		return false;
	}
	for (;;) {
		size_t n = strspn(p, token_bytes);

		if (strncmp(p, "{cell}", 6) == 0 || strncmp(p, "{type}", 6) == 0)
			n = 6;
		if (n == 0 || (p[n] != '.' && p[n] != '\0')) {
			*ret_why =
				"expected tokens of [A-Za-z0-9_-], {cell} or {type}, joined by dots";
			return false;
		}
		if (p[n] == '\0')
			return true;
		p += n + 1;
	}
}

static struct wire_text without_prefix(struct wire_text text, const char *prefix)
{
	const size_t len = strlen(prefix);

	if (text.len > len && memcmp(text.data, prefix, len) == 0)
		return (struct wire_text){.data = text.data + len, .len = text.len - len};
	return text;
}

static void expand(const char *template, struct wire_text cell, struct wire_text type,
		   bool wildcard, char ret[static SUBJECT_MAX])
{
	struct writer w = {.out = ret};

	ret[0] = '\0';
	while (*template) {
		const size_t plain = strcspn(template, "{");
		const bool is_cell = strncmp(template, "{cell}", 6) == 0;

		if (is_cell || strncmp(template, "{type}", 6) == 0) {
			if (wildcard)
				put(&w, "*", 1);
			else
				put_token(&w, is_cell ? cell : type);
			template += 6;
		} else {
			put(&w, template, plain);
			template += plain;
		}
	}
}

void subject_entry(const char *template, struct wire_text cell, struct wire_text type,
		   char ret[static SUBJECT_MAX])
{
	expand(template, cell, without_prefix(without_prefix(type, EVENTS_PREFIX), CELL_PREFIX),
	       false, ret);
}

void subject_wildcard(const char *template, char ret[static SUBJECT_MAX])
{
	expand(template, (struct wire_text){0}, (struct wire_text){0}, true, ret);
}

/* An origin is "<prefix>/<log uuid>": the host is its prefix. */
void subject_host(const char *prefix, const char *origin, char ret[static SUBJECT_MAX])
{
	const char *end = strrchr(origin, '/');
	struct writer w = {.out = ret};

	ret[0] = '\0';
	put(&w, prefix, strlen(prefix));
	put(&w, ".", 1);
	put_token(&w, (struct wire_text){.data = origin,
					 .len = end ? (size_t)(end - origin) : strlen(origin)});
}
