/* SPDX-License-Identifier: MIT */
/* Files of /proc: PID/stat, PID/status, net/tcp, the name of a descriptor. */
#include "common/util.h"
#include "guest-agent/probes/proc_file.h"
#include "guest-agent/probes/tcp_row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct proc_stat st;
	struct tcp_row row;
	uint64_t value;

	if (proc_stat_parse(text, size, &st) == 0 &&
	    (st.pid <= 0 || st.ppid < 0 || st.comm_len >= PROC_COMM_MAX))
		abort();
	proc_status_value(text, size, "Tgid", 10, &value);
	proc_status_value(text, size, "CapEff", 16, &value);
	for (size_t at = 0; at < size;) {
		const char *eol = memchr(text + at, '\n', size - at);
		size_t len = eol ? (size_t)(eol - text) - at : size - at;

		tcp_row_parse(text + at, len, &row);
		socket_link_parse(text + at, len, &value);
		at += len + 1;
	}
	return 0;
}
