/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/keeper.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "host-receiver/sign/process.h"

struct keeper {
	struct keeper_options options;
	int fd;			   /* the receiver's */
	bool pinned;		   /* state is set, and does not change any more */
	char state[SIGN_PATH_MAX]; /* of all signers */
	int taken_fd;		   /* the descriptor of the current request, or -1 */
	struct signing_key *keys[SIGN_KEYS_MAX];
	uint32_t numbers[SIGN_KEYS_MAX];
	uint32_t next_key;
	bool allow_unlocked;

	pid_t signer; /* 0: none */
	int signer_fd;
	uint64_t deaths_ns[KEEPER_DEATHS_MAX];
	unsigned n_deaths;
	bool started; /* there was a signer before */
};

/* Sockets and memories that a new signer and the receiver share; both ends of each channel. */
struct link {
	unsigned channels;
	int signer_fds[SIGN_CHANNELS_MAX], receiver_fds[SIGN_CHANNELS_MAX];
	int memory_fds[SIGN_CHANNELS_MAX];
	void *shared[SIGN_CHANNELS_MAX];
};

/* Descriptors that are sent with a reply, and closed here afterwards. */
struct carried {
	unsigned n;
	int fds[2 * SIGN_CHANNELS_MAX];
};

/* ---- keys ---- */

static const char *optional(bool has, const char *text)
{
	return has ? text : NULL;
}

/* Send the new key to the running signer. */
static int transfer(struct keeper *k, uint32_t number, const struct signing_key *key)
{
	struct sign_key_transfer t = {.key = number, .allow_unlocked = k->allow_unlocked};
	int32_t r = 0;

	if (k->signer == 0)
		return 0;
	signing_key_export(key, &t.bytes);
	if (send(k->signer_fd, &t, sizeof(t), MSG_NOSIGNAL) != (ssize_t)sizeof(t) ||
	    recv(k->signer_fd, &r, sizeof(r), 0) != (ssize_t)sizeof(r))
		r = 0; /* The signer is dead; the next one gets this key at its start. */
	sodium_memzero(&t, sizeof(t));
	return r;
}

static int check_locked(const struct keeper *k, const struct signing_key *key,
			char why[SIGN_WHY_MAX])
{
	int r = signing_key_lock(key);

	if (r == 0 || k->allow_unlocked)
		return 0;
	snprintf(why, SIGN_WHY_MAX,
		 "the key cannot be locked in memory (%s): raise RLIMIT_MEMLOCK, or say [signing] "
		 "allow_unlocked = yes",
		 strerror(-r));
	return r;
}

static void open_key(struct keeper *k, const struct parent_request *q, struct parent_reply *a,
		     struct carried *carried)
{
	const struct signing_options options = {
		.users = &k->options.users,
		.algorithm = optional(q->has_algorithm, q->algorithm),
		.kid = optional(q->has_kid, q->kid),
		.key_file = optional(q->has_file, q->path),
	};
	struct signing_key *key;
	const uint32_t number = k->next_key;

	(void)carried;
	k->allow_unlocked = q->allow_unlocked;
	a->key = SIGN_NO_KEY;
	a->result = signing_key_open(&options, &key, a->why);
	if (a->result < 0)
		return;
	a->algorithm = signing_key_algorithm(key);
	memcpy(a->kid, signing_key_kid(key), strlen(signing_key_kid(key)) + 1);
	memcpy(a->public_key, signing_key_public(key), sizeof(a->public_key));
	if (a->algorithm == SIGN_OFF) {
		signing_key_free(key);
		return;
	}
	a->result = check_locked(k, key, a->why);
	if (a->result == 0)
		a->result = transfer(k, number, key);
	if (a->result < 0) {
		signing_key_free(key);
		return;
	}
	signing_key_free(k->keys[number % SIGN_KEYS_MAX]);
	k->keys[number % SIGN_KEYS_MAX] = key;
	k->numbers[number % SIGN_KEYS_MAX] = number;
	k->next_key++;
	a->key = number;
}

/* ---- signers ---- */

/* Close this process's copies. The signer has its ends, and the reply sends the receiver's ends. */
static void close_link(struct link *l)
{
	for (unsigned i = 0; i < l->channels; i++) {
		close_fd(l->signer_fds[i]);
		if (l->shared[i])
			munmap(l->shared[i], SIGN_SHARED_SIZE);
	}
}

static void carry_link(const struct link *l, struct carried *carried)
{
	memcpy(carried->fds, l->receiver_fds, l->channels * sizeof(int));
	memcpy(carried->fds + l->channels, l->memory_fds, l->channels * sizeof(int));
	carried->n = 2 * l->channels;
}

static int open_channel(struct link *l)
{
	const unsigned i = l->channels;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	l->signer_fds[i] = fds[0];
	l->receiver_fds[i] = fds[1];
	l->shared[i] = NULL;
	l->memory_fds[i] = memfd_create("cellos-entries", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	l->channels++;
	/* Seal the size, so that no process can shrink the memory while another one reads it. */
	if (l->memory_fds[i] < 0 || ftruncate(l->memory_fds[i], SIGN_SHARED_SIZE) < 0 ||
	    fcntl(l->memory_fds[i], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	l->shared[i] = mmap(NULL, SIGN_SHARED_SIZE, PROT_READ, MAP_SHARED, l->memory_fds[i], 0);
	if (l->shared[i] == MAP_FAILED) {
		l->shared[i] = NULL;
		return -errno;
	}
	return 0;
}

/* -1 in *ret: the state is in memory only. */
static int open_state(const struct keeper *k, int *ret)
{
	const struct user_ids *signer = &k->options.users.signer;
	struct user_acting was;
	int r = 0;

	*ret = -1;
	if (!*k->state)
		return 0;
	if (k->options.users.separate)
		was = users_act_as(signer->uid, signer->gid);
	if (mkdir(k->state, 0700) == 0 || errno == EEXIST)
		*ret = open(k->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret < 0)
		r = -errno;
	if (k->options.users.separate)
		users_act_back(&was);
	return r;
}

_Noreturn static void become_signer(struct keeper *k, struct link *l, int state_fd, int parent_fd,
				    int ready_fd)
{
	const struct sign_process_options options = {
		.parent_fd = parent_fd,
		.channel_fds = l->signer_fds,
		.shared = l->shared,
		.channels = l->channels,
		.state_fd = state_fd,
		.respawned = k->started,
		.allow_unlocked = k->allow_unlocked,
		.keys = k->keys,
		.key_numbers = k->numbers,
		.user = k->options.users.separate ? &k->options.users.signer : NULL,
	};

	close_fd(k->fd);
	close_fd(k->signer_fd);
	for (unsigned i = 0; i < l->channels; i++) {
		close_fd(l->receiver_fds[i]);
		close_fd(l->memory_fds[i]);
	}
	sign_process_run(&options, ready_fd);
}

static void bury_signer(struct keeper *k)
{
	if (k->signer > 0) {
		kill(k->signer, SIGKILL);
		while (waitpid(k->signer, NULL, 0) < 0 && errno == EINTR)
			;
	}
	k->signer = 0;
	close_fd(take_fd(&k->signer_fd));
}

static int fork_signer(struct keeper *k, struct link *l, int state_fd)
{
	int ready[2] = {-1, -1}, parent[2] = {-1, -1};
	int32_t r;

	if (pipe2(ready, O_CLOEXEC) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, parent) < 0) {
		r = -errno;
		close_fd(ready[0]);
		close_fd(ready[1]);
		return r;
	}
	k->signer = fork();
	if (k->signer == 0) {
		close_fd(ready[0]);
		close_fd(parent[0]);
		become_signer(k, l, state_fd, parent[1], ready[1]);
	}
	r = k->signer < 0 ? -errno : 0;
	close_fd(ready[1]);
	close_fd(parent[1]);
	k->signer_fd = parent[0];
	if (r == 0 && read(ready[0], &r, sizeof(r)) != (ssize_t)sizeof(r))
		r = -EPROTO;
	close_fd(ready[0]);
	k->started = k->started || r == 0;
	/* One that says why it cannot begin has not died: the next attempt may succeed. */
	if (r < 0 && r != -EPROTO)
		bury_signer(k);
	return r;
}

/* False: it has died too often. */
static bool may_restart(struct keeper *k)
{
	const uint64_t now_ns = monotonic_ns();

	k->deaths_ns[k->n_deaths++ % KEEPER_DEATHS_MAX] = now_ns;
	/* The next entry to be overwritten is the oldest one. */
	return k->n_deaths < KEEPER_DEATHS_MAX ||
	       now_ns - k->deaths_ns[k->n_deaths % KEEPER_DEATHS_MAX] >
		       KEEPER_DEATHS_MS * NSEC_PER_MSEC;
}

static int make_signer(struct keeper *k, uint32_t channels, struct link *l, char why[SIGN_WHY_MAX])
{
	_cleanup_close_ int state_fd = -1;
	int r = open_state(k, &state_fd);

	if (r < 0) {
		snprintf(why, SIGN_WHY_MAX, "%.400s: %s", k->state, strerror(-r));
		return r;
	}
	for (uint32_t i = 0; r == 0 && i < MIN(channels, SIGN_CHANNELS_MAX); i++)
		r = open_channel(l);
	if (r == 0)
		r = fork_signer(k, l, state_fd);
	if (r < 0)
		snprintf(why, SIGN_WHY_MAX, "the signer process cannot start: %s", strerror(-r));
	return r;
}

/*
 * In another folder the signer would not know the trees that it signed. So only the first name
 * counts.
 */
static void pin_state(struct keeper *k, const char *path)
{
	if (!k->pinned)
		snprintf(k->state, sizeof(k->state), "%s",
			 k->options.state ? k->options.state : path);
	k->pinned = true;
}

static void start_signer(struct keeper *k, const struct parent_request *q, struct parent_reply *a,
			 struct carried *carried)
{
	struct link l = {0};

	if (k->signer > 0) {
		bury_signer(k);
		if (!may_restart(k)) {
			a->result = -ENOTRECOVERABLE;
			snprintf(a->why, sizeof(a->why), "the signer died %u times in a minute",
				 KEEPER_DEATHS_MAX);
			return;
		}
	}
	pin_state(k, q->path);
	a->result = make_signer(k, q->channels, &l, a->why);
	a->signer_pid = k->signer;
	close_link(&l);
	carry_link(&l, carried);
}

/* ---- sockets of other owners ---- */

/*
 * A receiver that was taken over may ask for anything. So nothing is made or removed as root or as
 * the signer's user.
 */
static bool may_own(const struct keeper *k, uid_t uid)
{
	return !k->options.users.separate || (uid != 0 && uid != k->options.users.signer.uid);
}

static struct listener_options options_of(const struct parent_request *q)
{
	return (struct listener_options){
		.base = q->path,
		.set_owner = true,
		.uid = q->socket.uid,
		.gid = q->socket.gid,
		.mode = q->socket.mode,
		.replace = q->socket.replace,
	};
}

static void open_listener(struct keeper *k, const struct parent_request *q, struct parent_reply *a,
			  struct carried *carried)
{
	const struct listener_options options = options_of(q);
	struct listener listener;

	a->result = -EPERM;
	snprintf(a->why, sizeof(a->why),
		 "no socket is given to root or to the signer's user: name the VMM's user by "
		 "--socket-owner");
	if (!may_own(k, q->socket.uid))
		return;
	a->result = listener_bind(&listener, &options, a->why);
	if (a->result < 0)
		return;
	memcpy(a->socket.name, listener.name, sizeof(a->socket.name));
	a->socket.dev = listener.dev;
	a->socket.ino = listener.ino;
	carried->fds[carried->n++] = listener.fd;
	carried->fds[carried->n++] = listener.dir_fd;
}

static void clear_listener(struct keeper *k, const struct parent_request *q, struct parent_reply *a,
			   struct carried *carried)
{
	const struct listener_options options = options_of(q);

	(void)a;
	(void)carried;
	if (may_own(k, q->socket.uid))
		listener_remove_stale(&options);
}

static void unlink_listener(struct keeper *k, const struct parent_request *q,
			    struct parent_reply *a, struct carried *carried)
{
	struct listener listener = {
		.fd = -1, .dir_fd = k->taken_fd, .dev = q->socket.dev, .ino = q->socket.ino};

	(void)a;
	(void)carried;
	memcpy(listener.name, q->socket.name, sizeof(listener.name));
	if (may_own(k, q->socket.uid))
		listener_unlink(&listener, true, q->socket.uid, q->socket.gid);
}

/* Open the configuration here, because the receiver may not see a file that was replaced. */
static void open_config(struct keeper *k, const struct parent_request *q, struct parent_reply *a,
			struct carried *carried)
{
	int fd;

	(void)q;
	fd = k->options.config ? open(k->options.config, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
	a->result = fd < 0 ? -errno : 0;
	if (fd >= 0)
		carried->fds[carried->n++] = fd;
}

/* ---- the receiver's requests ---- */

static bool reply(const struct keeper *k, const struct parent_reply *a,
		  const struct carried *carried)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(carried->fds))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)a, .iov_len = sizeof(*a)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	const size_t size = carried->n * sizeof(int);

	if (a->result == 0 && carried->n > 0) {
		message.msg_control = control.space;
		message.msg_controllen = CMSG_SPACE(size);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(&control.head), carried->fds, size);
	}
	return sendmsg(k->fd, &message, MSG_NOSIGNAL) >= 0;
}

static bool take_request(struct keeper *k, struct parent_request *q)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = q, .iov_len = sizeof(*q)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	const struct cmsghdr *head;
	ssize_t n;

	do
		n = recvmsg(k->fd, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*q) || (unsigned)q->op >= _PARENT_OP_MAX)
		return false;
	head = CMSG_FIRSTHDR(&message);
	k->taken_fd = -1;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&k->taken_fd, CMSG_DATA(head), sizeof(int));
	q->path[sizeof(q->path) - 1] = '\0';
	q->algorithm[sizeof(q->algorithm) - 1] = q->kid[sizeof(q->kid) - 1] = '\0';
	q->socket.name[sizeof(q->socket.name) - 1] = '\0';
	return true;
}

static bool serve(struct keeper *k)
{
	static void (*const table[_PARENT_OP_MAX])(
		struct keeper * k, const struct parent_request *q, struct parent_reply *a,
		struct carried *carried) = {
		[PARENT_KEY] = open_key,	   [PARENT_START] = start_signer,
		[PARENT_LISTEN] = open_listener,   [PARENT_CLEAR] = clear_listener,
		[PARENT_UNLINK] = unlink_listener, [PARENT_CONFIG] = open_config,
	};
	struct parent_request q;
	struct parent_reply a = {0};
	struct carried carried = {0};
	bool ok = take_request(k, &q);

	if (!ok)
		return false;
	table[q.op](k, &q, &a, &carried);
	ok = reply(k, &a, &carried);
	for (unsigned i = 0; i < carried.n; i++)
		close_fd(carried.fds[i]);
	close_fd(take_fd(&k->taken_fd));
	return ok;
}

/*
 * The capabilities for sockets, folders and processes of other users. root owns its own files
 * anyway. The signer drops the rest of the bounding set.
 */
#define KEPT_CAPABILITIES                                                                          \
	(UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID | UINT64_C(1) << CAP_SETPCAP)

_Noreturn static void keeper_main(const struct keeper_options *options, int fd)
{
	static struct keeper k;

	k.options = *options;
	k.fd = fd;
	k.signer_fd = k.taken_fd = -1;
	prctl(PR_SET_NAME, "cellos-keeper", 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (options->users.separate)
		setgroups(0, NULL);
	confine_capabilities(KEPT_CAPABILITIES);
	/*
	 * This process ends with the receiver. A terminal or a service manager may send these
	 * signals to all processes.
	 */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	while (serve(&k))
		;
	/*
	 * The signer ends by itself when its channels are closed, after it has written its state.
	 */
	close_fd(k.signer_fd);
	if (k.signer > 0)
		waitpid(k.signer, NULL, 0);
	_exit(0);
}

int keeper_start(const struct keeper_options *options, int *ret_fd, pid_t *ret_pid)
{
	int fds[2], null_fd;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		close_fd(fds[0]);
		close_fd(fds[1]);
		return -errno;
	}
	if (pid == 0) {
		close_fd(fds[0]);
		/*
		 * Only the receiver may hold standard output, because its reader waits for the end
		 * of file.
		 */
		null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		dup2(null_fd, STDIN_FILENO);
		dup2(null_fd, STDOUT_FILENO);
		keeper_main(options, fds[1]);
	}
	close_fd(fds[1]);
	signing_environment_wipe();
	*ret_fd = fds[0];
	*ret_pid = pid;
	return 0;
}
