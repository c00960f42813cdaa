/* SPDX-License-Identifier: MIT */
/*
 * `detach`: what root with CAP_SYS_ADMIN can do to somebody's BPF programs: detaches all that are
 * attached by a link. Prints their number.
 */
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "common/util.h"

static int sys_bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

int main(void)
{
	union bpf_attr next = {0};
	unsigned detached = 0;

	while (sys_bpf(BPF_LINK_GET_NEXT_ID, &next) == 0) {
		union bpf_attr attr = {.link_id = next.next_id};
		_cleanup_close_ int fd = sys_bpf(BPF_LINK_GET_FD_BY_ID, &attr);

		next.start_id = next.next_id;
		memset(&attr, 0, sizeof(attr));
		attr.link_detach.link_fd = (uint32_t)fd;
		detached += fd >= 0 && sys_bpf(BPF_LINK_DETACH, &attr) == 0;
	}
	printf("%u\n", detached);
	return 0;
}
