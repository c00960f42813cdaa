/* SPDX-License-Identifier: MIT */
/*
 * The guest's half of what a VMM does for vsock: takes connections to AF_VSOCK ports (CID 2 is
 * routed to this same guest by vsock_loopback) and to VM_CONTROL_PATH, and carries them over the
 * virtio-serial port to the harness (mux.h). Ports are listened on while somebody listens on the
 * host, so that otherwise a connect is refused as a VMM refuses it.
 *
 * A turn: state that is due becomes frames as far as the out-buffer has room, what is readable of
 * the connections becomes frames as far as room and credit go, the out-buffer is written as far
 * as the port takes it, sleep. Every buffer is bounded; a full one means not reading.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util.h"
#include "guest.h"
#include "mux.h"

#define CONNECTIONS_MAX 256u
#define LISTENERS_MAX	8u
#define OUT_SIZE	(256u * 1024)
#define PORT_NAME	"cellos.vm"

/* How often a half-closed connection is asked whether its peer is gone altogether. */
#define HALF_CLOSED_POLL_MS 50

struct connection {
	int fd; /* owned; -1: the entry is free */
	uint32_t id;
	uint32_t port;
	uint32_t credit;     /* bytes the host still takes */
	uint32_t credit_due; /* bytes passed on to the guest that the host does not know of */
	bool opened;	     /* MUX_OPEN was sent */
	bool guest_eof;	     /* the guest has ended its direction */
	bool eof_sent;
	bool guest_gone;	/* nobody reads the other end any more */
	bool host_gone;		/* MUX_CLOSE came; close once drained */
	uint32_t head, pending; /* ring of bytes on their way to the guest */
	uint8_t ring[MUX_WINDOW];
};

struct listener {
	int fd; /* owned; -1: free */
	uint32_t port;
};

/* One thread owns all of this; static, because it is larger than a stack should be. */
static struct relay {
	int port_fd;
	int control_fd;
	struct listener listeners[LISTENERS_MAX];
	struct connection connections[CONNECTIONS_MAX];
	uint32_t last_id;
	bool started, stopping, bye_sent, bye_received;
	size_t out_len, in_len;
	uint8_t out[OUT_SIZE];
	uint8_t in[4 * (sizeof(struct mux_header) + MUX_CHUNK)];
} relay;

static _Noreturn _printf_(1, 2) void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("vm-relay: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	_exit(1);
}

static size_t out_room(void)
{
	return OUT_SIZE - relay.out_len;
}

/* The caller has checked out_room(). */
static void put_frame(enum mux_type type, uint32_t connection, const void *payload, size_t len)
{
	struct mux_header header = {
		.type = (uint8_t)type, .length = (uint16_t)len, .connection = connection};

	memcpy(relay.out + relay.out_len, &header, sizeof(header));
	memcpy(relay.out + relay.out_len + sizeof(header), payload, len);
	relay.out_len += sizeof(header) + len;
}

static bool put_u32(enum mux_type type, uint32_t connection, uint32_t value)
{
	if (out_room() < sizeof(struct mux_header) + sizeof(value))
		return false;
	put_frame(type, connection, &value, sizeof(value));
	return true;
}

static bool put_empty(enum mux_type type, uint32_t connection)
{
	if (out_room() < sizeof(struct mux_header))
		return false;
	put_frame(type, connection, "", 0);
	return true;
}

static struct connection *find_connection(uint32_t id)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (relay.connections[i].fd >= 0 && relay.connections[i].id == id)
			return &relay.connections[i];
	return NULL;
}

static void add_connection(int fd, uint32_t port)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &relay.connections[i];

		if (c->fd >= 0)
			continue;
		*c = (struct connection){
			.fd = fd, .id = ++relay.last_id, .port = port, .credit = MUX_WINDOW};
		return;
	}
	close(fd);
}

static void accept_all(int listener, uint32_t port)
{
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		add_connection(fd, port);
}

static void drop_connection(struct connection *c)
{
	close(c->fd);
	c->fd = -1;
}

static void listen_on(uint32_t port)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
	_cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 128) < 0)
		fail("cannot listen on vsock port %u: %s", port, strerror(errno));
	for (size_t i = 0; i < LISTENERS_MAX; i++) {
		if (relay.listeners[i].fd >= 0)
			continue;
		relay.listeners[i] = (struct listener){.fd = take_fd(&fd), .port = port};
		return;
	}
	fail("more than %u ports", LISTENERS_MAX);
}

static void stop_listening(uint32_t port)
{
	for (size_t i = 0; i < LISTENERS_MAX; i++) {
		if (relay.listeners[i].fd < 0 || relay.listeners[i].port != port)
			continue;
		close(relay.listeners[i].fd);
		relay.listeners[i].fd = -1;
	}
}

/* Bytes from the host into the ring; the window says that they fit. */
static void take_data(struct connection *c, const uint8_t *data, uint32_t len)
{
	if (len > MUX_WINDOW - c->pending)
		fail("the host sent more than the window of connection %u", c->id);
	for (uint32_t done = 0; done < len;) {
		uint32_t tail = (c->head + c->pending) % MUX_WINDOW;
		uint32_t n = MIN(len - done, MUX_WINDOW - tail);

		memcpy(c->ring + tail, data + done, n);
		c->pending += n;
		done += n;
	}
}

static void take_frame(const struct mux_header *header, const uint8_t *payload)
{
	struct connection *c = find_connection(header->connection);
	uint32_t value = 0;

	if (header->length == sizeof(value))
		memcpy(&value, payload, sizeof(value));
	switch ((enum mux_type)header->type) {
	case MUX_START: relay.started = true; return;
	case MUX_LISTEN: listen_on(header->connection); return;
	case MUX_UNLISTEN: stop_listening(header->connection); return;
	case MUX_BYE: relay.bye_received = true; return;
	case MUX_DATA:
		if (c)
			take_data(c, payload, header->length);
		return;
	case MUX_CREDIT:
		if (c)
			c->credit += value;
		return;
	case MUX_CLOSE:
		if (c)
			c->host_gone = true;
		return;
	case MUX_OPEN:
	case MUX_EOF: break;
	}
	fail("unexpected frame type %u", header->type);
}

static void read_port(void)
{
	size_t used = 0;
	ssize_t n = read(relay.port_fd, relay.in + relay.in_len, sizeof(relay.in) - relay.in_len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		fail("virtio port: %s", n < 0 ? strerror(errno) : "the harness is gone");
	relay.in_len += (size_t)n;
	for (;;) {
		struct mux_header header;

		if (relay.in_len - used < sizeof(header))
			break;
		memcpy(&header, relay.in + used, sizeof(header));
		if (header.length > MUX_CHUNK)
			fail("a frame of %u bytes", header.length);
		if (relay.in_len - used < sizeof(header) + header.length)
			break;
		take_frame(&header, relay.in + used + sizeof(header));
		used += sizeof(header) + header.length;
	}
	relay.in_len -= used;
	memmove(relay.in, relay.in + used, relay.in_len);
}

static void write_port(void)
{
	while (relay.out_len > 0) {
		ssize_t n = write(relay.port_fd, relay.out, relay.out_len);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			fail("virtio port: %s", strerror(errno));
		relay.out_len -= (size_t)n;
		memmove(relay.out, relay.out + n, relay.out_len);
	}
}

/*
 * Whether the guest closed its socket, or only ended its own direction: after a close the kernel
 * refuses even an empty send.
 */
static bool peer_is_gone(int fd)
{
	return send(fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
}

/* Guest -> out-buffer, as far as room and credit go. */
static void read_guest(struct connection *c)
{
	while (!c->guest_eof && !c->guest_gone && c->credit > 0 &&
	       out_room() >= sizeof(struct mux_header) + MUX_CHUNK) {
		uint8_t data[MUX_CHUNK];
		ssize_t n = recv(c->fd, data, MIN(sizeof(data), (size_t)c->credit), 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			c->guest_gone = true;
		} else if (n == 0) {
			c->guest_eof = true;
		} else {
			put_frame(MUX_DATA, c->id, data, (size_t)n);
			c->credit -= (uint32_t)n;
		}
	}
}

/* Ring -> guest. */
static void write_guest(struct connection *c)
{
	while (c->pending > 0) {
		uint32_t n = MIN(c->pending, MUX_WINDOW - c->head);
		ssize_t sent = send(c->fd, c->ring + c->head, n, MSG_NOSIGNAL);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (sent < 0) {
			/* Its bytes to us may still be there to read. */
			c->credit_due += c->pending;
			c->pending = 0;
			break;
		}
		c->head = (c->head + (uint32_t)sent) % MUX_WINDOW;
		c->pending -= (uint32_t)sent;
		c->credit_due += (uint32_t)sent;
	}
}

/* Everything of a connection that can go on now. */
static void serve_connection(struct connection *c)
{
	write_guest(c);
	if (!c->opened)
		c->opened = put_u32(MUX_OPEN, c->id, c->port);
	if (!c->opened)
		return;
	if (c->host_gone && c->pending == 0) {
		drop_connection(c);
		return;
	}
	if (!c->host_gone)
		read_guest(c);
	if (c->credit_due > 0 && put_u32(MUX_CREDIT, c->id, c->credit_due))
		c->credit_due = 0;
	if (c->guest_eof && !c->guest_gone)
		c->guest_gone = peer_is_gone(c->fd);
	if (c->guest_eof && !c->guest_gone && !c->eof_sent)
		c->eof_sent = put_empty(MUX_EOF, c->id);
	if (c->guest_gone && put_empty(MUX_CLOSE, c->id))
		drop_connection(c);
}

static void serve_connections(void)
{
	size_t open = 0;

	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (relay.connections[i].fd >= 0)
			serve_connection(&relay.connections[i]);
		open += relay.connections[i].fd >= 0;
	}
	if (relay.stopping && open == 0 && !relay.bye_sent)
		relay.bye_sent = put_empty(MUX_BYE, 0);
}

/* The descriptors' places in the poll set: the port, the signals, the control listener, then */
enum { POLL_PORT, POLL_SIGNAL, POLL_CONTROL, POLL_LISTENERS };
#define POLL_CONNECTIONS (POLL_LISTENERS + LISTENERS_MAX)
#define POLL_MAX	 (POLL_CONNECTIONS + CONNECTIONS_MAX)

/* Fills fds (an fd of -1 is ignored by poll) and returns the timeout. */
static int fill_poll(struct pollfd *fds, int signals)
{
	bool can_read = out_room() >= sizeof(struct mux_header) + MUX_CHUNK;
	int timeout = -1;

	fds[POLL_PORT] = (struct pollfd){
		.fd = relay.port_fd, .events = (short)(POLLIN | (relay.out_len > 0 ? POLLOUT : 0))};
	fds[POLL_SIGNAL] = (struct pollfd){.fd = signals, .events = POLLIN};
	fds[POLL_CONTROL] = (struct pollfd){.fd = relay.control_fd, .events = POLLIN};
	for (size_t i = 0; i < LISTENERS_MAX; i++)
		fds[POLL_LISTENERS + i] =
			(struct pollfd){.fd = relay.listeners[i].fd, .events = POLLIN};
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *c = &relay.connections[i];
		short events = 0;

		if (c->fd >= 0 && c->pending > 0)
			events |= POLLOUT;
		if (c->fd >= 0 && !c->guest_eof && !c->host_gone && c->credit > 0 && can_read)
			events |= POLLIN;
		/* Not with no events: poll would report a hang-up again and again. */
		fds[POLL_CONNECTIONS + i] =
			(struct pollfd){.fd = events ? c->fd : -1, .events = events};
		if (c->fd >= 0 && (c->guest_eof || c->host_gone))
			timeout = HALF_CLOSED_POLL_MS;
	}
	return timeout;
}

static void turn(int signals)
{
	static struct pollfd fds[POLL_MAX];
	int timeout = fill_poll(fds, signals);

	if (poll(fds, POLL_MAX, timeout) < 0 && errno != EINTR)
		fail("poll: %s", strerror(errno));
	if (fds[POLL_SIGNAL].revents) {
		relay.stopping = true;
		close_fd(relay.control_fd);
		relay.control_fd = -1;
	}
	if (fds[POLL_PORT].revents & (POLLIN | POLLHUP | POLLERR))
		read_port();
	if (fds[POLL_CONTROL].revents && !relay.stopping)
		accept_all(relay.control_fd, MUX_PORT_CONTROL);
	for (size_t i = 0; i < LISTENERS_MAX; i++)
		if (relay.listeners[i].fd >= 0)
			accept_all(relay.listeners[i].fd, relay.listeners[i].port);
	serve_connections();
	write_port();
}

/* The device of the virtio-serial port called PORT_NAME; there is no udev to link it by name. */
static int open_port(void)
{
	static const char class[] = "/sys/class/virtio-ports";
	DIR *ports;
	struct dirent *entry;
	int ret = -ENODEV;

	ports = opendir(class);
	if (!ports)
		return -errno;
	while (ret == -ENODEV && (entry = readdir(ports))) {
		char path[sizeof(class) + sizeof(entry->d_name) + 8], name[64] = "";
		_cleanup_fclose_ FILE *f = NULL;

		snprintf(path, sizeof(path), "%s/%s/name", class, entry->d_name);
		f = fopen(path, "re");
		if (!f || !fgets(name, sizeof(name), f))
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (strcmp(name, PORT_NAME) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		ret = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (ret < 0)
			ret = -errno;
	}
	closedir(ports);
	return ret;
}

static int listen_control(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = VM_CONTROL_PATH};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(VM_CONTROL_PATH, 0666) < 0 || listen(fd, 128) < 0)
		fail("cannot listen on " VM_CONTROL_PATH ": %s", strerror(errno));
	return take_fd(&fd);
}

int relay_main(int ready_fd)
{
	sigset_t term;
	int signals;

	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		relay.connections[i].fd = -1;
	for (size_t i = 0; i < LISTENERS_MAX; i++)
		relay.listeners[i].fd = -1;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	signals = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		fail("signalfd: %s", strerror(errno));

	/* The device appears a moment after its module is loaded. */
	for (int tries = 0; (relay.port_fd = open_port()) < 0; tries++) {
		if (tries == 500)
			fail("no virtio port " PORT_NAME ": %s", strerror(-relay.port_fd));
		usleep(10000);
	}
	relay.control_fd = listen_control();
	put_empty(MUX_START, 0);
	write_port();

	while (!relay.bye_received) {
		turn(signals);
		if (relay.started && ready_fd >= 0) {
			(void)!write(ready_fd, "r", 1);
			close(ready_fd);
			ready_fd = -1;
		}
	}
	return 0;
}
