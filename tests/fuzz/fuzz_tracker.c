/* SPDX-License-Identifier: MIT */
/*
 * Any sequence of events into the process tracker, repairs between them. The pids are such as no
 * kernel gives, so /proc knows none of them. Each start is told once: never more ends than starts
 * and ends of strangers.
 */
#include "common/util.h"
#include "guest-agent/event_queue.h"
#include "guest-agent/probes/process_tracker.h"

#define PID_BASE 0x40000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct probe_config config = {.self = PID_BASE + 255};
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	struct process_tracker t = {.config = &config, .dir = {.fd = -1}};

	t.table = pid_table_new();
	t.images = image_table_new();
	t.holds = calloc(1, sizeof(*t.holds));
	t.past = calloc(1, sizeof(*t.past));
	if (!q || !t.table || !t.images || !t.holds || !t.past)
		abort();
	for (size_t i = 0; i + 5 <= size; i += 5) {
		struct connector_event ev = {
			.kind = data[i] % (CONNECTOR_OTHER + 1),
			.tid = PID_BASE + data[i + 1],
			.tgid = PID_BASE + data[i + 2],
			.parent_tgid = data[i + 3] ? PID_BASE + data[i + 3] : 0,
			.exit_status = data[i + 4],
			.at_ns = (uint64_t)data[i + 4] << 24,
		};

		memcpy(ev.comm, data + i, 5);
		process_tracker_event(&t, q, &ev);
		if (data[i] & 0x80) {
			/* A walk that found nobody, and its report. */
			t.scan++;
			t.state = TRACKER_REPORTING;
			t.place = 0;
			while (process_tracker_turn(&t, q, 1 + data[i + 1] % 4))
				;
			if (pid_table_count(t.table) != 0)
				abort();
		}
		if (data[i] & 0x40)
			process_tracker_check(&t, q);
		if (data[i] & 0x20)
			process_tracker_settle(&t, q, ev.at_ns, ev.at_ns);
	}
	if (pid_table_count(t.table) > 256)
		abort();
	process_tracker_done(&t);
	event_queue_free(q);
	return 0;
}
