/* SPDX-License-Identifier: MIT */
/* Audit datagrams, one after the other: u16 type, u16 length, text. Joined as they come. */
#include <linux/audit.h>

#include "common/util.h"
#include "guest-agent/probes/audit_join.h"
#include "guest-agent/probes/audit_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct audit_join join;

	memset(&join, 0, sizeof(join));
	audit_rule_is_ours(data, size);
	while (size >= 4) {
		const struct audit_record *call;
		struct audit_record record;
		uint16_t type, len;

		memcpy(&type, data, 2);
		memcpy(&len, data + 2, 2);
		data += 4;
		size -= 4;
		len = (uint16_t)MIN((size_t)len, size);
		if (audit_record_parse(type, (const char *)data, len, &record) == 0) {
			if (record.comm_len > AUDIT_COMM_MAX || record.exe_len > AUDIT_EXE_MAX ||
			    record.sockaddr_len > AUDIT_SOCKADDR_MAX)
				abort();
			call = audit_join_add(&join, &record);
			if (call && call->kind != AUDIT_KIND_SYSCALL &&
			    call->kind != AUDIT_KIND_URING)
				abort();
		}
		data += len;
		size -= len;
	}
	return 0;
}
