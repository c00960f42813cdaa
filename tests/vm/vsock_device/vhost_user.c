/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "vhost_user.h"

#define VHOST_USER_VERSION	1u
#define VHOST_USER_REPLY	(1u << 2)
#define F_PROTOCOL_FEATURES	30
#define PROTOCOL_FEATURE_CONFIG 9
#define VRING_NUMBER_MASK	0xffu
#define VRING_NO_FD		(1u << 8)
#define CONFIG_SIZE_MAX		256u
#define QUEUE_SIZE_MAX		1024u

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
	GET_CONFIG = 24,
	REQUEST_MAX
};

struct message {
	struct {
		uint32_t request, flags, size;
	} head;
	union {
		uint64_t u64;
		struct {
			uint32_t index, number;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} address;
		struct {
			uint32_t n, padding;
			struct {
				uint64_t guest, size, user, offset;
			} regions[VHOST_REGIONS_MAX];
		} memory;
		struct {
			uint32_t offset, size, flags;
			uint8_t data[CONFIG_SIZE_MAX];
		} config;
	} body;
	int fds[VHOST_REGIONS_MAX];
	unsigned n_fds;
};

void vhost_init(struct vhost *vhost, int fd, uint64_t guest_cid)
{
	*vhost = (struct vhost){.fd = fd, .guest_cid = guest_cid};
	for (unsigned i = 0; i < VHOST_QUEUE_MAX; i++)
		vhost->queues[i].kick_fd = vhost->queues[i].call_fd = -1;
}

static void unmap(struct vhost *vhost)
{
	for (unsigned i = 0; i < vhost->n_regions; i++)
		munmap(vhost->regions[i].mapping, vhost->regions[i].mapping_size);
	vhost->n_regions = 0;
}

void vhost_close(struct vhost *vhost)
{
	for (unsigned i = 0; i < VHOST_QUEUE_MAX; i++) {
		close_fd(vhost->queues[i].kick_fd);
		close_fd(vhost->queues[i].call_fd);
	}
	unmap(vhost);
	close_fd(vhost->fd);
}

/* ---- the guest's memory ---- */

static void *translate(const struct vhost *vhost, uint64_t address, uint64_t len, bool of_guest)
{
	for (unsigned i = 0; i < vhost->n_regions; i++) {
		const struct vhost_region *r = &vhost->regions[i];
		const uint64_t begin = of_guest ? r->guest : r->user;

		if (address >= begin && address - begin < r->size &&
		    len <= r->size - (address - begin))
			return r->mapped + (address - begin);
	}
	return NULL;
}

static int start_queue(struct vhost *vhost, struct vhost_queue *q)
{
	q->desc = translate(vhost, q->desc_address, q->size * sizeof(*q->desc), false);
	q->avail = translate(vhost, q->avail_address,
			     sizeof(*q->avail) + q->size * sizeof(q->avail->ring[0]), false);
	q->used = translate(vhost, q->used_address,
			    sizeof(*q->used) + q->size * sizeof(q->used->ring[0]), false);
	if (q->desc && q->avail && q->used)
		return 0;
	q->desc = NULL;
	return -EFAULT;
}

static int set_memory(struct vhost *vhost, struct message *m)
{
	int r = 0;

	unmap(vhost);
	if (m->body.memory.n > VHOST_REGIONS_MAX || m->body.memory.n != m->n_fds)
		return -EBADMSG;
	for (unsigned i = 0; i < m->n_fds; i++) {
		struct vhost_region *region = &vhost->regions[i];
		const uint64_t offset = m->body.memory.regions[i].offset;

		*region = (struct vhost_region){
			.guest = m->body.memory.regions[i].guest,
			.size = m->body.memory.regions[i].size,
			.user = m->body.memory.regions[i].user,
			.mapping_size = m->body.memory.regions[i].size + offset,
		};
		region->mapping = mmap(NULL, region->mapping_size, PROT_READ | PROT_WRITE,
				       MAP_SHARED, m->fds[i], 0);
		if (region->mapping == MAP_FAILED)
			return -errno;
		region->mapped = (uint8_t *)region->mapping + offset;
		vhost->n_regions = i + 1;
	}
	/* The rings of running queues have moved with the memory. */
	for (unsigned i = 0; r == 0 && i < VHOST_QUEUE_MAX; i++)
		if (vhost->queues[i].desc)
			r = start_queue(vhost, &vhost->queues[i]);
	return r;
}

/* ---- virtqueues ---- */

bool vhost_has(const struct vhost *vhost, enum vhost_queue_number number)
{
	const struct vhost_queue *q = &vhost->queues[number];

	return q->desc && __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE) != q->next;
}

bool vhost_take(struct vhost *vhost, enum vhost_queue_number number, bool writable,
		struct vhost_chain *ret_chain)
{
	struct vhost_queue *q = &vhost->queues[number];
	struct vhost_chain chain = {0};
	uint16_t at;

	if (!vhost_has(vhost, number))
		return false;
	at = chain.head = q->avail->ring[q->next++ % q->size] % (uint16_t)q->size;
	for (;;) {
		const struct vring_desc d = q->desc[at];
		void *data = translate(vhost, d.addr, d.len, true);

		/* A guest that lies gets nothing: an empty chain. */
		if (!data || chain.n == VHOST_CHAIN_MAX ||
		    writable != !!(d.flags & VRING_DESC_F_WRITE)) {
			chain.n = 0;
			chain.size = 0;
			break;
		}
		chain.buffers[chain.n++] = (struct iovec){data, d.len};
		chain.size += d.len;
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		at = d.next % (uint16_t)q->size;
	}
	*ret_chain = chain;
	return true;
}

void vhost_give(struct vhost *vhost, enum vhost_queue_number number,
		const struct vhost_chain *chain, size_t written)
{
	struct vhost_queue *q = &vhost->queues[number];
	const uint16_t index = q->used->idx;

	q->used->ring[index % q->size] =
		(struct vring_used_elem){.id = chain->head, .len = (uint32_t)written};
	__atomic_store_n(&q->used->idx, (uint16_t)(index + 1), __ATOMIC_RELEASE);
	q->signal = true;
}

void vhost_signal(struct vhost *vhost)
{
	const uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < VHOST_QUEUE_MAX; i++) {
		struct vhost_queue *q = &vhost->queues[i];

		if (!q->signal || !q->desc)
			continue;
		q->signal = false;
		if (q->call_fd >= 0 && !(q->avail->flags & VRING_AVAIL_F_NO_INTERRUPT) &&
		    write(q->call_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			perror("vsock_device: interrupting the guest");
	}
}

static size_t copy(const struct vhost_chain *chain, size_t offset, void *data, size_t len, bool in)
{
	size_t done = 0;

	for (unsigned i = 0; i < chain->n && done < len; i++) {
		const struct iovec *b = &chain->buffers[i];
		size_t n;

		if (offset >= b->iov_len) {
			offset -= b->iov_len;
			continue;
		}
		n = MIN(b->iov_len - offset, len - done);
		if (in)
			memcpy((uint8_t *)b->iov_base + offset, (uint8_t *)data + done, n);
		else
			memcpy((uint8_t *)data + done, (uint8_t *)b->iov_base + offset, n);
		done += n;
		offset = 0;
	}
	return done;
}

size_t vhost_chain_read(const struct vhost_chain *chain, size_t offset, void *data, size_t len)
{
	return copy(chain, offset, data, len, false);
}

size_t vhost_chain_write(const struct vhost_chain *chain, size_t offset, const void *data,
			 size_t len)
{
	return copy(chain, offset, (void *)(uintptr_t)data, len, true);
}

/* ---- messages ---- */

static int reply(struct vhost *vhost, struct message *m, uint32_t size)
{
	struct iovec parts[] = {{&m->head, sizeof(m->head)}, {&m->body, size}};
	const struct msghdr h = {.msg_iov = parts, .msg_iovlen = ARRAY_SIZE(parts)};

	m->head.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
	m->head.size = size;
	return sendmsg(vhost->fd, &h, MSG_NOSIGNAL) == (ssize_t)(sizeof(m->head) + size) ? 0 : -EIO;
}

static int take_queue_fd(struct vhost *vhost, struct message *m, bool kick)
{
	const uint64_t number = m->body.u64 & VRING_NUMBER_MASK;
	struct vhost_queue *q;
	int *fd;

	if (number >= VHOST_QUEUE_MAX)
		return -EBADMSG;
	q = &vhost->queues[number];
	fd = kick ? &q->kick_fd : &q->call_fd;
	close_fd(take_fd(fd));
	if (!(m->body.u64 & VRING_NO_FD) && m->n_fds == 1)
		*fd = take_fd(&m->fds[0]);
	/* A kick makes it run. */
	return kick ? start_queue(vhost, q) : 0;
}

static int handle_queue(struct vhost *vhost, struct message *m)
{
	struct vhost_queue *q;

	if (m->body.state.index >= VHOST_QUEUE_MAX)
		return -EBADMSG;
	q = &vhost->queues[m->body.state.index];
	switch (m->head.request) {
	case SET_VRING_NUM:
		if (!m->body.state.number || m->body.state.number > QUEUE_SIZE_MAX)
			return -EBADMSG;
		q->size = m->body.state.number;
		return 0;
	case SET_VRING_ADDR:
		q->desc_address = m->body.address.desc;
		q->avail_address = m->body.address.avail;
		q->used_address = m->body.address.used;
		return 0;
	case SET_VRING_BASE: q->next = (uint16_t)m->body.state.number; return 0;
	case GET_VRING_BASE:
		m->body.state.number = q->next;
		q->desc = NULL;
		close_fd(take_fd(&q->kick_fd));
		vhost->stopped = true;
		return reply(vhost, m, sizeof(m->body.state));
	default: return 0;
	}
}

static int handle(struct vhost *vhost, struct message *m)
{
	switch (m->head.request) {
	case GET_FEATURES:
		m->body.u64 = 1ull << VIRTIO_F_VERSION_1 | 1ull << F_PROTOCOL_FEATURES;
		return reply(vhost, m, sizeof(m->body.u64));
	case GET_PROTOCOL_FEATURES:
		m->body.u64 = 1ull << PROTOCOL_FEATURE_CONFIG;
		return reply(vhost, m, sizeof(m->body.u64));
	case GET_CONFIG:
		if (m->body.config.size > CONFIG_SIZE_MAX)
			return -EBADMSG;
		/* The whole of it is the guest's CID (struct virtio_vsock_config). */
		memset(m->body.config.data, 0, m->body.config.size);
		if (m->body.config.offset == 0)
			memcpy(m->body.config.data, &vhost->guest_cid,
			       MIN(sizeof(vhost->guest_cid), (size_t)m->body.config.size));
		return reply(vhost, m, m->head.size);
	case SET_MEM_TABLE: return set_memory(vhost, m);
	case SET_VRING_KICK: return take_queue_fd(vhost, m, true);
	case SET_VRING_CALL: return take_queue_fd(vhost, m, false);
	case SET_VRING_NUM:
	case SET_VRING_ADDR:
	case SET_VRING_BASE:
	case GET_VRING_BASE: return handle_queue(vhost, m);
	case SET_FEATURES:
	case SET_OWNER:
	case SET_VRING_ERR:
	case SET_PROTOCOL_FEATURES:
	case SET_VRING_ENABLE: return 0;
	default:
		fprintf(stderr, "vsock_device: vhost-user request %u is not known\n",
			m->head.request);
		return -EBADMSG;
	}
}

static void take_fds(struct msghdr *h, struct message *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	m->n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(m->fds, CMSG_DATA(c), m->n_fds * sizeof(int));
}

int vhost_read_message(struct vhost *vhost)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * VHOST_REGIONS_MAX)];
	struct message m = {0};
	struct iovec head = {&m.head, sizeof(m.head)};
	struct msghdr h = {.msg_iov = &head,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(vhost->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC);
	int r = -EBADMSG;

	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return -ENOTCONN;
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	take_fds(&h, &m);
	if (n == sizeof(m.head) && m.head.size <= sizeof(m.body) &&
	    (m.head.size == 0 ||
	     recv(vhost->fd, &m.body, m.head.size, MSG_WAITALL) == (ssize_t)m.head.size))
		r = handle(vhost, &m);
	for (unsigned i = 0; i < m.n_fds; i++)
		close_fd(m.fds[i]);
	return r;
}
