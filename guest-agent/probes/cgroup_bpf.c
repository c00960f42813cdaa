/* SPDX-License-Identifier: MIT */
/*
 * Connects by a BPF program at the connect hooks of the root cgroup: every connect(2) of an inet
 * or inet6 socket, in whatever network namespace, by whatever ABI and also by io_uring, before it
 * happens, with the kernel's own copy of the address. The program goes away with its link's
 * descriptor, so nothing stays behind when the agent dies.
 *
 * The cgroup tree is reached without mounting it anywhere. After open() no bpf(2) is needed: the
 * ring and the count of losses are read through mappings.
 *
 * Whoever has CAP_SYS_ADMIN could detach the program; so the agent connects a datagram socket of
 * its own now and then (no packet is sent by that) and must see it.
 *
 * Single-threaded; allocates in open() only.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/observation.h"
#include "guest-agent/probes/connect_program.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/sources.h"

#define RING_SIZE	   (256u << 10) /* 4096 records */
#define VERIFIER_LOG_MAX   4096u
#define FIRST_PID_NS	   UINT64_C(0xeffffffc) /* PROC_PID_INIT_INO: its inode number */
#define SELF_TEST_FAILURES 2u			/* in a row, before the source gives up */

enum { HOOK_INET4, HOOK_INET6, HOOK_MAX };

static const struct {
	enum bpf_attach_type attach;
	int family;
	const char *name;
} hooks[HOOK_MAX] = {
	[HOOK_INET4] = {BPF_CGROUP_INET4_CONNECT, AF_INET, "connect4"},
	[HOOK_INET6] = {BPF_CGROUP_INET6_CONNECT, AF_INET6, "connect6"},
};

struct cgroup_bpf {
	struct probe probe; /* its fd: an epoll of ring_fd and dead_fd */
	const struct probe_config *config;
	int ring_fd;
	int lost_fd;
	int dead_fd; /* an eventfd: readable once the source has died */
	int links[HOOK_MAX];
	int test_fd; /* the socket of the self-test, or -1 */
	long page;
	uint64_t *consumer;	  /* mapped, one page */
	const uint64_t *producer; /* mapped, one page and twice the ring */
	const uint64_t *lost;	  /* mapped, one page */
	struct ring_view ring;
	uint64_t lost_told;
	uint64_t malformed;
	bool test_pending;
	bool test_seen;
	unsigned test_failures;
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

/* The last line that says something, which names what the verifier could not accept. */
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

static int program_load(struct cgroup_bpf *b, unsigned hook, char why[PROBE_WHY_MAX])
{
	struct bpf_insn insns[CONNECT_PROGRAM_MAX];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
		.insns = (uintptr_t)insns,
		.license = (uintptr_t) "Dual MIT/GPL",
		.expected_attach_type = hooks[hook].attach,
	};
	char log[VERIFIER_LOG_MAX] = "";
	int r, e;

	attr.insn_cnt =
		(uint32_t)connect_program(insns, hooks[hook].family, b->ring_fd, b->lost_fd);
	strncpy(attr.prog_name, hooks[hook].name, sizeof(attr.prog_name) - 1);
	r = sys_bpf(BPF_PROG_LOAD, &attr);
	if (r >= 0)
		return r;
	/* Once more, to learn why. The first answer counts: a log too long is an error too. */
	attr.log_level = 1;
	attr.log_buf = (uintptr_t)log;
	attr.log_size = sizeof(log);
	e = sys_bpf(BPF_PROG_LOAD, &attr);
	if (e >= 0)
		return e;
	snprintf(why, PROBE_WHY_MAX, "load of the %s program: %s: %.150s", hooks[hook].name,
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

static int attach(struct cgroup_bpf *b, unsigned hook, int root, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int program = program_load(b, hook, why);
	union bpf_attr attr = {0};
	int r;

	if (program < 0)
		return program;
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_fd = (uint32_t)root;
	attr.link_create.attach_type = hooks[hook].attach;
	r = sys_bpf(BPF_LINK_CREATE, &attr);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "attach of the %s program to the root cgroup: %s",
			 hooks[hook].name, strerror(-r));
		return r;
	}
	b->links[hook] = r;
	return 0;
}

static int map_memory(struct cgroup_bpf *b)
{
	const size_t page = (size_t)b->page;
	void *p;

	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, b->ring_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	b->consumer = p;
	p = mmap(NULL, page + 2 * (size_t)RING_SIZE, PROT_READ, MAP_SHARED, b->ring_fd, b->page);
	if (p == MAP_FAILED)
		return -errno;
	b->producer = p;
	b->ring = (struct ring_view){.data = (const uint8_t *)p + page, .size = RING_SIZE};
	p = mmap(NULL, page, PROT_READ, MAP_SHARED, b->lost_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	b->lost = p;
	return 0;
}

/* Connecting a datagram socket sends nothing; whether it succeeds does not matter. */
static void self_test_send(struct cgroup_bpf *b)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};

	b->test_pending = true;
	b->test_seen = false;
	(void)!connect(b->test_fd, (struct sockaddr *)&to, sizeof(to));
}

/* The kernel works for io_uring in threads of the process that have names of their own. */
static bool is_uring_thread(const char comm[static PROC_COMM_MAX])
{
	return !strncmp(comm, "iou-wrk-", 8) || !strncmp(comm, "iou-sqp-", 8);
}

static void report(struct cgroup_bpf *b, struct event_queue *q, const struct connect_record *r)
{
	size_t comm_len = strnlen(r->comm, sizeof(r->comm));
	char comm[PROC_COMM_MAX];
	char address[INET6_ADDRSTRLEN], exe[WIRE_DETAIL_TEXT_MAX];
	struct observation o;
	int n;

	if ((pid_t)r->pid == b->config->self)
		b->test_seen = true;
	if (probe_excludes(b->config, (pid_t)r->pid))
		return;
	inet_ntop((int)r->family, r->address, address, sizeof(address));
	memcpy(comm, r->comm, sizeof(comm));
	if (is_uring_thread(r->comm)) {
		n = proc_read_comm((pid_t)r->pid, comm);
		if (n > 0)
			comm_len = (size_t)n;
	}
	observation_init(&o, WIRE_NET_CONNECT_ATTEMPTED, (pid_t)r->pid, comm, comm_len, r->at_ns);
	declaration_add_text(&o.d, WIRE_KEY_FAMILY,
			     wire_text(r->family == AF_INET6 ? "inet6" : "inet"));
	declaration_add_text(&o.d, WIRE_KEY_ADDRESS, wire_text(address));
	declaration_add_uint(&o.d, WIRE_KEY_PORT, ntohs((uint16_t)r->port));
	n = proc_read_exe((pid_t)r->pid, exe, sizeof(exe));
	if (n > 0)
		observation_add_bytes(&o, WIRE_KEY_EXE, exe, (size_t)n);
	event_queue_observe(q, &o.d);
}

static void account_loss(struct cgroup_bpf *b, struct event_queue *q)
{
	uint64_t lost = __atomic_load_n(b->lost, __ATOMIC_RELAXED);

	if (lost == b->lost_told)
		return;
	event_queue_kernel_lost(q, lost - b->lost_told);
	b->lost_told = lost;
}

static int cgroup_bpf_drain(struct probe *probe, struct event_queue *q, unsigned budget)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;
	uint64_t pos = *b->consumer, next;
	unsigned done = 0;
	int r = 0;

	if (b->test_failures >= SELF_TEST_FAILURES)
		return -EPIPE;
	while (done < budget) {
		uint64_t end = __atomic_load_n(b->producer, __ATOMIC_ACQUIRE);
		struct connect_record record;
		const void *data;
		size_t len;

		r = ring_next(&b->ring, pos, end, &data, &len, &next);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		if (r == 1 && connect_record_parse(data, len, &record) == 0)
			report(b, q, &record);
		else
			b->malformed++;
		pos = next;
		__atomic_store_n(b->consumer, pos, __ATOMIC_RELEASE);
		done++;
	}
	account_loss(b, q);
	return r > 0;
}

static int cgroup_bpf_check(struct probe *probe, struct event_queue *q)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;
	const uint64_t one = 1;

	/* What a full ring lost may have been the self-test itself. */
	if (__atomic_load_n(b->lost, __ATOMIC_RELAXED) != b->lost_told)
		b->test_pending = false;
	account_loss(b, q);
	if (b->test_fd < 0)
		return 1;
	/* No verdict while something waits to be read. */
	if (b->test_pending && __atomic_load_n(b->producer, __ATOMIC_ACQUIRE) == *b->consumer) {
		b->test_failures = b->test_seen ? 0 : b->test_failures + 1;
		b->test_pending = false;
	}
	if (b->test_failures >= SELF_TEST_FAILURES)
		(void)!write(b->dead_fd, &one, sizeof(one));
	else if (!b->test_pending)
		self_test_send(b);
	return b->test_failures == 0;
}

static void cgroup_bpf_close(struct probe *probe)
{
	struct cgroup_bpf *b = (struct cgroup_bpf *)probe;
	const size_t page = (size_t)b->page;

	for (unsigned i = 0; i < HOOK_MAX; i++)
		close_fd(b->links[i]);
	if (b->consumer)
		munmap(b->consumer, page);
	if (b->producer)
		munmap((void *)b->producer, page + 2 * (size_t)RING_SIZE);
	if (b->lost)
		munmap((void *)b->lost, page);
	close_fd(b->ring_fd);
	close_fd(b->lost_fd);
	close_fd(b->dead_fd);
	close_fd(b->test_fd);
	close_fd(b->probe.fd);
	free(b);
}

/* Descriptors and maps. A negative errno with the step. */
static int prepare(struct cgroup_bpf *b, const char **ret_step)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int r;

	*ret_step = "create a BPF ring buffer";
	b->ring_fd = map_create(BPF_MAP_TYPE_RINGBUF, 0, 0, RING_SIZE, 0, "connects");
	if (b->ring_fd < 0)
		return b->ring_fd;
	*ret_step = "create a BPF array";
	b->lost_fd = map_create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(uint64_t), 1,
				BPF_F_MMAPABLE, "connects_lost");
	if (b->lost_fd < 0)
		return b->lost_fd;
	*ret_step = "map the BPF ring buffer";
	r = map_memory(b);
	if (r < 0)
		return r;
	*ret_step = "epoll";
	b->dead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->probe.fd = epoll_create1(EPOLL_CLOEXEC);
	if (b->dead_fd < 0 || b->probe.fd < 0 ||
	    epoll_ctl(b->probe.fd, EPOLL_CTL_ADD, b->ring_fd, &ev) < 0 ||
	    epoll_ctl(b->probe.fd, EPOLL_CTL_ADD, b->dead_fd, &ev) < 0)
		return -errno;
	return 0;
}

static int cgroup_bpf_open(const struct probe_config *config, struct probe **ret,
			   char why[PROBE_WHY_MAX])
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct cgroup_bpf *b = calloc(1, sizeof(*b));
	_cleanup_close_ int root = -1;
	const char *step = "memory";
	struct stat st;
	int r = -ENOMEM;

	if (!b)
		goto fail;
	*b = (struct cgroup_bpf){.probe = {.ops = &cgroup_bpf_ops, .fd = -1},
				 .config = config,
				 .ring_fd = -1,
				 .lost_fd = -1,
				 .dead_fd = -1,
				 .links = {-1, -1},
				 .test_fd = -1,
				 .page = getpagesize()};

	step = "BPF tells pids of the first pid namespace, and this is another";
	r = stat("/proc/self/ns/pid", &st) < 0 ? -errno : 0;
	if (r == 0 && st.st_ino != FIRST_PID_NS)
		r = -EOPNOTSUPP;
	if (r < 0)
		goto fail;
	/* Before 5.11 maps count against it. */
	(void)!prlimit(0, RLIMIT_MEMLOCK, &unlimited, NULL);
	r = prepare(b, &step);
	if (r < 0)
		goto fail;
	step = NULL;
	root = r = cgroup_root(why);
	for (unsigned i = 0; r >= 0 && i < HOOK_MAX; i++)
		r = attach(b, i, root, why);
	if (r < 0)
		goto fail;

	/* Without IPv4 there is no self-test. */
	b->test_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (b->test_fd >= 0) {
		self_test_send(b);
		if (__atomic_load_n(b->producer, __ATOMIC_ACQUIRE) == 0) {
			step = "a connect of the agent itself was not seen";
			r = -EOPNOTSUPP;
			goto fail;
		}
	}
	*ret = &b->probe;
	return 0;

fail:
	if (step)
		snprintf(why, PROBE_WHY_MAX, "%s: %s", step, strerror(-r));
	if (b)
		cgroup_bpf_close(&b->probe);
	return r;
}

const struct probe_ops cgroup_bpf_ops = {
	.via = "cgroup-bpf",
	.family = PROBE_NET,
	.capabilities = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH,
	.uses = "a BPF program at the root cgroup's connect hooks",
	.misses = "vsock, and what a connect came to",
	.open = cgroup_bpf_open,
	.drain = cgroup_bpf_drain,
	.check = cgroup_bpf_check,
	.close = cgroup_bpf_close,
};
