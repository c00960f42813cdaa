/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util.h"
#include "muxer.h"

#define HOST_CID	2u
#define CREDIT_LOW	4096u /* a guest that believes it has less room is sent an update */
#define GUEST_CLOSED_MS 2000u
#define CHUNK		16384u /* to the guest at once */

enum state { OPEN, HOST_CLOSED, GUEST_CLOSED };

struct muxer_connection {
	uint32_t guest_port, host_port;
	enum state state;
	int fd;
	bool send_response, send_credit, send_shutdown, send_reset; /* due to the guest */
	bool readable;
	/* Guest to host. The counters are of bytes since the beginning and wrap, as on the wire. */
	uint8_t *buffer;
	uint32_t begin, used;
	uint32_t forwarded, forwarded_told;
	/* Host to guest. */
	uint32_t sent, peer_forwarded, peer_buffer;
	unsigned guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_* */
	uint64_t drop_ns;
};

void muxer_init(struct muxer *muxer, struct vhost *vhost, const char *base)
{
	*muxer = (struct muxer){.vhost = vhost, .base = base};
}

static void free_connection(struct muxer_connection *c)
{
	close_fd(c->fd);
	free(c->buffer);
	free(c);
}

static void remove_at(struct muxer *muxer, unsigned i)
{
	free_connection(muxer->connections[i]);
	muxer->connections[i] = muxer->connections[--muxer->n];
}

void muxer_reset(struct muxer *muxer)
{
	while (muxer->n > 0)
		remove_at(muxer, muxer->n - 1);
	muxer->n_resets = 0;
}

/* ---- from the guest ---- */

static void queue_reset(struct muxer *muxer, const struct virtio_vsock_hdr *h)
{
	if (muxer->n_resets == MUXER_RESETS_MAX)
		return;
	muxer->resets[muxer->n_resets].guest_port = h->src_port;
	muxer->resets[muxer->n_resets++].host_port = h->dst_port;
}

/* Never waits: a full backlog is a refusal like any other. */
static int connect_host(const char *base, uint32_t port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", base, port);

	if (fd < 0)
		return -errno;
	if (n < 0 || (size_t)n >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return take_fd(&fd);
}

static void open_connection(struct muxer *muxer, const struct virtio_vsock_hdr *h)
{
	struct muxer_connection *c;
	int fd;

	if (muxer->n == MUXER_CONNECTIONS_MAX || h->type != VIRTIO_VSOCK_TYPE_STREAM) {
		queue_reset(muxer, h);
		return;
	}
	fd = connect_host(muxer->base, h->dst_port);
	c = fd < 0 ? NULL : calloc(1, sizeof(*c));
	if (c)
		c->buffer = malloc(MUXER_BUFFER);
	if (!c || !c->buffer) {
		close_fd(fd);
		free(c);
		queue_reset(muxer, h);
		return;
	}
	c->fd = fd;
	c->guest_port = h->src_port;
	c->host_port = h->dst_port;
	c->peer_buffer = h->buf_alloc;
	c->peer_forwarded = h->fwd_cnt;
	c->send_response = true;
	muxer->connections[muxer->n++] = c;
}

/* As much of the buffer as the Unix socket takes. */
static void flush(struct muxer_connection *c)
{
	while (c->used > 0) {
		const uint32_t part = MIN(c->used, MUXER_BUFFER - c->begin);
		ssize_t n = send(c->fd, c->buffer + c->begin, part, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			c->send_reset = true;
			break;
		}
		c->begin = (c->begin + (uint32_t)n) % MUXER_BUFFER;
		c->used -= (uint32_t)n;
		c->forwarded += (uint32_t)n;
	}
	if (c->state == OPEN &&
	    MUXER_BUFFER - (c->used + (c->forwarded - c->forwarded_told)) < CREDIT_LOW &&
	    c->forwarded != c->forwarded_told)
		c->send_credit = true;
	if (c->state == GUEST_CLOSED && c->used == 0)
		c->send_reset = true;
}

static void take_bytes(struct muxer_connection *c, const struct vhost_chain *chain, uint32_t len)
{
	size_t offset = sizeof(struct virtio_vsock_hdr);

	if (c->state != OPEN)
		return;
	/* More than the credit it was given. */
	if (len > MUXER_BUFFER - c->used || offset + len > chain->size) {
		c->send_reset = true;
		return;
	}
	while (len > 0) {
		const uint32_t at = (c->begin + c->used) % MUXER_BUFFER;
		const uint32_t n = MIN(len, MUXER_BUFFER - at);

		vhost_chain_read(chain, offset, c->buffer + at, n);
		c->used += n;
		offset += n;
		len -= n;
	}
	flush(c);
}

static void guest_shuts(struct muxer_connection *c, uint32_t flags)
{
	c->guest_shut |= flags & (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
	if (c->guest_shut != (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))
		return;
	if (c->state == HOST_CLOSED) {
		c->send_reset = true;
		return;
	}
	c->state = GUEST_CLOSED;
	c->drop_ns = monotonic_ns() + GUEST_CLOSED_MS * NSEC_PER_MSEC;
	flush(c);
}

static unsigned find(const struct muxer *muxer, const struct virtio_vsock_hdr *h)
{
	unsigned i = 0;

	while (i < muxer->n && (muxer->connections[i]->guest_port != h->src_port ||
				muxer->connections[i]->host_port != h->dst_port))
		i++;
	return i;
}

static void take_packet(struct muxer *muxer, const struct vhost_chain *chain)
{
	struct muxer_connection *c;
	struct virtio_vsock_hdr h;
	unsigned i;

	if (vhost_chain_read(chain, 0, &h, sizeof(h)) != sizeof(h) || h.dst_cid != HOST_CID ||
	    h.src_cid != muxer->vhost->guest_cid)
		return;
	i = find(muxer, &h);
	if (i == muxer->n) {
		if (h.op == VIRTIO_VSOCK_OP_REQUEST)
			open_connection(muxer, &h);
		else if (h.op != VIRTIO_VSOCK_OP_RST)
			queue_reset(muxer, &h);
		return;
	}
	c = muxer->connections[i];
	c->peer_buffer = h.buf_alloc;
	c->peer_forwarded = h.fwd_cnt;
	switch (h.op) {
	case VIRTIO_VSOCK_OP_RST: remove_at(muxer, i); break;
	case VIRTIO_VSOCK_OP_RW: take_bytes(c, chain, h.len); break;
	case VIRTIO_VSOCK_OP_SHUTDOWN: guest_shuts(c, h.flags); break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST: c->send_credit = true; break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE: break;
	default: c->send_reset = true; break;
	}
}

/* ---- to the guest ---- */

static uint32_t peer_room(const struct muxer_connection *c)
{
	const uint32_t on_its_way = c->sent - c->peer_forwarded;

	return on_its_way < c->peer_buffer ? c->peer_buffer - on_its_way : 0;
}

static void put_packet(struct muxer *muxer, const struct vhost_chain *chain,
		       struct virtio_vsock_hdr h, struct muxer_connection *c)
{
	h.src_cid = HOST_CID;
	h.dst_cid = muxer->vhost->guest_cid;
	h.type = VIRTIO_VSOCK_TYPE_STREAM;
	if (c) {
		h.src_port = c->host_port;
		h.dst_port = c->guest_port;
		h.buf_alloc = MUXER_BUFFER;
		h.fwd_cnt = c->forwarded_told = c->forwarded;
		c->send_credit = false;
	}
	vhost_chain_write(chain, 0, &h, sizeof(h));
	vhost_give(muxer->vhost, VHOST_QUEUE_RX, chain, sizeof(h) + h.len);
}

/* Bytes of the Unix socket as a packet; false when there were none and the chain is still ours. */
static bool put_bytes(struct muxer *muxer, const struct vhost_chain *chain,
		      struct muxer_connection *c)
{
	uint8_t bytes[CHUNK];
	const size_t head = sizeof(struct virtio_vsock_hdr);
	const size_t room = chain->size > head ? chain->size - head : 0;
	const size_t credit = MIN((size_t)peer_room(c), sizeof(bytes));
	ssize_t n;

	c->readable = false;
	/* No room in the guest's buffer is no end of the socket. */
	if (room == 0)
		return false;
	n = recv(c->fd, bytes, MIN(credit, room), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		c->state = HOST_CLOSED;
		c->send_shutdown = true;
		return false;
	}
	c->readable = true;
	c->sent += (uint32_t)n;
	vhost_chain_write(chain, head, bytes, (size_t)n);
	put_packet(muxer, chain,
		   (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RW, .len = (uint32_t)n}, c);
	return true;
}

/* Whether a connection has something for the guest. */
static bool wants_to_send(const struct muxer_connection *c)
{
	return c->send_reset || c->send_response || c->send_shutdown || c->send_credit ||
	       (c->state == OPEN && c->readable && peer_room(c) > 0);
}

/* One packet of the connection at i; false when the chain was not needed. */
static bool send_one(struct muxer *muxer, const struct vhost_chain *chain, unsigned i)
{
	struct muxer_connection *c = muxer->connections[i];

	if (c->send_reset) {
		put_packet(muxer, chain, (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RST}, c);
		remove_at(muxer, i);
		return true;
	}
	if (c->send_response) {
		c->send_response = false;
		put_packet(muxer, chain, (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RESPONSE},
			   c);
		return true;
	}
	if (c->state == OPEN && c->readable && peer_room(c) > 0 && put_bytes(muxer, chain, c))
		return true;
	if (c->send_shutdown) {
		c->send_shutdown = false;
		put_packet(muxer, chain,
			   (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_SHUTDOWN,
						     .flags = VIRTIO_VSOCK_SHUTDOWN_RCV |
							      VIRTIO_VSOCK_SHUTDOWN_SEND},
			   c);
		return true;
	}
	if (c->send_credit) {
		put_packet(muxer, chain,
			   (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE}, c);
		return true;
	}
	return false;
}

static void put_reset(struct muxer *muxer, const struct vhost_chain *chain)
{
	const unsigned i = --muxer->n_resets;

	put_packet(muxer, chain,
		   (struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RST,
					     .src_port = muxer->resets[i].host_port,
					     .dst_port = muxer->resets[i].guest_port},
		   NULL);
}

/* A connection in its turn that has something to send; muxer->n when there is none. */
static unsigned next_sender(struct muxer *muxer)
{
	for (unsigned k = 0; k < muxer->n; k++) {
		const unsigned i = (muxer->turn + k) % muxer->n;

		if (wants_to_send(muxer->connections[i])) {
			muxer->turn = i + 1;
			return i;
		}
	}
	return muxer->n;
}

static void send_all(struct muxer *muxer)
{
	struct vhost_chain chain;
	bool have = false;

	for (;;) {
		const unsigned i = muxer->n_resets ? 0 : next_sender(muxer);

		if (!muxer->n_resets && i == muxer->n)
			break;
		if (!have && !(have = vhost_take(muxer->vhost, VHOST_QUEUE_RX, true, &chain)))
			break;
		if (muxer->n_resets) {
			put_reset(muxer, &chain);
			have = false;
		} else if (send_one(muxer, &chain, i)) {
			have = false;
		}
	}
	/* Taken and not needed: the guest makes it available again only if it is not lost here. */
	if (have)
		muxer->vhost->queues[VHOST_QUEUE_RX].next--;
}

void muxer_turn(struct muxer *muxer)
{
	const uint64_t now = monotonic_ns();
	struct vhost_chain chain;

	while (vhost_take(muxer->vhost, VHOST_QUEUE_TX, false, &chain)) {
		take_packet(muxer, &chain);
		vhost_give(muxer->vhost, VHOST_QUEUE_TX, &chain, 0);
	}
	for (unsigned i = 0; i < muxer->n; i++) {
		struct muxer_connection *c = muxer->connections[i];

		if (c->state == GUEST_CLOSED && now >= c->drop_ns)
			c->send_reset = true;
	}
	send_all(muxer);
	vhost_signal(muxer->vhost);
}

void muxer_drain(struct muxer *muxer, uint64_t until_ns)
{
	for (unsigned i = 0; i < muxer->n; i++) {
		struct muxer_connection *c = muxer->connections[i];
		struct pollfd p = {.fd = c->fd, .events = POLLOUT};

		while (c->used > 0 && !c->send_reset && monotonic_ns() < until_ns) {
			poll(&p, 1, 100);
			flush(c);
		}
	}
}

/* ---- poll(2) ---- */

unsigned muxer_poll(struct muxer *muxer, struct pollfd *fds)
{
	for (unsigned i = 0; i < muxer->n; i++) {
		const struct muxer_connection *c = muxer->connections[i];
		const bool in = c->state == OPEN && !c->readable;
		const bool out = c->state != HOST_CLOSED && c->used > 0;

		/* A descriptor of -1 is left out: POLLHUP would be told again and again. */
		fds[i] = (struct pollfd){
			.fd = in || out ? c->fd : -1,
			.events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)),
		};
	}
	return muxer->n;
}

void muxer_ready(struct muxer *muxer, const struct pollfd *fds, unsigned n)
{
	for (unsigned i = 0; i < n && i < muxer->n; i++) {
		struct muxer_connection *c = muxer->connections[i];

		if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			c->readable = true;
		if (fds[i].revents & (POLLOUT | POLLERR))
			flush(c);
	}
}

int muxer_timeout(const struct muxer *muxer)
{
	const uint64_t now = monotonic_ns();
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < muxer->n; i++)
		if (muxer->connections[i]->state == GUEST_CLOSED)
			next = MIN(next, muxer->connections[i]->drop_ns);
	if (next == UINT64_MAX)
		return -1;
	return next <= now ? 0 : (int)((next - now) / NSEC_PER_MSEC) + 1;
}
