/* SPDX-License-Identifier: MIT */
#include "host-receiver/control/server.h"

#include <grp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/spare_fd.h"
#include "common/unix_path.h"
#include "common/util.h"

#define READ_SIZE   4096u
#define GROUPS_MAX  65536u /* NGROUPS_MAX of Linux */
#define ACCEPTS_MAX 16u	   /* in a turn of the loop */

struct control_server {
	uv_loop_t *loop;
	int fd; /* listening; owned */
	struct spare_fd spare;
	uv_poll_t poll;
	struct sockaddr_un address;
	bool has_gid, closed;
	gid_t gid;
	json_t *(*handle)(void *ctx, const json_t *request);
	void *ctx;
	struct client *clients,
		*asking; /* the client whose request handle() is answering now; else NULL */
	unsigned n_clients;
};

struct control_reply {
	struct client *client; /* NULL: the client has closed */
};

struct client {
	struct client *next, **link;
	struct control_server *server;
	uv_pipe_t pipe;
	uv_timer_t stall;
	unsigned steps; /* of the time that is left to the client */
	uv_write_t write;
	uv_shutdown_t shutdown;
	unsigned open_handles;
	uid_t uid;
	bool closing, answered, written, ended;
	struct control_reply *reply; /* the reply that a request waits for */
	char *answer;		     /* owned */
	size_t len;
	char request[CONTROL_REQUEST_MAX];
	char read_buffer[READ_SIZE];
};

json_t *control_refusal(int status, const char *fmt, ...)
{
	char text[CONTROL_WHY_MAX];
	json_t *answer;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	answer = json_pack("{s:b,s:i,s:s}", "ok", 0, "status", status, "error", text);
	/*
	 * If the text is not UTF-8, or was cut inside a character, it cannot become a JSON string.
	 */
	return answer ? answer
		      : json_pack("{s:b,s:i,s:s}", "ok", 0, "status", status, "error", "refused");
}

/* ---- clients ---- */

static void free_server_if_done(struct control_server *server)
{
	if (server->closed && server->n_clients == 0)
		free(server);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;
	struct control_server *server = c->server;

	if (--c->open_handles > 0)
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	server->n_clients--;
	free(c->answer);
	free(c);
	free_server_if_done(server);
}

static void close_client(struct client *c)
{
	if (c->closing)
		return;
	c->closing = true;
	if (c->reply)
		c->reply->client = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_client_closed);
	uv_close((uv_handle_t *)&c->stall, on_client_closed);
}

/*
 * If a socket is closed while it holds unread bytes, the connection is reset, and the client may
 * lose the answer. So the rest of the client's bytes is read and dropped until the client closes or
 * its time is over.
 */
static void on_written(uv_write_t *write, int status)
{
	struct client *c = write->data;

	c->written = true;
	if (c->ended || status < 0 || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->pipe, NULL) < 0)
		close_client(c);
}

static void on_step(uv_timer_t *timer)
{
	struct client *c = timer->data;

	if (--c->steps == 0)
		close_client(c);
}

/*
 * The loop sees its timers before its sockets. So the time is counted in steps: while the machine
 * stands still, one of them passes, and what the client sent meanwhile is read before the next one.
 */
static void await_client(struct client *c)
{
	c->steps = CONTROL_STEPS;
	uv_timer_start(&c->stall, on_step, CONTROL_STEP_MS, CONTROL_STEP_MS);
}

/* Takes answer. */
static void respond(struct client *c, json_t *answer)
{
	uv_buf_t buf;
	size_t len;

	c->answered = true;
	c->answer = answer ? json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(answer);
	if (!c->answer) {
		close_client(c);
		return;
	}
	len = strlen(c->answer);
	/* The newline replaces the NUL. */
	c->answer[len] = '\n';
	buf = uv_buf_init(c->answer, (unsigned)len + 1);
	c->write.data = c;
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0)
		close_client(c);
}

static void serve_request(struct client *c, size_t len)
{
	json_error_t error;
	json_t *request = json_loadb(c->request, len, JSON_REJECT_DUPLICATES, &error), *answer;

	if (!request) {
		respond(c, control_refusal(EX_USAGE, "the request is not JSON: column %d: %s",
					   error.column, error.text));
		return;
	}
	c->server->asking = c;
	answer = json_is_object(request)
			 ? c->server->handle(c->server->ctx, request)
			 : control_refusal(EX_USAGE, "the request is no JSON object");
	c->server->asking = NULL;
	if (!c->reply)
		respond(c, answer);
	json_decref(request);
}

struct control_reply *control_defer(struct control_server *server)
{
	struct control_reply *reply = malloc(sizeof(*reply));

	if (!reply)
		return NULL;
	reply->client = server->asking;
	reply->client->reply = reply;
	uv_timer_stop(&reply->client->stall);
	return reply;
}

void control_answer(struct control_reply *reply, json_t *answer)
{
	struct client *c = reply->client;

	free(reply);
	if (!c) {
		json_decref(answer);
		return;
	}
	c->reply = NULL;
	await_client(c);
	respond(c, answer);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init(c->read_buffer, sizeof(c->read_buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;
	const char *end;

	if (c->answered || c->reply) {
		c->ended |= n < 0;
		if (c->ended && c->written)
			close_client(c);
		return;
	}
	if (n == 0)
		return;
	c->ended = n < 0;
	if (n < 0) {
		/* The client closed before the newline. */
		if (n == UV_EOF && c->len > 0)
			respond(c,
				control_refusal(EX_USAGE, "the request ends before its line does"));
		else
			close_client(c);
		return;
	}
	end = memchr(buf->base, '\n', (size_t)n);
	if (end)
		n = end - buf->base;
	if (c->len + (size_t)n + 1 > sizeof(c->request)) {
		respond(c, control_refusal(EX_USAGE, "the request is longer than %u bytes",
					   CONTROL_REQUEST_MAX));
		return;
	}
	memcpy(c->request + c->len, buf->base, (size_t)n);
	c->len += (size_t)n;
	if (end)
		serve_request(c, c->len);
}

/* ---- who may ---- */

static bool in_group(int fd, gid_t primary, gid_t wanted)
{
	_cleanup_free_ gid_t *groups = NULL;
	socklen_t size = 0;

	if (primary == wanted)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE ||
	    size > GROUPS_MAX * sizeof(gid_t))
		return false;
	groups = malloc(size);
	if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return false;
	for (size_t i = 0; i < size / sizeof(gid_t); i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

static bool may_ask(const struct control_server *server, int fd, const struct ucred *peer)
{
	return peer->uid == 0 || peer->uid == geteuid() ||
	       (server->has_gid && in_group(fd, peer->gid, server->gid));
}

static bool has_place(const struct control_server *server, const struct ucred *peer)
{
	return server->n_clients < CONTROL_CLIENTS_MAX - (peer->uid == 0 ? 0 : CONTROL_FOR_ROOT);
}

uid_t control_peer_uid(const struct control_server *server)
{
	return server->asking->uid;
}

/* Takes fd. */
static void accept_client(struct control_server *server, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct client *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
	    !has_place(server, &peer) || !(c = calloc(1, sizeof(*c)))) {
		close_fd(fd);
		return;
	}
	c->server = server;
	c->uid = peer.uid;
	uv_pipe_init(server->loop, &c->pipe, 0);
	uv_timer_init(server->loop, &c->stall);
	c->open_handles = 2;
	c->pipe.data = c->stall.data = c;
	c->next = server->clients;
	c->link = &server->clients;
	if (c->next)
		c->next->link = &c->next;
	server->clients = c;
	server->n_clients++;
	await_client(c);
	if (uv_pipe_open(&c->pipe, fd) < 0) {
		close_fd(fd);
		close_client(c);
	} else if (uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read) < 0) {
		close_client(c);
	} else if (!may_ask(server, fd, &peer)) {
		respond(c, control_refusal(EX_NOPERM, "not permitted: only root, the daemon's user "
						      "and its control_group may ask"));
	}
}

static void on_listen(uv_poll_t *handle, int status, int events)
{
	struct control_server *server = handle->data;

	(void)status;
	(void)events;
	for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
		int fd = spare_fd_accept(&server->spare, server->fd);

		if (fd >= 0)
			accept_client(server, fd);
		else if (fd != -EMFILE)
			return;
	}
}

/* ---- the socket ---- */

static int explain(char why[CONTROL_WHY_MAX], int error, const char *path, const char *what)
{
	snprintf(why, CONTROL_WHY_MAX, "%.200s: %s: %s", path, what, strerror(error));
	return -error;
}

/* This daemon holds the lock on the state folder, so a stale socket is from its last run. */
static int clear_path(const struct sockaddr_un *address, char why[CONTROL_WHY_MAX])
{
	struct stat st;
	int alive;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : explain(why, errno, address->sun_path, "cannot look at it");
	if (!S_ISSOCK(st.st_mode))
		return explain(why, EEXIST, address->sun_path, "is not a socket; left alone");
	alive = unix_path_is_alive(address);
	if (alive < 0)
		return explain(why, -alive, address->sun_path,
			       "cannot ask whether another daemon listens there");
	if (alive)
		return explain(why, EADDRINUSE, address->sun_path, "another daemon listens there");
	return unlink(address->sun_path) < 0
		       ? explain(why, errno, address->sun_path, "cannot remove the stale socket")
		       : 0;
}

static int bind_socket(struct control_server *server, char why[CONTROL_WHY_MAX])
{
	const char *path = server->address.sun_path;
	mode_t mask;
	int r;

	server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/*
	 * bind(2) creates the inode with the mode of the unbound socket, without the bits of the
	 * umask.
	 */
	if (server->fd < 0 || fchmod(server->fd, CONTROL_SOCKET_MODE) < 0)
		return explain(why, errno, path, "cannot make a socket");
	mask = umask(0);
	r = bind(server->fd, (const struct sockaddr *)&server->address, sizeof(server->address));
	umask(mask);
	if (r < 0)
		return explain(why, errno, path, "cannot bind");
	if (server->has_gid && lchown(path, (uid_t)-1, server->gid) < 0)
		r = explain(why, errno, path, "cannot give it to control_group");
	else if (listen(server->fd, SOMAXCONN) < 0)
		r = explain(why, errno, path, "cannot listen");
	if (r < 0)
		unlink(path);
	return r;
}

static int find_group(struct control_server *server, const char *name, char why[CONTROL_WHY_MAX])
{
	const struct group *group;

	if (!*name)
		return 0;
	group = getgrnam(name);
	if (!group) {
		snprintf(why, CONTROL_WHY_MAX, "control_group %.100s: no such group", name);
		return -ESRCH;
	}
	server->has_gid = true;
	server->gid = group->gr_gid;
	return 0;
}

int control_server_new(uv_loop_t *loop, const struct control_server_options *o,
		       struct control_server **ret, char why[CONTROL_WHY_MAX])
{
	struct control_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return explain(why, ENOMEM, o->path, "cannot listen");
	*server =
		(struct control_server){.loop = loop, .fd = -1, .handle = o->handle, .ctx = o->ctx};
	server->address.sun_family = AF_UNIX;
	if (strlen(o->path) >= sizeof(server->address.sun_path)) {
		r = explain(why, ENAMETOOLONG, o->path, "a socket's path has at most 107 bytes");
		goto fail;
	}
	strcpy(server->address.sun_path, o->path);
	r = find_group(server, o->group, why);
	if (r == 0)
		r = clear_path(&server->address, why);
	if (r == 0)
		r = bind_socket(server, why);
	if (r < 0)
		goto fail;
	server->spare.report = o->report_shortage;
	spare_fd_open(&server->spare);
	r = uv_poll_init(loop, &server->poll, server->fd);
	if (r < 0) {
		unlink(o->path);
		close_fd(server->spare.fd);
		explain(why, -r, o->path, "cannot poll");
		goto fail;
	}
	server->poll.data = server;
	uv_poll_start(&server->poll, UV_READABLE, on_listen);
	*ret = server;
	return 0;
fail:
	close_fd(server->fd);
	free(server);
	return r;
}

static void on_server_closed(uv_handle_t *handle)
{
	struct control_server *server = handle->data;

	server->closed = true;
	free_server_if_done(server);
}

void control_server_free(struct control_server *server)
{
	if (!server)
		return;
	unlink(server->address.sun_path);
	uv_poll_stop(&server->poll);
	close_fd(take_fd(&server->fd));
	close_fd(take_fd(&server->spare.fd));
	for (struct client *c = server->clients; c; c = c->next)
		close_client(c);
	uv_close((uv_handle_t *)&server->poll, on_server_closed);
}
