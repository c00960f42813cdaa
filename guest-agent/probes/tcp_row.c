/* SPDX-License-Identifier: MIT */
/*
 * Lines of /proc/net/tcp and tcp6: see tcp_row.h.
 */
#include "guest-agent/probes/tcp_row.h"

#include <sys/socket.h>

#include "common/util.h"

struct cursor {
	const char *p, *end;
};

static void skip_spaces(struct cursor *c)
{
	while (c->p < c->end && *c->p == ' ')
		c->p++;
}

/* Exactly digits hexadecimal digits. */
static int hex(struct cursor *c, unsigned digits, uint32_t *ret)
{
	uint32_t v = 0;

	if ((size_t)(c->end - c->p) < digits)
		return -EBADMSG;
	for (; digits; digits--) {
		char ch = *c->p++;

		if (ch >= '0' && ch <= '9')
			v = v << 4 | (uint32_t)(ch - '0');
		else if (ch >= 'A' && ch <= 'F')
			v = v << 4 | (uint32_t)(ch - 'A' + 10);
		else
			return -EBADMSG;
	}
	*ret = v;
	return 0;
}

static int literal(struct cursor *c, char ch)
{
	if (c->p == c->end || *c->p != ch)
		return -EBADMSG;
	c->p++;
	return 0;
}

/* "0100007F:1F90": each word is a machine's integer, the port is a number. Returns the words. */
static int endpoint(struct cursor *c, uint32_t words[4], uint16_t *ret_port)
{
	uint32_t port;
	int n = 0;

	skip_spaces(c);
	while (n < 4 && c->p < c->end && *c->p != ':')
		if (hex(c, 8, &words[n++]) < 0)
			return -EBADMSG;
	if ((n != 1 && n != 4) || literal(c, ':') < 0 || hex(c, 4, &port) < 0)
		return -EBADMSG;
	*ret_port = (uint16_t)port;
	return n;
}

static int decimal(struct cursor *c, uint64_t *ret)
{
	uint64_t v = 0;

	skip_spaces(c);
	if (c->p == c->end || *c->p < '0' || *c->p > '9')
		return -EBADMSG;
	for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*c->p - '0'), &v))
			return -EBADMSG;
	*ret = v;
	return 0;
}

static int skip_word(struct cursor *c)
{
	skip_spaces(c);
	if (c->p == c->end)
		return -EBADMSG;
	while (c->p < c->end && *c->p != ' ')
		c->p++;
	return 0;
}

int tcp_row_parse(const char *line, size_t len, struct tcp_row *ret)
{
	struct cursor c = {line, line + len};
	struct tcp_row row = {0};
	uint32_t state;
	uint64_t number;
	int n;

	/* sl: local remote st tx:rx tr:when retrnsmt uid timeout inode ... */
	if (decimal(&c, &number) < 0 || literal(&c, ':') < 0)
		return -EBADMSG;
	n = endpoint(&c, row.local, &row.local_port);
	if (n < 0 || endpoint(&c, row.remote, &row.remote_port) != n)
		return -EBADMSG;
	skip_spaces(&c);
	if (hex(&c, 2, &state) < 0 || literal(&c, ' ') < 0)
		return -EBADMSG;
	for (unsigned skipped = 0; skipped < 5; skipped++)
		if (skip_word(&c) < 0)
			return -EBADMSG;
	if (decimal(&c, &row.inode) < 0)
		return -EBADMSG;
	row.state = (uint8_t)state;
	row.family = n == 1 ? AF_INET : AF_INET6;
	*ret = row;
	return 0;
}

int socket_link_parse(const char *link, size_t len, uint64_t *ret)
{
	static const char prefix[] = "socket:[";
	const size_t prefix_len = sizeof(prefix) - 1;
	struct cursor c = {link + MIN(prefix_len, len), link + len};
	uint64_t inode;

	if (len <= prefix_len || memcmp(link, prefix, prefix_len) != 0 || *c.p == ' ' ||
	    decimal(&c, &inode) < 0 || literal(&c, ']') < 0 || c.p != c.end)
		return -EBADMSG;
	*ret = inode;
	return 0;
}
