/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/util.h"

struct channel {
	pthread_mutex_t lock;
	int fd;
	void *shared; /* owned; NULL: none yet */
	uint64_t generation;
	_Atomic uint64_t waiting_ns;
	struct sign_request request;
	struct sign_reply reply;
	char *entries; /* the caller's copy, because the memory of a new signer is empty */
};

struct sign_client {
	int keeper_fd;
	pid_t keeper_pid;
	char state[SIGN_PATH_MAX];
	bool allow_unlocked;
	void (*on_lost)(const char *why);

	/* Held while a signer is started, and during a request to the parent. */
	pthread_mutex_t lock;
	uint64_t generation; /* of the signer; 0: none yet */
	_Atomic int pid;
	_Atomic uint64_t restarts;
	int fds[SIGN_CHANNELS_MAX]; /* of this generation, not taken by its channel yet; -1 */
	int memories[SIGN_CHANNELS_MAX];

	/* Of `down` only; whoever asks for it must not wait while a signer is started. */
	pthread_mutex_t down_lock;
	char down[SIGN_WHY_MAX]; /* why no signer could be started the last time; "": it was */

	unsigned n_channels;
	struct channel channels[];
};

/* ---- the parent ---- */

/* Also takes the descriptors of the reply, if there are any. */
static int receive_reply(struct sign_client *c, struct parent_reply *a, int *fds, unsigned *ret_n)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(2 * SIGN_CHANNELS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = a, .iov_len = sizeof(*a)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *head;
	ssize_t n;

	do
		n = recvmsg(c->keeper_fd, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*a))
		return n < 0 ? -errno : -EPIPE;
	head = CMSG_FIRSTHDR(&message);
	*ret_n = 0;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
		*ret_n = (unsigned)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(head), *ret_n * sizeof(int));
	}
	return 0;
}

/* sent_fd is sent with the request; -1: none. */
static int send_request(struct sign_client *c, const struct parent_request *q, int sent_fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)q, .iov_len = sizeof(*q)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (sent_fd >= 0) {
		message.msg_control = control.space;
		message.msg_controllen = sizeof(control.space);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &sent_fd, sizeof(int));
	}
	return sendmsg(c->keeper_fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(*q) ? 0 : -EPIPE;
}

static int ask_parent(struct sign_client *c, const struct parent_request *q,
		      struct parent_reply *ret, int *fds, unsigned *ret_n)
{
	int r = send_request(c, q, -1);

	return r < 0 ? r : receive_reply(c, ret, fds, ret_n);
}

/* Under the lock. */
static int start_signer(struct sign_client *c, char why[SIGN_WHY_MAX])
{
	struct parent_request q = {.op = PARENT_START, .channels = c->n_channels};
	int fds[2 * SIGN_CHANNELS_MAX];
	struct parent_reply a;
	unsigned n = 0;
	int r;

	memcpy(q.path, c->state, sizeof(c->state));
	r = ask_parent(c, &q, &a, fds, &n);
	if (r < 0) {
		snprintf(why, SIGN_WHY_MAX, "the parent process is gone");
		return -ENOTRECOVERABLE;
	}
	if (a.result < 0 || n != 2 * c->n_channels) {
		snprintf(why, SIGN_WHY_MAX, "%s", a.why);
		for (unsigned i = 0; i < n; i++)
			close_fd(fds[i]);
		return a.result < 0 ? a.result : -EPROTO;
	}
	for (unsigned i = 0; i < c->n_channels; i++) {
		close_fd(c->fds[i]);
		close_fd(c->memories[i]);
		c->fds[i] = fds[i];
		c->memories[i] = fds[c->n_channels + i];
	}
	c->restarts += c->generation > 0;
	c->generation++;
	c->pid = a.signer_pid;
	return 0;
}

/* ---- channels ---- */

static void drop_channel(struct channel *ch)
{
	close_fd(take_fd(&ch->fd));
	if (ch->shared)
		munmap(take_ptr(ch->shared), SIGN_SHARED_SIZE);
}

static void note_down(struct sign_client *c, const char *why)
{
	pthread_mutex_lock(&c->down_lock);
	snprintf(c->down, sizeof(c->down), "%s", why);
	pthread_mutex_unlock(&c->down_lock);
}

/*
 * Take the channel's ends of the running signer. Without memory for them they stay where they are,
 * for the next attempt.
 */
static int take_ends(struct sign_client *c, unsigned i, char why[SIGN_WHY_MAX])
{
	struct channel *ch = &c->channels[i];
	void *shared =
		mmap(NULL, SIGN_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, c->memories[i], 0);

	if (shared == MAP_FAILED) {
		const int error = errno;

		snprintf(why, SIGN_WHY_MAX, "no memory is shared with it: %s", strerror(error));
		return -error;
	}
	ch->shared = shared;
	ch->fd = take_fd(&c->fds[i]);
	ch->generation = c->generation;
	close_fd(take_fd(&c->memories[i]));
	return 0;
}

/* Connect the channel to the running signer. The first channel that needs a signer starts it. */
static int connect_channel(struct sign_client *c, unsigned i, uint64_t dead_generation)
{
	struct channel *ch = &c->channels[i];
	char why[SIGN_WHY_MAX] = "";
	int r = 0;

	drop_channel(ch);
	pthread_mutex_lock(&c->lock);
	if (c->generation == dead_generation)
		r = start_signer(c, why);
	if (r == 0)
		r = take_ends(c, i, why);
	note_down(c, why);
	pthread_mutex_unlock(&c->lock);
	if (r == -ENOTRECOVERABLE)
		c->on_lost(why);
	return r;
}

/* One request and its reply. 0, or a negative errno if this signer is dead. */
static int exchange(struct channel *ch, const void *data, size_t len)
{
	ssize_t n;

	if (len > 0)
		memcpy(ch->shared, data, len);
	if (send(ch->fd, &ch->request, sizeof(ch->request), MSG_NOSIGNAL) < 0)
		return -errno;
	do
		n = recv(ch->fd, &ch->reply, sizeof(ch->reply), 0);
	while (n < 0 && errno == EINTR);
	return n >= (ssize_t)sizeof(ch->reply.result) ? 0 : -EPIPE;
}

/* Send the request in the channel, with its data. Called with the channel's lock held. */
static int ask(struct sign_client *c, unsigned i, const void *data, size_t len)
{
	struct channel *ch = &c->channels[i];
	int r = ch->fd < 0 ? -ENOTCONN : 0;

	if (len > SIGN_SHARED_SIZE)
		return -E2BIG;
	ch->waiting_ns = monotonic_ns();
	for (;;) {
		if (r == 0)
			r = exchange(ch, data, len);
		if (r == 0)
			break;
		r = connect_channel(c, i, ch->generation);
		if (r < 0)
			break;
	}
	ch->waiting_ns = 0;
	return r < 0 ? r : ch->reply.result;
}

static struct channel *begin(struct sign_client *c, unsigned i, enum sign_op op)
{
	struct channel *ch = &c->channels[i];

	pthread_mutex_lock(&ch->lock);
	memset(&ch->request, 0, offsetof(struct sign_request, lengths));
	ch->request.op = op;
	return ch;
}

static void set_origin(struct channel *ch, const char *origin)
{
	snprintf(ch->request.origin, sizeof(ch->request.origin), "%s", origin);
}

/* ---- requests ---- */

int sign_client_memory(struct sign_client *c, struct sign_memory *ret)
{
	struct channel *ch = begin(c, 0, SIGN_OP_MEMORY);
	int r = ask(c, 0, NULL, 0);

	if (r == 0)
		*ret = ch->reply.memory;
	pthread_mutex_unlock(&ch->lock);
	return r;
}

int sign_client_retreat(struct sign_client *c, const char *origin, uint64_t size)
{
	struct channel *ch = begin(c, 0, SIGN_OP_RETREAT);
	int r;

	set_origin(ch, origin);
	ch->request.first = size;
	r = ask(c, 0, NULL, 0);
	pthread_mutex_unlock(&ch->lock);
	return r;
}

int sign_client_extend(struct sign_client *c, const struct tree_hash *leaves, size_t n,
		       const char *note, size_t note_len)
{
	struct channel *ch = begin(c, 0, SIGN_OP_EXTEND);
	const size_t size = n * sizeof(*leaves);
	_cleanup_free_ char *data = malloc(size + note_len + 1);
	int r = -ENOMEM;

	if (data) {
		memcpy(data, leaves, size);
		memcpy(data + size, note, note_len);
		ch->request.n = (uint32_t)n;
		ch->request.len = (uint32_t)note_len;
		r = ask(c, 0, data, size + note_len);
	}
	pthread_mutex_unlock(&ch->lock);
	return r;
}

int sign_client_append(struct sign_client *c, uint32_t key, uint32_t previous, const char *origin,
		       uint64_t first, const struct tree_hash *leaves, size_t n, uint64_t durable,
		       char ret[static LINE_NOTE_MAX])
{
	struct channel *ch = begin(c, 0, SIGN_OP_APPEND);
	int r;

	set_origin(ch, origin);
	ch->request.key = key;
	ch->request.previous = previous;
	ch->request.first = first;
	ch->request.durable = durable;
	ch->request.n = (uint32_t)n;
	r = ask(c, 0, leaves, n * sizeof(*leaves));
	if (r >= (int)LINE_NOTE_MAX)
		r = -EPROTO;
	if (r > 0) {
		memcpy(ret, ch->reply.note, (size_t)r);
		ret[r] = '\0';
	}
	pthread_mutex_unlock(&ch->lock);
	return r;
}

char *sign_client_entries(struct sign_client *c, unsigned channel)
{
	struct channel *ch = &c->channels[channel];

	/* Pages that are never used cost nothing. */
	if (!ch->entries) {
		ch->entries = mmap(NULL, SIGN_SHARED_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (ch->entries == MAP_FAILED)
			ch->entries = NULL;
	}
	return ch->entries;
}

int sign_client_sign(struct sign_client *c, unsigned channel, uint32_t key, const uint32_t *lengths,
		     unsigned n, uint8_t ret[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX])
{
	struct channel *ch = begin(c, channel, SIGN_OP_SIGN);
	size_t total = 0;
	int r;

	for (unsigned i = 0; i < n; i++)
		total += lengths[i];
	memcpy(ch->request.lengths, lengths, n * sizeof(*lengths));
	ch->request.key = key;
	ch->request.n = n;
	r = ask(c, channel, ch->entries, total);
	if (r > 0)
		memcpy(ret, ch->reply.signatures, n * sizeof(ch->reply.signatures[0]));
	pthread_mutex_unlock(&ch->lock);
	return r;
}

unsigned sign_client_channels(const struct sign_client *c)
{
	return c->n_channels;
}

uint64_t sign_client_waiting_ns(const struct sign_client *c)
{
	uint64_t oldest = 0;

	for (unsigned i = 0; i < c->n_channels; i++) {
		const uint64_t since = c->channels[i].waiting_ns;

		if (since && (!oldest || since < oldest))
			oldest = since;
	}
	return oldest;
}

int sign_client_pid(const struct sign_client *c)
{
	return c->pid;
}

void sign_client_down(struct sign_client *c, char ret[static SIGN_WHY_MAX])
{
	pthread_mutex_lock(&c->down_lock);
	memcpy(ret, c->down, SIGN_WHY_MAX);
	pthread_mutex_unlock(&c->down_lock);
}

uint64_t sign_client_restarts(const struct sign_client *c)
{
	return c->restarts;
}

/* ---- sockets of other owners, the configuration ---- */

/*
 * Send a request whose reply has these descriptors. Returns 0, or a negative errno with a sentence
 * in why.
 */
static int ask_for_fds(struct sign_client *c, const struct parent_request *q, int sent_fd,
		       struct parent_reply *ret, int *fds, unsigned wanted)
{
	int all[2 * SIGN_CHANNELS_MAX], r;
	unsigned n = 0;

	pthread_mutex_lock(&c->lock);
	r = send_request(c, q, sent_fd);
	if (r == 0)
		r = receive_reply(c, ret, all, &n);
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		snprintf(ret->why, sizeof(ret->why), "the parent process is gone");
	else
		r = ret->result < 0 ? ret->result : n != wanted ? -EPROTO : 0;
	for (unsigned i = 0; i < n; i++) {
		if (r == 0)
			fds[i] = all[i];
		else
			close_fd(all[i]);
	}
	return r;
}

static int request_socket(struct parent_request *q, enum parent_op op,
			  const struct listener_options *o)
{
	*q = (struct parent_request){
		.op = op,
		.socket = {.uid = o->uid, .gid = o->gid, .mode = o->mode, .replace = o->replace},
	};
	return snprintf(q->path, sizeof(q->path), "%s", o->base) >= (int)sizeof(q->path)
		       ? -ENAMETOOLONG
		       : 0;
}

int sign_client_listen(struct sign_client *c, const struct listener_options *o,
		       struct listener *ret, char why[LISTENER_WHY_MAX])
{
	struct parent_request q;
	struct parent_reply a = {0};
	int fds[2], r = request_socket(&q, PARENT_LISTEN, o);

	if (r < 0)
		snprintf(why, LISTENER_WHY_MAX, "the path is too long for --socket-owner");
	else if ((r = ask_for_fds(c, &q, -1, &a, fds, ARRAY_SIZE(fds))) < 0)
		snprintf(why, LISTENER_WHY_MAX, "%.399s", a.why);
	if (r < 0)
		return r;
	*ret = (struct listener){
		.fd = fds[0], .dir_fd = fds[1], .dev = a.socket.dev, .ino = a.socket.ino};
	memcpy(ret->name, a.socket.name, sizeof(ret->name));
	return 0;
}

void sign_client_clear(struct sign_client *c, const struct listener_options *o)
{
	struct parent_request q;
	struct parent_reply a = {0};

	if (request_socket(&q, PARENT_CLEAR, o) == 0)
		ask_for_fds(c, &q, -1, &a, NULL, 0);
}

void sign_client_unlink(struct sign_client *c, const struct listener *l, uid_t uid, gid_t gid)
{
	struct parent_request q = {
		.op = PARENT_UNLINK,
		.socket = {.uid = uid, .gid = gid, .dev = l->dev, .ino = l->ino},
	};
	struct parent_reply a = {0};

	memcpy(q.socket.name, l->name, sizeof(q.socket.name));
	ask_for_fds(c, &q, l->dir_fd, &a, NULL, 0);
}

int sign_client_open_config(struct sign_client *c)
{
	const struct parent_request q = {.op = PARENT_CONFIG};
	struct parent_reply a = {0};
	int fd, r = ask_for_fds(c, &q, -1, &a, &fd, 1);

	return r < 0 ? r : fd;
}

/* ---- keys ---- */

static bool copy_option(const char *text, char *ret, size_t size)
{
	if (text)
		snprintf(ret, size, "%s", text);
	return text != NULL;
}

int sign_client_open_key(struct sign_client *c, const struct signing_options *o,
			 struct sign_key_info *ret, char why[SIGN_WHY_MAX])
{
	struct parent_request q = {.op = PARENT_KEY, .allow_unlocked = c->allow_unlocked};
	int fds[2 * SIGN_CHANNELS_MAX];
	struct parent_reply a;
	unsigned n;
	int r;

	q.has_algorithm = copy_option(o->algorithm, q.algorithm, sizeof(q.algorithm));
	q.has_kid = copy_option(o->kid, q.kid, sizeof(q.kid));
	q.has_file = copy_option(o->key_file, q.path, sizeof(q.path));
	pthread_mutex_lock(&c->lock);
	r = ask_parent(c, &q, &a, fds, &n);
	pthread_mutex_unlock(&c->lock);
	if (r < 0) {
		snprintf(why, SIGN_WHY_MAX, "the parent process is gone");
		return r;
	}
	if (a.result < 0) {
		snprintf(why, SIGN_WHY_MAX, "%s", a.why);
		return a.result;
	}
	*ret = (struct sign_key_info){.number = a.key, .algorithm = a.algorithm};
	memcpy(ret->kid, a.kid, sizeof(ret->kid));
	memcpy(ret->public_key, a.public_key, sizeof(ret->public_key));
	if (a.key == SIGN_NO_KEY || c->generation > 0)
		return 0;
	pthread_mutex_lock(&c->lock);
	r = start_signer(c, why);
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* ---- begin and end ---- */

int sign_client_new(const struct sign_client_options *o, struct sign_client **ret)
{
	const unsigned most = SIGN_CHANNELS_MAX, n = o->channels < 2 ? 2 : MIN(o->channels, most);
	struct sign_client *c = calloc(1, sizeof(*c) + n * sizeof(c->channels[0]));

	if (!c) {
		close_fd(o->keeper_fd);
		return -ENOMEM;
	}
	c->keeper_fd = o->keeper_fd;
	c->keeper_pid = o->keeper_pid;
	snprintf(c->state, sizeof(c->state), "%s", o->state);
	c->allow_unlocked = o->allow_unlocked;
	c->on_lost = o->on_lost;
	c->n_channels = n;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->down_lock, NULL);
	for (unsigned i = 0; i < n; i++) {
		c->fds[i] = c->memories[i] = c->channels[i].fd = -1;
		pthread_mutex_init(&c->channels[i].lock, NULL);
	}
	*ret = c;
	return 0;
}

void sign_client_free(struct sign_client *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n_channels; i++) {
		drop_channel(&c->channels[i]);
		close_fd(c->fds[i]);
		close_fd(c->memories[i]);
		if (c->channels[i].entries)
			munmap(c->channels[i].entries, SIGN_SHARED_SIZE);
		pthread_mutex_destroy(&c->channels[i].lock);
	}
	close_fd(c->keeper_fd);
	/* Wait for the parent: then both processes have ended, and the last state is on disk. */
	while (waitpid(c->keeper_pid, NULL, 0) < 0 && errno == EINTR)
		;
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->down_lock);
	free(c);
}
