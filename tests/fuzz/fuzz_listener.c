/* SPDX-License-Identifier: MIT */
/* What a launcher sends: struct seccomp_data of a call, 8 bytes of capabilities, the message. What
 * passes the check is used. */
#include "common/util.h"
#include "guest-agent/probes/capability_table.h"
#include "guest-agent/probes/listener_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char type[SOCKET_TEXT_MAX], protocol[SOCKET_TEXT_MAX], name[SYSCALL_NAME_MAX];
	static _Alignas(8) struct listener_message m;
	struct seccomp_data call;
	uint64_t effective;
	const size_t head = sizeof(call) + sizeof(effective);
	const char *family;

	if (size < head)
		return 0;
	memcpy(&call, data, sizeof(call));
	memcpy(&effective, data + sizeof(call), sizeof(effective));
	data += head;
	size = MIN(size - head, sizeof(m));
	memcpy(&m, data, size);
	if (listener_message_check(&m, size) == 0)
		listener_match(m.rules, m.n_rules, &call);
	watch_judge(&call, effective);
	socket_describe(&call, &family, type, protocol);
	syscall_name_abi(call.arch, call.nr, name);
	return 0;
}
