/* SPDX-License-Identifier: MIT */
/*
 * `without CAPS COMMAND [ARG...]`: becomes COMMAND without the capabilities whose bits are set in
 * CAPS (hexadecimal), for good.
 */
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "common/util.h"

int main(int argc, char **argv)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	uint64_t mask;

	if (argc < 3)
		return 64;
	mask = strtoull(argv[1], NULL, 16);
	for (int cap = 0; cap < 64; cap++)
		if (mask >> cap & 1)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (syscall(SYS_capget, &header, data) < 0)
		return 125;
	for (unsigned i = 0; i < 2; i++) {
		data[i].permitted &= ~(uint32_t)(mask >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return 125;
	execvp(argv[2], argv + 2);
	fprintf(stderr, "without: %s: %s\n", argv[2], strerror(errno));
	return 127;
}
