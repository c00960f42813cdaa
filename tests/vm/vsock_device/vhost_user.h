/* SPDX-License-Identifier: MIT */
/*
 * The backend's half of vhost-user, as far as QEMU needs it for vhost-user-vsock-pci: features, the
 * guest's memory, and two split virtqueues without indirect descriptors and event indexes. One
 * frontend, one thread; the caller polls the descriptors and says which of them are ready.
 *
 * Source: QEMU docs/interop/vhost-user.rst; virtio 1.2, 2.7 (split virtqueues).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define VHOST_REGIONS_MAX 8u
#define VHOST_CHAIN_MAX	  64u /* descriptors of a chain */

/* As virtio-vsock numbers them. QEMU keeps the event queue for itself. */
enum vhost_queue_number { VHOST_QUEUE_RX, VHOST_QUEUE_TX, VHOST_QUEUE_MAX };

struct vring_desc;
struct vring_avail;
struct vring_used;

struct vhost_queue {
	uint32_t size;
	uint64_t desc_address, avail_address, used_address; /* the frontend's */
	struct vring_desc *desc;			    /* NULL until the queue runs */
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next; /* of the available ring */
	int kick_fd, call_fd;
	bool signal; /* something was used since the last call */
};

struct vhost_region {
	uint64_t guest, size, user;
	uint8_t *mapped; /* of guest's first byte */
	void *mapping;
	size_t mapping_size;
};

/* A chain that the guest made available: its buffers in this process's memory. */
struct vhost_chain {
	uint16_t head;
	unsigned n;
	struct iovec buffers[VHOST_CHAIN_MAX];
	size_t size; /* of all buffers */
};

struct vhost {
	int fd;
	uint64_t guest_cid;
	struct vhost_region regions[VHOST_REGIONS_MAX];
	unsigned n_regions;
	struct vhost_queue queues[VHOST_QUEUE_MAX];
	bool stopped; /* a queue was stopped since the caller looked: the driver is gone */
};

void vhost_init(struct vhost *vhost, int fd, uint64_t guest_cid);
void vhost_close(struct vhost *vhost);

/* Reads and answers one message. 0, -ENOTCONN when the frontend is gone, or a negative errno when
 * it does not keep to the protocol. */
int vhost_read_message(struct vhost *vhost);

/* The next chain of a queue; false when there is none. writable: as the device's (rx) must be. */
bool vhost_take(struct vhost *vhost, enum vhost_queue_number number, bool writable,
		struct vhost_chain *ret_chain);

/* Gives a chain back with so many bytes written to it. */
void vhost_give(struct vhost *vhost, enum vhost_queue_number number,
		const struct vhost_chain *chain, size_t written);

/* Whether vhost_take() would find something. */
bool vhost_has(const struct vhost *vhost, enum vhost_queue_number number);

/* Interrupts the guest for what was given back. */
void vhost_signal(struct vhost *vhost);

/* Between a chain's buffers and memory; the number of bytes, less than len at the chain's end. */
size_t vhost_chain_read(const struct vhost_chain *chain, size_t offset, void *data, size_t len);
size_t vhost_chain_write(const struct vhost_chain *chain, size_t offset, const void *data,
			 size_t len);
