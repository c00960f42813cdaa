/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/connection.h"

#include <sys/ioctl.h>

#include "common/util.h"

struct connection *connection_new(uv_loop_t *loop, int fd, uint8_t *buffer,
				  const struct connection_ops *ops, void *ctx)
{
	struct connection *c = calloc(1, sizeof(*c));
	socklen_t len = sizeof(c->peer);

	if (!c || uv_poll_init(loop, &c->poll, fd) < 0) {
		free(c);
		close_fd(fd);
		return NULL;
	}
	c->ops = ops;
	c->ctx = ctx;
	c->buffer = buffer;
	c->fd = fd;
	c->poll.data = c;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &len);
	return c;
}

static void on_event(uv_poll_t *handle, int status, int events)
{
	struct connection *c = handle->data;

	/* The read will return the error as well. */
	if (status < 0)
		events = c->polled;
	if (events & UV_WRITABLE)
		c->ops->writable(c->ctx, c);
	/* If the owner has closed it, the poll is stopped. */
	if (events & c->polled & UV_READABLE)
		c->ops->readable(c->ctx, c);
}

void connection_poll(struct connection *c, bool readable, bool writable)
{
	const int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);

	if (events == c->polled)
		return;
	c->polled = events;
	if (events)
		uv_poll_start(&c->poll, events, on_event);
	else
		uv_poll_stop(&c->poll);
}

/* ---- bytes to frames ---- */

/* False when the prefix announces a size that no frame may have; it was reported. */
static bool check_length(struct connection *c, uint32_t body)
{
	if (body >= 1 && body <= WIRE_BODY_ACCEPT_MAX)
		return true;
	c->ops->violation(c->ctx, c, &(struct wire_refusal){.error = WIRE_FRAME_LENGTH});
	return false;
}

static bool append(struct connection *c, const uint8_t *data, size_t n, size_t whole)
{
	if (whole > c->size) {
		uint8_t *partial = realloc(c->partial, whole);

		if (!partial)
			return false;
		c->partial = partial;
		c->size = whole;
	}
	memcpy(c->partial + c->have, data, n);
	c->have += n;
	return true;
}

static void forget_partial(struct connection *c)
{
	free(take_ptr(c->partial));
	c->have = c->size = 0;
}

/*
 * Split the bytes that were read into frames. Returns false when the connection must end; the
 * reason was reported. Whole frames are used in the read buffer; only a frame that the end of the
 * buffer cuts is copied.
 */
static bool feed(struct connection *c, const uint8_t *data, size_t len)
{
	while (len > 0) {
		const bool kept = c->have > 0;
		const uint8_t *frame = kept ? c->partial : data;
		const size_t seen = kept ? c->have : len;
		size_t whole = WIRE_PREFIX_SIZE, take;

		if (seen >= WIRE_PREFIX_SIZE) {
			const uint32_t body = wire_decode_length(frame);

			if (!check_length(c, body))
				return false;
			whole += body;
		}
		if (!kept && len >= whole && whole > WIRE_PREFIX_SIZE) {
			if (!c->ops->frame(c->ctx, c, data + WIRE_PREFIX_SIZE,
					   whole - WIRE_PREFIX_SIZE))
				return false;
			data += whole;
			len -= whole;
			continue;
		}
		take = MIN(len, whole - c->have);
		if (!append(c, data, take, whole))
			return false;
		data += take;
		len -= take;
		if (c->have < whole || whole == WIRE_PREFIX_SIZE)
			continue;
		if (!c->ops->frame(c->ctx, c, c->partial + WIRE_PREFIX_SIZE,
				   whole - WIRE_PREFIX_SIZE))
			return false;
		forget_partial(c);
	}
	return true;
}

ssize_t connection_read(struct connection *c, size_t size)
{
	ssize_t n = recv(c->fd, c->buffer, MIN(size, (size_t)CONNECTION_READ_SIZE), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0) {
		c->bytes += (uint64_t)n;
		c->ops->bytes(c->ctx, (size_t)n);
		if (feed(c, c->buffer, (size_t)n))
			return n;
		c->ops->ended(c->ctx, c, "wire_error");
		return -1;
	}
	c->at_end = true;
	if (c->have > 0) {
		/* The stream ended inside a frame. */
		c->ops->violation(c->ctx, c,
				  &(struct wire_refusal){
					  .error = WIRE_TRUNCATED,
					  .offset = c->have > WIRE_PREFIX_SIZE
							    ? c->have - WIRE_PREFIX_SIZE
							    : 0,
				  });
		c->ops->ended(c->ctx, c, "wire_error");
	} else {
		c->ops->ended(c->ctx, c, n == 0 ? "eof" : "read_error");
	}
	return -1;
}

/* ---- bytes to the guest ---- */

bool connection_flush(struct connection *c)
{
	const uint8_t *at = c->ack + WIRE_ACK_SIZE - c->ack_left;
	ssize_t n;

	if (c->ack_left == 0)
		return true;
	n = send(c->fd, at, c->ack_left, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		c->ack_left -= (size_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		/* The connection is dead: the next read returns that. */
		c->ack_left = 0;
	return c->ack_left == 0;
}

bool connection_ack(struct connection *c, uint64_t settled)
{
	if (!connection_flush(c))
		return false;
	wire_ack_encode(c->ack, settled);
	c->ack_left = WIRE_ACK_SIZE;
	c->acked = settled;
	connection_flush(c);
	return true;
}

bool connection_ask(struct connection *c)
{
	static const uint8_t byte = WIRE_LIVENESS_BYTE;

	/*
	 * If the socket's buffer is full, the connection counts as alive. The byte must not be sent
	 * inside an acknowledgement.
	 */
	if (!connection_flush(c))
		return true;
	return send(c->fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 || errno == EAGAIN;
}

uint64_t connection_unread(const struct connection *c)
{
	int n = 0;

	return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0 ? (uint64_t)n : 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data;
	const struct connection_ops *ops = c->ops;
	void *ctx = c->ctx;

	free(c->partial);
	free(c);
	ops->closed(ctx);
}

void connection_close(struct connection *c)
{
	connection_poll(c, false, false);
	uv_close((uv_handle_t *)&c->poll, on_closed);
	close_fd(take_fd(&c->fd));
}
