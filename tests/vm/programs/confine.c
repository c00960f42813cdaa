/* SPDX-License-Identifier: MIT */
/*
 * `confine [-w SECONDS] COMMAND [ARG...]`: a launcher of the smallest kind: hands a notification
 * descriptor to the agent as common/handover.h says, then becomes COMMAND. Refused: mount, chroot,
 * reboot, init_module. Watched: sethostname, mknodat, raw sockets. -w: how long it tries while the
 * agent has no place for it; minutes, if it must.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/handover.h"
#include "common/util.h"

static const int notified[] = {SYS_mount,	SYS_chroot,	 SYS_reboot,
			       SYS_init_module, SYS_sethostname, SYS_mknodat};
#define N_REFUSED 4u
#define N_RULES	  (ARRAY_SIZE(notified) + 1)

static _Noreturn void fail(const char *step, int error)
{
	fprintf(stderr, "confine: %s: %s\n", step, strerror(error));
	exit(125);
}

static int install_filter(void)
{
	struct sock_filter code[ARRAY_SIZE(notified) + 7];
	const uint8_t n = ARRAY_SIZE(notified);
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};
	struct sock_filter *p = code;
	long fd;

	*p++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					    offsetof(struct seccomp_data, nr));
	for (uint8_t i = 0; i < n; i++)
		*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
						    (uint32_t)notified[i], (uint8_t)(n + 4 - i), 0);
	/* Of sockets the raw ones only. */
	*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3);
	*p++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					    offsetof(struct seccomp_data, args[1]));
	*p++ = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf);
	*p++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOCK_RAW, 1, 0);
	*p++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	*p++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		     &program);
	if (fd < 0)
		fail("seccomp", errno);
	return (int)fd;
}

static int read_reply(int fd)
{
	struct listener_reply reply;

	if (recv(fd, &reply, sizeof(reply), 0) != sizeof(reply))
		fail("no reply of the agent", EPROTO);
	return -reply.status;
}

/* A connection that has a place. The agent takes a few launchers at a time. */
static int connect_agent(uint64_t seconds)
{
	struct sockaddr_un agent = {.sun_family = AF_UNIX, .sun_path = LISTENER_SOCKET_PATH};
	const uint64_t until = monotonic_ns() + seconds * NSEC_PER_SEC;

	for (;;) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), error;

		if (connect(fd, (struct sockaddr *)&agent, sizeof(agent)) < 0)
			fail(LISTENER_SOCKET_PATH, errno);
		error = read_reply(fd);
		if (error == 0)
			return fd;
		if (error != EMFILE || monotonic_ns() > until)
			fail("the agent refuses", error);
		close(fd);
		usleep(20000);
	}
}

static void send_listener(int fd, int listener)
{
	static struct listener_message m = {.magic = LISTENER_MAGIC,
					    .version = LISTENER_VERSION,
					    .arch = AUDIT_ARCH_X86_64,
					    .n_rules = N_RULES};
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {&m, LISTENER_MESSAGE_SIZE(N_RULES)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};

	for (uint32_t i = 0; i < ARRAY_SIZE(notified); i++)
		m.rules[i] = (struct listener_rule){
			.nr = (uint32_t)notified[i],
			.action = i < N_REFUSED ? LISTENER_REFUSE : LISTENER_WATCH,
			.error = i < N_REFUSED ? EPERM : 0,
		};
	m.rules[N_RULES - 1] = (struct listener_rule){.nr = SYS_socket, .action = LISTENER_WATCH};
	memcpy(CMSG_DATA(&control.header), &listener, sizeof(listener));
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		fail("sendmsg", errno);
	if (read_reply(fd) != 0)
		fail("the agent refuses the descriptor", EPROTO);
}

int main(int argc, char **argv)
{
	uint64_t seconds = 300;
	int fd, listener;

	if (argc > 3 && !strcmp(argv[1], "-w") && parse_u64(argv[2], 1, 600, &seconds) == 0) {
		argc -= 2;
		argv += 2;
	}
	if (argc < 2)
		return 64;
	fd = connect_agent(seconds);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	listener = install_filter();
	send_listener(fd, listener);
	close(listener);
	close(fd);
	execvp(argv[1], argv + 1);
	fail(argv[1], errno);
}
