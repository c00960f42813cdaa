/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/process.h"

#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "seccomp/signer_filter.h"

/* The state is synced within this time; a power cut may lose this much of it. */
#define SYNC_MS	   500
#define STACK_SIZE (1024u * 1024u)
#define FIRST_BYTE '{'

struct process {
	struct sign_core *core;
	bool allow_unlocked;
	atomic_bool begun; /* it has signed, so RETREAT and EXTEND are over */
	pthread_rwlock_t lock;
	struct signing_key *keys[SIGN_KEYS_MAX];
	uint32_t numbers[SIGN_KEYS_MAX];
};

struct channel {
	struct process *process;
	int fd;
	const uint8_t *shared;
	uint8_t *copy; /* SIGN_SHARED_SIZE bytes of this process's own */
	struct sign_request request;
	struct sign_reply reply;
};

/* NULL: the number is unknown, or not known any more. Called with the lock held. */
static const struct signing_key *find_key(const struct process *p, uint32_t number)
{
	const uint32_t at = number % SIGN_KEYS_MAX;

	return number != SIGN_NO_KEY && p->numbers[at] == number ? p->keys[at] : NULL;
}

/* ---- requests ---- */

/*
 * Copy the message first: libsodium reads it twice, and the other process could change shared
 * memory in between.
 */
static bool copy_in(struct channel *c, uint64_t len)
{
	if (len > SIGN_SHARED_SIZE)
		return false;
	memcpy(c->copy, c->shared, len);
	return true;
}

static int serve_memory(struct channel *c)
{
	sign_core_memory(c->process->core, &c->reply.memory);
	return 0;
}

static int serve_retreat(struct channel *c)
{
	return c->process->begun
		       ? -EPERM
		       : sign_core_retreat(c->process->core, c->request.origin, c->request.first);
}

static int serve_extend(struct channel *c)
{
	const uint64_t leaves = (uint64_t)c->request.n * sizeof(struct tree_hash);

	if (c->process->begun)
		return -EPERM;
	if (!copy_in(c, leaves + c->request.len))
		return -EINVAL;
	return sign_core_extend(c->process->core, (const struct tree_hash *)c->copy, c->request.n,
				(const char *)c->copy + leaves, c->request.len);
}

static int serve_append(struct channel *c)
{
	const struct sign_request *q = &c->request;
	const struct signing_key *key = find_key(c->process, q->key);

	if (!key || !sign_algorithm_has_tree(signing_key_algorithm(key)))
		return -ENOKEY;
	if (q->n == 0 || !copy_in(c, (uint64_t)q->n * sizeof(struct tree_hash)))
		return -EINVAL;
	c->process->begun = true;
	return sign_core_append(c->process->core, key, find_key(c->process, q->previous), q->origin,
				q->first, (const struct tree_hash *)c->copy, q->n, q->durable,
				c->reply.note);
}

/*
 * An entry begins with '{' and has no newline. A note has neither property, so no note is signed
 * here.
 */
static bool is_entry(const uint8_t *data, uint32_t len)
{
	return len > 0 && len <= SIGN_ENTRY_MAX && data[0] == FIRST_BYTE &&
	       !memchr(data, '\n', len);
}

static int serve_sign(struct channel *c)
{
	const struct sign_request *q = &c->request;
	const struct signing_key *key = find_key(c->process, q->key);
	uint64_t total = 0;
	const uint8_t *at = c->copy;
	size_t size = 0;

	if (!key || !sign_algorithm_has_envelope(signing_key_algorithm(key)))
		return -ENOKEY;
	if (q->n == 0 || q->n > SIGN_BATCH_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < q->n; i++)
		total += q->lengths[i];
	if (!copy_in(c, total))
		return -EINVAL;
	for (uint32_t i = 0; i < q->n; at += q->lengths[i++]) {
		if (!is_entry(at, q->lengths[i]))
			return -EINVAL;
		size = signing_key_sign(key, at, q->lengths[i], c->reply.signatures[i]);
	}
	return (int)size;
}

/* How many bytes of the reply are sent. */
static size_t reply_size(const struct channel *c)
{
	const size_t head = offsetof(struct sign_reply, note);

	if (c->reply.result < 0)
		return head;
	switch (c->request.op) {
	case SIGN_OP_MEMORY: return head + sizeof(c->reply.memory);
	case SIGN_OP_APPEND: return head + (size_t)c->reply.result + 1;
	case SIGN_OP_SIGN: return head + c->request.n * sizeof(c->reply.signatures[0]);
	default: return head;
	}
}

static void serve(struct channel *c)
{
	static int (*const table[_SIGN_OP_MAX])(struct channel * c) = {
		[SIGN_OP_MEMORY] = serve_memory, [SIGN_OP_RETREAT] = serve_retreat,
		[SIGN_OP_EXTEND] = serve_extend, [SIGN_OP_APPEND] = serve_append,
		[SIGN_OP_SIGN] = serve_sign,
	};

	c->request.origin[sizeof(c->request.origin) - 1] = '\0';
	pthread_rwlock_rdlock(&c->process->lock);
	c->reply.result =
		(unsigned)c->request.op < _SIGN_OP_MAX ? table[c->request.op](c) : -EINVAL;
	pthread_rwlock_unlock(&c->process->lock);
}

/* When the receiver ends, its end of the channel is closed. Then this process ends. */
static void *channel_main(void *arg)
{
	struct channel *c = arg;

	for (;;) {
		ssize_t n = recv(c->fd, &c->request, sizeof(c->request), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(c->request))
			break;
		serve(c);
		if (send(c->fd, &c->reply, reply_size(c), MSG_NOSIGNAL) < 0)
			break;
	}
	sign_core_sync(c->process->core);
	_exit(0);
}

/* ---- keys ---- */

static void add_key(struct process *p, uint32_t number, struct signing_key *key)
{
	const uint32_t at = number % SIGN_KEYS_MAX;

	pthread_rwlock_wrlock(&p->lock);
	signing_key_free(p->keys[at]);
	p->keys[at] = key;
	p->numbers[at] = number;
	pthread_rwlock_unlock(&p->lock);
}

static bool take_transfer(struct process *p, int fd)
{
	struct sign_key_transfer t;
	struct signing_key *key;
	ssize_t n = recv(fd, &t, sizeof(t), 0);
	int32_t r = -EINVAL;

	if (n == 0 || (n < 0 && errno != EINTR))
		return false;
	if (n == (ssize_t)sizeof(t)) {
		r = signing_key_import(&t.bytes, t.allow_unlocked, &key);
		if (r == 0)
			add_key(p, t.key, key);
	}
	sodium_memzero(&t, sizeof(t));
	return send(fd, &r, sizeof(r), MSG_NOSIGNAL) == (ssize_t)sizeof(r);
}

/* ---- the start ---- */

static int take_keys(struct process *p, const struct sign_process_options *o)
{
	for (uint32_t i = 0; i < SIGN_KEYS_MAX; i++) {
		int r;

		p->numbers[i] = SIGN_NO_KEY;
		if (!o->keys[i])
			continue;
		/* A child does not inherit the parent's memory locks. */
		r = signing_key_lock(o->keys[i]);
		if (r < 0 && !o->allow_unlocked)
			return r;
		add_key(p, o->key_numbers[i], o->keys[i]);
	}
	return 0;
}

static int start_channels(struct process *p, const struct sign_process_options *o)
{
	pthread_attr_t attr;
	int r = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (unsigned i = 0; r == 0 && i < o->channels; i++) {
		struct channel *c = calloc(1, sizeof(*c));
		pthread_t thread;

		if (!c || !(c->copy = malloc(SIGN_SHARED_SIZE))) {
			free(c);
			r = -ENOMEM;
			break;
		}
		c->process = p;
		c->fd = o->channel_fds[i];
		c->shared = o->shared[i];
		r = -pthread_create(&thread, &attr, channel_main, c);
	}
	pthread_attr_destroy(&attr);
	return r;
}

static int begin(struct process *p, const struct sign_process_options *o)
{
	int r;

	prctl(PR_SET_NAME, "cellos-signer", 0, 0, 0);
	confine_bounding_set(0);
	if (o->user) {
		r = users_become(o->user, false, false);
		if (r < 0)
			return r;
	}
	/* After the change of user, because that resets both. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	p->allow_unlocked = o->allow_unlocked;
	p->begun = o->respawned;
	pthread_rwlock_init(&p->lock, NULL);
	r = sign_core_new(o->state_fd, &p->core);
	close_fd(o->state_fd);
	if (r == 0)
		r = take_keys(p, o);
	if (r < 0)
		return r;
	confine_capabilities(0);
	r = start_channels(p, o);
	/* From here on the process can only read, sign and write. */
	return r < 0 ? r : signer_filter_install();
}

_Noreturn void sign_process_run(const struct sign_process_options *o, int ready_fd)
{
	static struct process p;
	int32_t r = begin(&p, o);

	if (write(ready_fd, &r, sizeof(r)) != (ssize_t)sizeof(r) || r < 0)
		_exit(1);
	close_fd(ready_fd);
	for (;;) {
		struct pollfd fd = {.fd = o->parent_fd, .events = POLLIN};
		int n = poll(&fd, 1, SYNC_MS);

		sign_core_sync(p.core);
		if (n > 0 && !take_transfer(&p, o->parent_fd))
			break;
	}
	sign_core_sync(p.core);
	_exit(0);
}
