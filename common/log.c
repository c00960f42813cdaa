/* SPDX-License-Identifier: MIT */
#include "common/log.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>

_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a line is one atomic write");

static int max_priority = LOG_INFO;

void log_set_level(int priority)
{
	max_priority = priority;
}

int log_level_from_string(const char *s)
{
	static const char *const names[] = {
		[LOG_EMERG] = "emerg", [LOG_ALERT] = "alert",	  [LOG_CRIT] = "crit",
		[LOG_ERR] = "err",     [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
		[LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
	};

	for (int i = 0; i < (int)ARRAY_SIZE(names); i++)
		if (strcmp(s, names[i]) == 0 || (s[0] == '0' + i && s[1] == '\0'))
			return i;
	return -EINVAL;
}

void log_line(int priority, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	int saved = errno, prefix, n;
	size_t len;
	va_list ap;

	if (priority > max_priority)
		return;
	prefix = snprintf(line, sizeof(line), "<%d>", priority);
	va_start(ap, fmt);
	n = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	len = MIN((size_t)prefix + (size_t)n, sizeof(line) - 2);
	line[len++] = '\n';
	/*
	 * A log that cannot be written must not stop the program. A pipe that is writable takes
	 * PIPE_BUF bytes without blocking, and a line is shorter. Another process can fill the pipe
	 * between the check and the write: a program that shares its stderr makes it non-blocking
	 * first (harden_log()). A policy may refuse send(2), with EPERM.
	 */
	if (poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, 0) > 0 &&
	    send(STDERR_FILENO, line, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    (errno == ENOTSOCK || errno == EPERM) && write(STDERR_FILENO, line, len) < 0)
		(void)0;
	errno = saved;
}

const char *log_escape(char *out, size_t size, const char *data, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	/* Room for the end of the value: "..." and the closing quote. */
	const size_t tail = 4;
	size_t used = 0;

	if (size < tail + 2) {
		if (size > 0)
			out[0] = '\0';
		return out;
	}
	out[used++] = '"';
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		bool plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';

		if (used + (plain ? 1 : 4) + tail >= size) {
			memcpy(out + used, "...", 3);
			used += 3;
			break;
		}
		if (plain) {
			out[used++] = (char)c;
		} else {
			out[used++] = '\\';
			out[used++] = 'x';
			out[used++] = hex[c >> 4];
			out[used++] = hex[c & 15];
		}
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}
