/* SPDX-License-Identifier: MIT */
/* What a launcher sends: struct seccomp_data of a call, 24 bytes of capability sets, the message.
 * What passes the check is used, also with its own bytes as the caller's memory. */
#include "common/util.h"
#include "guest-agent/probes/listener_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(8) struct listener_message m;
	struct seccomp_data call;
	struct capability_sets sets;
	const size_t head = sizeof(call) + sizeof(sets);

	if (size < head)
		return 0;
	memcpy(&call, data, sizeof(call));
	memcpy(&sets, data + sizeof(call), sizeof(sets));
	data += head;
	size = MIN(size - head, sizeof(m));
	memcpy(&m, data, size);
	if (listener_message_check(&m, size) == 0)
		listener_match(m.rules, m.n_rules, &call);
	watch_judge(&call, &sets, data, MIN(size, (size_t)WATCH_ARGUMENT_MAX), 1024);
	return 0;
}
