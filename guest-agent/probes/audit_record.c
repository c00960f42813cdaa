/* SPDX-License-Identifier: MIT */
/*
 * Records of the kernel's audit: see audit_record.h.
 *
 * A record is "audit(SECONDS.MS:SERIAL): " and then pairs NAME=VALUE between spaces. A process can
 * choose comm and exe. Such a value is either in quotes, without spaces, quotes and control bytes
 * in it, or all of it is hexadecimal. So a name cannot forge a field.
 */
#include "guest-agent/probes/audit_record.h"

#include <linux/audit.h>
#include <linux/io_uring.h>

#include "common/util.h"

struct value {
	const char *data;
	size_t len;
	bool quoted;
};

/* The value of the pair called name. */
static int find(const char *text, size_t len, const char *name, struct value *ret)
{
	const size_t name_len = strlen(name);
	const char *p = text, *end = text + len;

	while (p < end) {
		const char *stop = memchr(p, ' ', (size_t)(end - p));
		const char *word_end = stop ? stop : end;

		if ((size_t)(word_end - p) > name_len && p[name_len] == '=' &&
		    !memcmp(p, name, name_len)) {
			struct value v = {.data = p + name_len + 1};

			v.len = (size_t)(word_end - v.data);
			if (v.len >= 2 && v.data[0] == '"' && v.data[v.len - 1] == '"') {
				v.data++;
				v.len -= 2;
				v.quoted = true;
			}
			*ret = v;
			return 0;
		}
		if (!stop)
			break;
		p = stop + 1;
	}
	return -ENOENT;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int number(const char *data, size_t len, unsigned base, uint64_t *ret)
{
	uint64_t v = 0;

	if (len == 0)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(data[i]);

		if (digit < 0 || (unsigned)digit >= base || __builtin_mul_overflow(v, base, &v) ||
		    __builtin_add_overflow(v, (unsigned)digit, &v))
			return -EBADMSG;
	}
	*ret = v;
	return 0;
}

static int find_number(const char *text, size_t len, const char *name, unsigned base, uint64_t max,
		       uint64_t *ret)
{
	struct value v;

	if (find(text, len, name, &v) < 0 || v.quoted || number(v.data, v.len, base, ret) < 0 ||
	    *ret > max)
		return -EBADMSG;
	return 0;
}

static int find_signed(const char *text, size_t len, const char *name, int64_t *ret)
{
	struct value v;
	uint64_t u;
	bool minus;

	if (find(text, len, name, &v) < 0 || v.quoted || v.len == 0)
		return -EBADMSG;
	minus = v.data[0] == '-';
	if (number(v.data + minus, v.len - minus, 10, &u) < 0 || u > INT64_MAX)
		return -EBADMSG;
	*ret = minus ? -(int64_t)u : (int64_t)u;
	return 0;
}

/* Hexadecimal -> bytes, cut to size. */
static int unhex(const struct value *v, void *out, size_t size, size_t *ret_len)
{
	size_t n = MIN(v->len / 2, size);

	if (v->len % 2)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(v->data[2 * i]), low = hex_digit(v->data[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EBADMSG;
		((uint8_t *)out)[i] = (uint8_t)(high << 4 | low);
	}
	*ret_len = n;
	return 0;
}

/* A string that a process chose. "(null)" and the like, without quotes, mean that there is none. */
static int find_untrusted(const char *text, size_t len, const char *name, char *out, size_t size,
			  size_t *ret_len)
{
	struct value v;

	*ret_len = 0;
	if (find(text, len, name, &v) < 0)
		return 0;
	if (v.quoted) {
		*ret_len = MIN(v.len, size);
		memcpy(out, v.data, *ret_len);
		return 0;
	}
	if (v.len && v.data[0] == '(')
		return 0;
	return unhex(&v, out, size, ret_len);
}

/* "audit(1700000000.123:456): " -> the serial; returns the bytes to skip. */
static int parse_stamp(const char *text, size_t len, uint64_t *ret_serial)
{
	static const char prefix[] = "audit(";
	const char *end = text + len, *colon, *close;

	if (len < sizeof(prefix) || memcmp(text, prefix, sizeof(prefix) - 1) != 0)
		return -EBADMSG;
	close = memchr(text, ')', len);
	if (!close)
		return -EBADMSG;
	colon = memrchr(text, ':', (size_t)(close - text));
	if (!colon || number(colon + 1, (size_t)(close - colon - 1), 10, ret_serial) < 0)
		return -EBADMSG;
	close++;
	if (close < end && *close == ':')
		close++;
	if (close < end && *close == ' ')
		close++;
	return (int)(close - text);
}

static int parse_call(const char *text, size_t len, const char *nr_name, struct audit_record *r)
{
	uint64_t nr, pid, ppid;

	if (find_number(text, len, nr_name, 10, INT32_MAX, &nr) < 0 ||
	    find_number(text, len, "pid", 10, INT32_MAX, &pid) < 0 ||
	    find_number(text, len, "ppid", 10, INT32_MAX, &ppid) < 0 ||
	    find_signed(text, len, "exit", &r->exit) < 0 ||
	    find_untrusted(text, len, "comm", r->comm, sizeof(r->comm), &r->comm_len) < 0 ||
	    find_untrusted(text, len, "exe", r->exe, sizeof(r->exe), &r->exe_len) < 0)
		return -EBADMSG;
	r->nr = (int32_t)nr;
	r->pid = (pid_t)pid;
	r->ppid = (pid_t)ppid;
	return 0;
}

int audit_record_parse(uint16_t type, const char *text, size_t len, struct audit_record *ret)
{
	struct audit_record r = {0};
	struct value v;
	uint64_t arch;
	int skip;

	if (type != AUDIT_SYSCALL && type != AUDIT_URINGOP && type != AUDIT_SOCKADDR &&
	    type != AUDIT_EOE)
		return -ENOMSG;
	if (len > AUDIT_RECORD_MAX)
		return -EBADMSG;
	/* Some kernels end it with a NUL. */
	len = strnlen(text, len);
	skip = parse_stamp(text, len, &r.serial);
	if (skip < 0)
		return skip;
	text += skip;
	len -= (size_t)skip;

	switch (type) {
	case AUDIT_SYSCALL:
		r.kind = AUDIT_KIND_SYSCALL;
		if (find_number(text, len, "arch", 16, UINT32_MAX, &arch) < 0 ||
		    find_number(text, len, "a0", 16, UINT64_MAX, &r.a0) < 0 ||
		    parse_call(text, len, "syscall", &r) < 0)
			return -EBADMSG;
		r.arch = (uint32_t)arch;
		break;
	case AUDIT_URINGOP:
		r.kind = AUDIT_KIND_URING;
		if (parse_call(text, len, "uring_op", &r) < 0)
			return -EBADMSG;
		r.uring_connect = r.nr == IORING_OP_CONNECT;
		break;
	case AUDIT_SOCKADDR:
		r.kind = AUDIT_KIND_SOCKADDR;
		if (find(text, len, "saddr", &v) < 0 || v.quoted ||
		    unhex(&v, r.sockaddr, sizeof(r.sockaddr), &r.sockaddr_len) < 0)
			return -EBADMSG;
		break;
	default: r.kind = AUDIT_KIND_END; break;
	}
	*ret = r;
	return 0;
}
