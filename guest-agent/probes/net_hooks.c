/* SPDX-License-Identifier: MIT */
/*
 * Maps, programs and links of the net source: see net_hooks.h. bpf(2).
 */
#include "guest-agent/probes/net_hooks.h"

#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "common/util.h"

#define VERIFIER_LOG_MAX 4096u
#define ONCE_MAX	 2048u /* sockets and addresses that datagrams were sent to */

/* Bytes; a record takes 80. */
static const uint32_t ring_sizes[_NET_RING_MAX] = {
	[NET_RING_CONNECT] = 512u << 10,
	[NET_RING_SENDMSG] = 512u << 10,
	[NET_RING_BIND] = 128u << 10,
	[NET_RING_SOCKET] = 64u << 10,
};

static int sys_bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	long r = syscall(SYS_bpf, cmd, attr, sizeof(*attr));

	return r < 0 ? -errno : (int)r;
}

static int map_create(enum bpf_map_type type, uint32_t key_size, uint32_t value_size,
		      uint32_t max_entries, uint32_t flags, const char *name)
{
	union bpf_attr attr = {.map_type = type,
			       .key_size = key_size,
			       .value_size = value_size,
			       .max_entries = max_entries,
			       .map_flags = flags};

	strncpy(attr.map_name, name, sizeof(attr.map_name) - 1);
	return sys_bpf(BPF_MAP_CREATE, &attr);
}

/* The last line with text; it names what the verifier did not accept. */
static const char *last_line(char *log)
{
	size_t len = strlen(log);
	char *eol;

	while (len && log[len - 1] == '\n')
		log[--len] = '\0';
	/* The verifier ends with figures. */
	eol = strrchr(log, '\n');
	if (eol && !strncmp(eol + 1, "processed ", 10)) {
		*eol = '\0';
		eol = strrchr(log, '\n');
	}
	return eol ? eol + 1 : log;
}

static int program_load(const struct net_hooks *h, enum net_hook hook, char why[PROBE_WHY_MAX])
{
	const struct net_hook_spec *spec = &net_hook_specs[hook];
	const struct net_program_fds fds = {
		.ring = h->rings[spec->ring].fd, .lost = h->lost_fd, .once = h->once_fd};
	struct bpf_insn insns[NET_PROGRAM_MAX];
	union bpf_attr attr = {
		.prog_type = spec->type,
		.insns = (uintptr_t)insns,
		.license = (uintptr_t) "Dual MIT/GPL",
		.expected_attach_type = spec->attach,
	};
	char log[VERIFIER_LOG_MAX] = "";
	int r, e;

	attr.insn_cnt = (uint32_t)net_program(insns, hook, &fds);
	strncpy(attr.prog_name, spec->name, sizeof(attr.prog_name) - 1);
	r = sys_bpf(BPF_PROG_LOAD, &attr);
	if (r >= 0)
		return r;
	/*
	 * Load it again, to get the verifier's reason. The first error is returned: a log that is
	 * too long is an error too.
	 */
	attr.log_level = 1;
	attr.log_buf = (uintptr_t)log;
	attr.log_size = sizeof(log);
	e = sys_bpf(BPF_PROG_LOAD, &attr);
	if (e >= 0)
		return e;
	snprintf(why, PROBE_WHY_MAX, "load of the %.16s program: %s: %.150s", spec->name,
		 strerror(-r), last_line(log));
	return r;
}

/* A descriptor of the root of the cgroup v2 tree, or a negative errno with the step in why. */
static int cgroup_root(char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int fs = (int)syscall(SYS_fsopen, "cgroup2", FSOPEN_CLOEXEC);
	const char *step = "fsopen(\"cgroup2\")";
	int mount = -1;

	if (fs >= 0) {
		step = "fsconfig(FSCONFIG_CMD_CREATE)";
		if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
			step = "fsmount";
			mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
		}
	}
	if (mount < 0) {
		mount = -errno;
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-mount));
	}
	return mount;
}

static int attach(struct net_hooks *h, enum net_hook hook, int root, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int program = program_load(h, hook, why);
	union bpf_attr attr = {0};
	int r;

	if (program < 0)
		return program;
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_fd = (uint32_t)root;
	attr.link_create.attach_type = net_hook_specs[hook].attach;
	r = sys_bpf(BPF_LINK_CREATE, &attr);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "attach of the %.16s program to the root cgroup: %s",
			 net_hook_specs[hook].name, strerror(-r));
		return r;
	}
	h->links[hook] = r;
	return 0;
}

static int ring_open(struct net_ring_map *m, uint32_t size)
{
	const size_t page = (size_t)getpagesize();
	void *p;

	m->fd = map_create(BPF_MAP_TYPE_RINGBUF, 0, 0, size, 0, "net_ring");
	if (m->fd < 0)
		return m->fd;
	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->consumer = p;
	p = mmap(NULL, page + 2 * (size_t)size, PROT_READ, MAP_SHARED, m->fd, (off_t)page);
	if (p == MAP_FAILED)
		return -errno;
	m->producer = p;
	m->view = (struct ring_view){.data = (const uint8_t *)p + page, .size = size};
	return 0;
}

static void ring_close(struct net_ring_map *m)
{
	const size_t page = (size_t)getpagesize();

	if (m->consumer)
		munmap(m->consumer, page);
	if (m->producer)
		munmap((void *)m->producer, page + 2 * m->view.size);
	close_fd(m->fd);
	*m = (struct net_ring_map){.fd = -1};
}

static int maps_open(struct net_hooks *h, const char **ret_step)
{
	void *p;
	int r;

	*ret_step = "create a BPF ring buffer (CONFIG_BPF_SYSCALL)";
	for (unsigned i = 0; i < _NET_RING_MAX; i++) {
		r = ring_open(&h->rings[i], ring_sizes[i]);
		if (r < 0)
			return r;
	}
	*ret_step = "create a BPF array";
	h->lost_fd = map_create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t),
				_NET_RING_MAX * sizeof(uint64_t), 1, BPF_F_MMAPABLE, "net_lost");
	if (h->lost_fd < 0)
		return h->lost_fd;
	p = mmap(NULL, (size_t)getpagesize(), PROT_READ, MAP_SHARED, h->lost_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	h->lost = p;
	*ret_step = "create a BPF hash";
	h->once_fd = map_create(BPF_MAP_TYPE_LRU_HASH, sizeof(struct net_once_key),
				sizeof(uint64_t), ONCE_MAX, 0, "net_once");
	return h->once_fd < 0 ? h->once_fd : 0;
}

int net_hooks_open(struct net_hooks *h, char why[PROBE_WHY_MAX])
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	_cleanup_close_ int root = -1;
	const char *step;
	int r;

	*h = (struct net_hooks){.lost_fd = -1, .once_fd = -1};
	for (unsigned i = 0; i < _NET_RING_MAX; i++)
		h->rings[i].fd = -1;
	for (unsigned i = 0; i < _NET_HOOK_MAX; i++)
		h->links[i] = -1;
	/* Before 5.11 maps count against it. */
	(void)!prlimit(0, RLIMIT_MEMLOCK, &unlimited, NULL);
	r = maps_open(h, &step);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
		return r;
	}
	root = r = cgroup_root(why);
	for (unsigned i = 0; r >= 0 && i < _NET_HOOK_MAX; i++) {
		r = attach(h, (enum net_hook)i, root, why);
		if (r < 0 && net_hook_specs[i].ring != NET_RING_CONNECT)
			r = 0;
	}
	return r < 0 ? r : 0;
}

void net_hooks_close(struct net_hooks *h)
{
	for (unsigned i = 0; i < _NET_HOOK_MAX; i++)
		close_fd(h->links[i]);
	for (unsigned i = 0; i < _NET_RING_MAX; i++)
		ring_close(&h->rings[i]);
	if (h->lost)
		munmap((void *)h->lost, (size_t)getpagesize());
	close_fd(h->lost_fd);
	close_fd(h->once_fd);
}

int net_hooks_next(struct net_hooks *h, enum net_ring ring, struct net_record *ret,
		   uint64_t *malformed)
{
	struct net_ring_map *m = &h->rings[ring];

	for (;;) {
		const uint64_t end = __atomic_load_n(m->producer, __ATOMIC_ACQUIRE);
		const void *data;
		uint64_t next;
		size_t len;
		int r = ring_next(&m->view, *m->consumer, end, &data, &len, &next);
		bool ours;

		if (r <= 0)
			return r;
		ours = r == 1 && net_record_parse(data, len, ret) == 0;
		__atomic_store_n(m->consumer, next, __ATOMIC_RELEASE);
		if (ours)
			return 1;
		(*malformed)++;
	}
}

bool net_hooks_empty(const struct net_hooks *h, enum net_ring ring)
{
	const struct net_ring_map *m = &h->rings[ring];

	return __atomic_load_n(m->producer, __ATOMIC_ACQUIRE) == *m->consumer;
}

uint64_t net_hooks_lost(const struct net_hooks *h)
{
	uint64_t lost = 0;

	for (unsigned i = 0; i < _NET_RING_MAX; i++)
		lost += __atomic_load_n(&h->lost[i], __ATOMIC_RELAXED);
	return lost;
}
