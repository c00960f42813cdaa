/* SPDX-License-Identifier: MIT */
/* A frame's body from a guest, decoded; what is taken can be said again and means the same. */
#include "common/util.h"
#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[WIRE_FRAME_SEND_MAX];
	struct wire_refusal refusal;
	struct declaration d, e;
	int n;

	if (wire_decode(data, size, &d, &refusal) != WIRE_OK) {
		if (!wire_error_name(refusal.error) || refusal.offset > size)
			abort();
		return 0;
	}
	n = wire_encode(&d, again, sizeof(again));
	if (n < 0)
		return 0;
	if (wire_decode_length(again) != (uint32_t)n - WIRE_PREFIX_SIZE ||
	    wire_decode(again + WIRE_PREFIX_SIZE, (size_t)n - WIRE_PREFIX_SIZE, &e, &refusal) !=
		    WIRE_OK ||
	    e.source != d.source || e.guest_pid != d.guest_pid || e.n_details != d.n_details)
		abort();
	return 0;
}
