/* SPDX-License-Identifier: MIT */
/*
 * An init for a microVM image: guest-init COMMAND [ARG...]
 *
 *   1. start the agent and wait until it is ready: a workload that runs before the agent is
 * connected could speak in its place
 *   2. run the workload under the profile
 *   3. send its exit code as four little-endian bytes to port 9000 of the host
 *   4. stop the agent, so that it says goodbye
 *
 * Builds with plain musl-gcc: musl-gcc -static -O2 -o init guest-init.c
 *
 * Exit codes it reports: the workload's, 128 + N if signal N ended it, 125 if the profile could not
 * be applied, 124 if the agent did not start (the workload is not run then).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* musl-gcc does not find the kernel's headers. */
#if __has_include(<linux/vm_sockets.h>)
#include <linux/vm_sockets.h>
#else
#define VMADDR_CID_HOST		      2
#define SO_VM_SOCKETS_CONNECT_TIMEOUT 6
struct sockaddr_vm {
	sa_family_t svm_family;
	unsigned short svm_reserved1;
	unsigned int svm_port, svm_cid;
	unsigned char svm_zero[4];
};
#endif

#define EXIT_PORT     9000
#define EXIT_NO_AGENT 124
#define PID_FILE      "/run/cellos-telemetry/agent.pid"
/* A host that is busy can stand still for seconds. */
#define HOST_TIMEOUT_S 20

static void mount_everything(void)
{
	static const struct {
		const char *type, *target;
	} mounts[] = {
		{"devtmpfs", "/dev"},
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"tmpfs", "/run"},
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		mkdir(mounts[i].target, 0755);
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type, MS_NOSUID, NULL) < 0 &&
		    errno != EBUSY)
			fprintf(stderr, "guest-init: cannot mount %s: %s\n", mounts[i].target,
				strerror(errno));
	}
}

/* Runs a program, waits for it and reaps other children meanwhile. Returns its code as a shell
 * does. */
static int run(char *const *argv)
{
	pid_t child = fork(), pid;
	int status;

	if (child == 0) {
		execvp(argv[0], argv);
		fprintf(stderr, "guest-init: cannot run %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	while (child > 0) {
		pid = wait(&status);
		if (pid == child)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (pid < 0 && errno != EINTR)
			break;
	}
	fprintf(stderr, "guest-init: cannot run %s: %s\n", argv[0], strerror(errno));
	return 126;
}

static void report_exit(int code)
{
	const struct sockaddr_vm host = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = EXIT_PORT};
	const uint8_t bytes[4] = {(uint8_t)code, (uint8_t)(code >> 8), (uint8_t)(code >> 16),
				  (uint8_t)(code >> 24)};
	const struct timeval timeout = {.tv_sec = HOST_TIMEOUT_S};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof(timeout)) <
		    0 ||
	    connect(fd, (const struct sockaddr *)&host, sizeof(host)) < 0 ||
	    send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != sizeof(bytes))
		fprintf(stderr, "guest-init: cannot report the exit code %d: %s\n", code,
			strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* So the host sees an orderly end and not a silence. */
static void stop_agent(void)
{
	FILE *f = fopen(PID_FILE, "re");
	int pid = 0;

	if (!f)
		return;
	if (fscanf(f, "%d", &pid) == 1 && pid > 1 && kill(pid, SIGTERM) == 0)
		for (int i = 0; i < HOST_TIMEOUT_S * 100 && kill(pid, 0) == 0; i++) {
			/* It is a child of PID 1: gone only when it is waited for. */
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
			usleep(10000);
		}
	fclose(f);
}

int main(int argc, char **argv)
{
	char *agent[] = {"cellos-telemetry", NULL};
	char **workload = calloc((size_t)argc + 5, sizeof(*workload));
	int code;

	if (argc < 2 || !workload) {
		fprintf(stderr, "usage: guest-init COMMAND [ARG...]\n");
		return 64;
	}
	if (getpid() == 1)
		mount_everything();
	workload[0] = "cellos-workload-exec";
	workload[1] = "--init";
	workload[2] = "--drop-net-admin";
	workload[3] = "--";
	memcpy(&workload[4], &argv[1], (size_t)(argc - 1) * sizeof(*workload));

	/* It returns when the agent is connected, has its sources and has said hello. */
	code = run(agent) == 0 ? run(workload) : EXIT_NO_AGENT;
	report_exit(code);
	stop_agent();
	if (getpid() == 1) {
		sync();
		/* With reboot=k on the command line this ends a Firecracker VM. */
		reboot(RB_AUTOBOOT);
	}
	free(workload);
	return code > 255 ? 255 : code;
}
