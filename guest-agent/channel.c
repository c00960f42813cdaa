/* SPDX-License-Identifier: MIT */
#include "guest-agent/channel.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/util.h"

#define SEND_IOV_MAX   64u
#define SEND_CALLS_MAX 16u /* sendmsg calls in a turn: the sources need their turn too */
#define READ_CALLS_MAX 16u

static int parse_vsock(const char *s, struct channel_address *ret, char why[CHANNEL_WHY_MAX])
{
	const char *colon = strchr(s, ':');
	uint64_t cid, port;
	char cid_text[16];

	if (!colon || (size_t)(colon - s) >= sizeof(cid_text)) {
		snprintf(why, CHANNEL_WHY_MAX, "expected vsock:CID:PORT");
		return -EINVAL;
	}
	memcpy(cid_text, s, (size_t)(colon - s));
	cid_text[colon - s] = '\0';
	if (parse_u64(cid_text, 0, UINT32_MAX - 1, &cid) < 0 ||
	    parse_u64(colon + 1, 1, UINT32_MAX - 1, &port) < 0) {
		snprintf(why, CHANNEL_WHY_MAX,
			 "expected vsock:CID:PORT with decimal numbers below 4294967295");
		return -EINVAL;
	}
	*ret = (struct channel_address){
		.len = sizeof(ret->vm),
		.vm = {.svm_family = AF_VSOCK,
		       .svm_cid = (unsigned)cid,
		       .svm_port = (unsigned)port},
	};
	return 0;
}

static int parse_unix(const char *path, struct channel_address *ret, char why[CHANNEL_WHY_MAX])
{
	struct channel_address a = {.len = sizeof(a.un), .un.sun_family = AF_UNIX};
	const size_t len = strlen(path);

	/* The agent changes to / before it connects, so a relative path would lead elsewhere. */
	if (path[0] != '/' || len >= sizeof(a.un.sun_path)) {
		snprintf(why, CHANNEL_WHY_MAX,
			 "expected unix:PATH with an absolute path of at most %zu bytes",
			 sizeof(a.un.sun_path) - 1);
		return -EINVAL;
	}
	memcpy(a.un.sun_path, path, len);
	*ret = a;
	return 0;
}

int channel_address_parse(const char *s, struct channel_address *ret, char why[CHANNEL_WHY_MAX])
{
	static const char vsock[] = "vsock:", unix_path[] = "unix:";

	if (strncmp(s, vsock, sizeof(vsock) - 1) == 0)
		return parse_vsock(s + sizeof(vsock) - 1, ret, why);
	if (strncmp(s, unix_path, sizeof(unix_path) - 1) == 0)
		return parse_unix(s + sizeof(unix_path) - 1, ret, why);
	snprintf(why, CHANNEL_WHY_MAX, "expected vsock:CID:PORT or unix:PATH");
	return -EINVAL;
}

void channel_init(struct channel *ch, const struct channel_address *address, int epoll_fd)
{
	*ch = (struct channel){
		.address = *address,
		.epoll_fd = epoll_fd,
		.fd = -1,
		.backoff_ms = CHANNEL_BACKOFF_MIN_MS,
	};
	/*
	 * It only keeps a thousand guests from connecting in step, so the clock is random enough if
	 * there is nothing else.
	 */
	if (getrandom(&ch->random, sizeof(ch->random), GRND_NONBLOCK) != sizeof(ch->random))
		ch->random = monotonic_ns();
	ch->random |= 1;
}

void channel_greet(struct channel *ch, const uint8_t *frame, size_t len)
{
	memcpy(ch->hello, frame, len);
	ch->hello_len = len;
	ch->hello_sent = 0;
}

void channel_close(struct channel *ch)
{
	/* Closing takes the descriptor out of the epoll set. */
	close_fd(take_fd(&ch->fd));
	ch->wants_out = ch->readable = ch->ended = ch->settled_due = false;
	ch->state = CHANNEL_WAITING;
}

void channel_progress(struct channel *ch)
{
	ch->backoff_ms = CHANNEL_BACKOFF_MIN_MS;
}

void channel_reconnect(struct channel *ch, uint64_t now_ns)
{
	channel_close(ch);
	ch->deadline_ns = now_ns;
}

/* Half of the back-off for certain, the other half at random (xorshift64). */
static uint64_t jittered_ns(struct channel *ch)
{
	const uint64_t half = ch->backoff_ms * NSEC_PER_MSEC / 2;

	ch->random ^= ch->random << 13;
	ch->random ^= ch->random >> 7;
	ch->random ^= ch->random << 17;
	return half + ch->random % half;
}

/*
 * The error that ended a connection. After the reset of a transport, send(2) and recv(2) on
 * AF_VSOCK only report that the socket is not connected; the reset is the socket's pending error
 * (Linux: virtio_vsock_reset_sock() and vsock_connectible_recvmsg()).
 */
static int true_error(const struct channel *ch, int error)
{
	socklen_t len = sizeof(int);
	int pending = 0;

	if (error != ENOTCONN && error != EPIPE)
		return error;
	if (getsockopt(ch->fd, SOL_SOCKET, SO_ERROR, &pending, &len) < 0 || !pending)
		return error;
	return pending;
}

/*
 * During a reset a send fails because the device is gone before the sockets are reset. The kernel
 * returns ENOMEM for every error of the transport, or ENODEV (Linux: vsock_connectible_sendmsg(),
 * virtio_transport_send_pkt()). Treating it as a reset only costs a new session.
 */
static bool is_reset(const struct channel *ch, int error)
{
	return (error == ECONNRESET || error == ENOMEM || error == ENODEV) &&
	       ch->address.any.sa_family == AF_VSOCK;
}

static enum channel_event give_up(struct channel *ch, int error, uint64_t now_ns)
{
	const bool was_connected = channel_connected(ch);

	if (was_connected)
		error = true_error(ch, error);
	if (was_connected && !ch->progress_only &&
	    now_ns - ch->connected_ns >= CHANNEL_GOOD_MS * NSEC_PER_MSEC)
		ch->backoff_ms = CHANNEL_BACKOFF_MIN_MS;
	if (was_connected)
		ch->reset = is_reset(ch, error);
	ch->last_errno = error;
	channel_close(ch);
	ch->deadline_ns = now_ns + jittered_ns(ch);
	ch->backoff_ms = MIN(ch->backoff_ms * 2, CHANNEL_BACKOFF_MAX_MS);
	return was_connected ? CHANNEL_LOST : CHANNEL_NOTHING;
}

static void arm(struct channel *ch, bool out)
{
	struct epoll_event ev = {
		.events = EPOLLIN | EPOLLRDHUP | (out ? (uint32_t)EPOLLOUT : 0u),
		.data.ptr = ch,
	};

	if (out == ch->wants_out)
		return;
	ch->wants_out = out;
	epoll_ctl(ch->epoll_fd, EPOLL_CTL_MOD, ch->fd, &ev);
}

static enum channel_event connected(struct channel *ch, uint64_t now_ns)
{
	ch->state = CHANNEL_GREETING;
	ch->connected_ns = now_ns;
	ch->deadline_ns = 0;
	ch->hello_len = ch->hello_sent = ch->ack_len = 0;
	ch->taken = 0;
	ch->deaf = false;
	return CHANNEL_CONNECTED;
}

static enum channel_event begin_connect(struct channel *ch, uint64_t now_ns)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLOUT, .data.ptr = ch};

	ch->fd = socket(ch->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (ch->fd < 0)
		return give_up(ch, errno, now_ns);
	if (epoll_ctl(ch->epoll_fd, EPOLL_CTL_ADD, ch->fd, &ev) < 0)
		return give_up(ch, errno, now_ns);
	ch->wants_out = true;
	if (connect(ch->fd, &ch->address.any, ch->address.len) == 0)
		return connected(ch, now_ns);
	if (errno != EINPROGRESS)
		return give_up(ch, errno, now_ns);
	ch->state = CHANNEL_CONNECTING;
	ch->deadline_ns = now_ns + CHANNEL_CONNECT_TIMEOUT_MS * NSEC_PER_MSEC;
	return CHANNEL_NOTHING;
}

static enum channel_event finish_connect(struct channel *ch, uint64_t now_ns)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(int), peer_len = sizeof(peer);
	int error = 0;

	if (getsockopt(ch->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error)
		return give_up(ch, error, now_ns);
	/* No error and no peer: the connect has not finished. */
	if (getpeername(ch->fd, (struct sockaddr *)&peer, &peer_len) == 0)
		return connected(ch, now_ns);
	return now_ns >= ch->deadline_ns ? give_up(ch, ETIMEDOUT, now_ns) : CHANNEL_NOTHING;
}

/* Of several acknowledgements the last one counts: they only grow. */
static void take_bytes(struct channel *ch, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && !ch->deaf; i++) {
		if (ch->ack_len == 0 && data[i] == WIRE_LIVENESS_BYTE)
			continue;
		if (ch->ack_len == 0 && data[i] != WIRE_ACK_BYTE) {
			ch->deaf = true;
			break;
		}
		ch->ack[ch->ack_len++] = data[i];
		if (ch->ack_len < WIRE_ACK_SIZE)
			continue;
		ch->ack_len = 0;
		ch->settled = wire_ack_decode(ch->ack);
		ch->settled_due = true;
	}
}

/* Read what the host sent. Returns 1 at the end of the stream, 0, or a negative errno. */
static int read_input(struct channel *ch)
{
	uint8_t buf[256];

	for (unsigned i = 0; i < READ_CALLS_MAX; i++) {
		ssize_t n = recv(ch->fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n == 0)
			return 1;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		take_bytes(ch, buf, (size_t)n);
	}
	return 0;
}

/* Returns the bytes sent, 0 if the host takes no more now, or a negative errno. */
static ssize_t send_some(int fd, struct iovec *iov, size_t n)
{
	struct msghdr msg = {.msg_iov = iov};
	ssize_t sent;

	/* Its type differs between C libraries. */
	msg.msg_iovlen = (__typeof__(msg.msg_iovlen))n;
	do
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
	return sent;
}

/* A send failed. Acknowledgements that arrived before can still be read. */
static enum channel_event end(struct channel *ch, int error, uint64_t now_ns)
{
	read_input(ch);
	ch->ended = true;
	ch->end_error = error;
	if (!ch->settled_due)
		return give_up(ch, error, now_ns);
	ch->settled_due = false;
	return CHANNEL_SETTLED;
}

static enum channel_event send_hello(struct channel *ch, uint64_t now_ns)
{
	while (ch->hello_sent < ch->hello_len) {
		struct iovec iov = {.iov_base = ch->hello + ch->hello_sent,
				    .iov_len = ch->hello_len - ch->hello_sent};
		ssize_t n = send_some(ch->fd, &iov, 1);

		if (n < 0)
			return end(ch, (int)-n, now_ns);
		if (n == 0) {
			arm(ch, true);
			return CHANNEL_NOTHING;
		}
		ch->hello_sent += (size_t)n;
		ch->taken += (size_t)n;
	}
	ch->state = CHANNEL_OPEN;
	return CHANNEL_READY;
}

static enum channel_event send_queue(struct channel *ch, struct event_queue *q, uint64_t now_ns)
{
	for (unsigned i = 0; i < SEND_CALLS_MAX; i++) {
		struct iovec iov[SEND_IOV_MAX];
		size_t n_iov = event_queue_peek(q, iov, SEND_IOV_MAX);
		ssize_t n;

		if (n_iov == 0) {
			arm(ch, false);
			return CHANNEL_NOTHING;
		}
		n = send_some(ch->fd, iov, n_iov);
		if (n < 0)
			return end(ch, (int)-n, now_ns);
		if (n == 0)
			break;
		event_queue_sent(q, (size_t)n);
		ch->taken += (size_t)n;
	}
	/*
	 * The socket is full, or this turn's share is used: EPOLLOUT wakes the loop when there is
	 * room.
	 */
	arm(ch, true);
	return CHANNEL_NOTHING;
}

enum channel_event channel_turn(struct channel *ch, struct event_queue *q, uint64_t now_ns)
{
	int r = 0;

	if (ch->state == CHANNEL_WAITING)
		return now_ns >= ch->deadline_ns ? begin_connect(ch, now_ns) : CHANNEL_NOTHING;
	if (ch->state == CHANNEL_CONNECTING)
		return finish_connect(ch, now_ns);
	if (ch->readable)
		r = read_input(ch);
	ch->readable = false;
	if (r != 0) {
		ch->ended = true;
		ch->end_error = r < 0 ? -r : 0;
	}
	/* Acknowledgements that arrived before the end count. */
	if (ch->settled_due) {
		ch->settled_due = false;
		return CHANNEL_SETTLED;
	}
	if (ch->ended)
		return give_up(ch, ch->end_error, now_ns);
	return ch->state == CHANNEL_GREETING ? send_hello(ch, now_ns) : send_queue(ch, q, now_ns);
}
