/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/link.h"

#include <sys/socket.h>

#include "common/util.h"

static const char *const state_names[] = {
	[FORWARD_WAITING] = "waiting",
	[FORWARD_CONNECTED] = "connected",
};
_Static_assert(ARRAY_SIZE(state_names) == _FORWARD_STATE_MAX, "a name for each");

const char *forward_state_name(enum forward_state state)
{
	return state_names[state];
}

static const char *const error_names[] = {
	[FORWARD_OK] = "ok",
	[FORWARD_CONNECT] = "connect",
	[FORWARD_CREDENTIALS] = "credentials",
	[FORWARD_TLS] = "tls",
	[FORWARD_DISCONNECTED] = "disconnected",
	[FORWARD_TIMEOUT] = "timeout",
	[FORWARD_NO_JETSTREAM] = "no_jetstream",
	[FORWARD_NO_STREAM] = "no_stream",
	[FORWARD_WRONG_STREAM] = "wrong_stream",
	[FORWARD_STREAM] = "stream",
	[FORWARD_FULL] = "full",
	[FORWARD_TOO_LARGE] = "too_large",
	[FORWARD_REFUSED] = "refused",
	[FORWARD_READ] = "read",
};
_Static_assert(ARRAY_SIZE(error_names) == _FORWARD_ERROR_MAX, "a name for each");

const char *forward_error_name(enum forward_error error)
{
	return error_names[error];
}

/*
 * Returns 1; 0: no packet is there; -EPIPE: the other side has ended; -EBADMSG: a packet of another
 * size.
 */
static int take(int fd, void *data, size_t size)
{
	ssize_t n;

	do
		n = recv(fd, data, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return -EPIPE;
	if (n < 0)
		return -errno;
	return (size_t)n == size ? 1 : -EBADMSG;
}

static int put(int fd, const void *data, size_t size)
{
	return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size ? 0 : -errno;
}

int link_take_order(int fd, struct link_order *ret)
{
	return take(fd, ret, sizeof(*ret));
}

void link_put_status(int fd, const struct forward_status *status)
{
	put(fd, status, sizeof(*status));
}

int link_put_order(int fd, const struct link_order *order)
{
	return put(fd, order, sizeof(*order));
}

int link_take_status(int fd, struct forward_status *ret)
{
	return take(fd, ret, sizeof(*ret));
}
