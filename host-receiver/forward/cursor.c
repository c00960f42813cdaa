/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/cursor.h"

#include <fcntl.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"

#define CURSOR_TEXT_MAX 768u
#define CHECK_SIZE	16u    /* bytes of the checksum */
#define NO_ORIGIN	"none" /* the origin of a cursor before the first entry */

static const char *const names[] = {"cursor.0", "cursor.1"};

/* One line; its last word is a checksum over the rest of the line. */
static void format(const struct forward_cursor *cursor, char out[static CURSOR_TEXT_MAX])
{
	char before[2 * TREE_HASH_SIZE + 1], check_hex[2 * CHECK_SIZE + 1];
	uint8_t check[CHECK_SIZE];
	int len;

	sodium_bin2hex(before, sizeof(before), cursor->before.bytes, TREE_HASH_SIZE);
	len = snprintf(out, CURSOR_TEXT_MAX,
		       "cellos-forward-cursor 1 %" PRIu64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64
		       " %s ",
		       cursor->generation, *cursor->origin ? cursor->origin : NO_ORIGIN,
		       cursor->index, cursor->at.segment, cursor->at.offset, before);
	crypto_generichash(check, sizeof(check), (const uint8_t *)out, (size_t)len, NULL, 0);
	sodium_bin2hex(check_hex, sizeof(check_hex), check, sizeof(check));
	snprintf(out + len, CURSOR_TEXT_MAX - (size_t)len, "%s\n", check_hex);
}

static int parse(const char *text, struct forward_cursor *ret)
{
	char before[2 * TREE_HASH_SIZE + 1], again[CURSOR_TEXT_MAX];
	struct forward_cursor c = {0};
	size_t len;

	_Static_assert(NOTE_ORIGIN_MAX == 255, "the width below");
	if (sscanf(text,
		   "cellos-forward-cursor 1 %" SCNu64 " %255s %" SCNu64 " %" SCNu64 " %" SCNu64
		   " %64s ",
		   &c.generation, c.origin, &c.index, &c.at.segment, &c.at.offset, before) != 6 ||
	    sodium_hex2bin(c.before.bytes, TREE_HASH_SIZE, before, strlen(before), NULL, &len,
			   NULL) != 0 ||
	    len != TREE_HASH_SIZE)
		return -EBADMSG;
	/* Accept exactly what format() writes. */
	format(&c, again);
	if (strcmp(text, again) != 0)
		return -EBADMSG;
	*ret = c;
	return 0;
}

static int load_one(int dir_fd, const char *name, struct forward_cursor *ret)
{
	char text[CURSOR_TEXT_MAX + 1];
	const ssize_t n = durable_read(dir_fd, name, text, sizeof(text));

	return n < 0 ? (int)n : parse(text, ret);
}

int forward_cursor_load(int dir_fd, struct forward_cursor *ret, bool *ret_damaged)
{
	struct forward_cursor one;
	bool found = false;
	unsigned missing = 0;
	int r;

	*ret_damaged = false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		r = load_one(dir_fd, names[i], &one);
		if (r == -ENOENT) {
			missing++;
			continue;
		}
		if (r < 0) {
			*ret_damaged = true;
			if (r != -EBADMSG)
				return r;
			continue;
		}
		if (!found || one.generation > ret->generation)
			*ret = one;
		found = true;
	}
	if (found)
		return 0;
	return missing == ARRAY_SIZE(names) ? -ENOENT : -EBADMSG;
}

int forward_cursor_store(int dir_fd, struct forward_cursor *cursor)
{
	struct forward_cursor next = *cursor;
	char text[CURSOR_TEXT_MAX];
	int r;

	next.generation++;
	format(&next, text);
	r = durable_write(dir_fd, names[next.generation % ARRAY_SIZE(names)], text, strlen(text),
			  0640);
	if (r < 0)
		return r;
	*cursor = next;
	return 0;
}
