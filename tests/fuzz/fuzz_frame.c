/* SPDX-License-Identifier: MIT */
/* A frame's body. What is accepted keeps its limits and can be written as an event. */
#include "common/util.h"
#include "host-receiver/event/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char id[] = "c", hash[] = "h";
	static const struct stream_identity stream = {
		.cell_id = id, .run_id = id, .spec_hash = hash};
	static char out[EVENT_LINE_MAX];
	struct event_clock clock = {0};
	struct wire_refusal refusal;
	struct event_head head;
	struct declaration d;
	struct event e = {.stream = &stream};
	size_t len;

	if (size > WIRE_BODY_ACCEPT_MAX)
		return 0;
	if (wire_decode(data, size, &d, &refusal) != WIRE_OK) {
		if (refusal.error == WIRE_OK || refusal.offset > size)
			abort();
		return 0;
	}
	e.type = event_type_of_source(d.source);
	event_add_text(&e, EVENT_KEY_GUEST_COMM, d.guest_comm);
	event_add_uint(&e, EVENT_KEY_GUEST_PID, d.guest_pid);
	event_add_details(&e, d.details, d.n_details);
	if (event_write(&e, &clock, out, sizeof(out), &len, &head) < 0)
		abort();
	return 0;
}
