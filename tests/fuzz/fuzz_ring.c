/* SPDX-License-Identifier: MIT */
/* A BPF ring buffer: u64 how far it is written, then its bytes (at most 4096). */
#include "common/util.h"
#include "guest-agent/probes/net_program.h"

#define RING 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(8) uint8_t memory[2 * RING];
	const struct ring_view ring = {memory, RING};
	uint64_t end, pos = 0, next;
	const void *record;
	size_t len;

	if (size < sizeof(end))
		return 0;
	memcpy(&end, data, sizeof(end));
	memset(memory, 0, sizeof(memory));
	memcpy(memory, data + sizeof(end), MIN(size - sizeof(end), (size_t)RING));
	memcpy(memory + RING, memory, RING);
	while (ring_next(&ring, pos, end, &record, &len, &next) > 0) {
		struct net_record out;

		if ((const uint8_t *)record + len > memory + sizeof(memory) || next <= pos)
			abort();
		net_record_parse(record, len, &out);
		pos = next;
	}
	return 0;
}
