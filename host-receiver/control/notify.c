/* SPDX-License-Identifier: MIT */
#include "host-receiver/control/notify.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/util.h"

void notify_manager(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	size_t len;

	if (!path || (*path != '/' && *path != '@'))
		return;
	len = strlen(path);
	if (len >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, len);
	/* An abstract name begins with a zero byte. */
	if (*path == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
		       (const struct sockaddr *)&address,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

uint64_t notify_watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t us, for_pid;

	if (!usec || parse_u64(usec, 1, UINT64_MAX, &us) < 0)
		return 0;
	if (pid && (parse_u64(pid, 1, INT32_MAX, &for_pid) < 0 || for_pid != (uint64_t)getpid()))
		return 0;
	return us / NSEC_PER_USEC;
}
