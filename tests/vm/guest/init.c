/* SPDX-License-Identifier: MIT */
/*
 * PID 1 of the test VM: mounts what every guest has, loads the modules named in /vm/modules in
 * their order, brings up lo, starts the relay, runs /vm/script with its output carried to the
 * harness, reports its status and powers off. Reaps what is orphaned, as an init does.
 *
 * At the end everything but the relay is killed, as a power cut would; what was already sent into
 * the channel is carried out first, so that a test sees all of it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util.h"
#include "guest.h"

#define MODULES_PATH "/vm/modules"
#define SCRIPT_PATH  "/vm/script"

/* How long the relay may take to carry out what is left, and the host to take an answer. */
#define END_TIMEOUT_MS 120000

static _Noreturn void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

/* To the console, which the harness keeps; the VM is of no use after this. */
static _Noreturn _printf_(1, 2) void give_up(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("vm-init: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	power_off();
}

static void mount_everything(void)
{
	static const struct {
		const char *type, *target, *options;
	} mounts[] = {
		{"devtmpfs", "/dev", "mode=0755"},
		{"proc", "/proc", NULL},
		{"sysfs", "/sys", NULL},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].target, 0755);
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type, MS_NOSUID,
			  mounts[i].options) < 0)
			give_up("cannot mount %s: %s", mounts[i].target, strerror(errno));
	}
	(void)!symlink("/proc/self/fd", "/dev/fd");
	(void)!symlink("/proc/self/fd/0", "/dev/stdin");
	(void)!symlink("/proc/self/fd/1", "/dev/stdout");
	(void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

static void load_modules(void)
{
	_cleanup_fclose_ FILE *list = fopen(MODULES_PATH, "re");
	char path[256];

	if (!list)
		give_up("cannot open " MODULES_PATH ": %s", strerror(errno));
	while (fgets(path, sizeof(path), list)) {
		_cleanup_close_ int fd = -1;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			give_up("cannot open %s: %s", path, strerror(errno));
		if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
			give_up("cannot load %s: %s", path, strerror(errno));
	}
}

static void bring_up_loopback(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		give_up("cannot bring up lo: %s", strerror(errno));
}

static void close_from(int first)
{
	syscall(SYS_close_range, (unsigned)first, ~0u, 0);
}

static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The relay, once it has heard from the host. */
static pid_t start_relay(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		give_up("pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_NAME, "vm-relay");
		close(ready[0]);
		_exit(relay_main(ready[1]));
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		give_up("the relay did not start");
	close(ready[0]);
	return pid;
}

static pid_t start_script(int output)
{
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		setsid();
		unblock_signals();
		dup2(null, STDIN_FILENO);
		dup2(output, STDOUT_FILENO);
		dup2(output, STDERR_FILENO);
		close_from(3);
		(void)!chdir("/root");
		execl(SCRIPT_PATH, SCRIPT_PATH, (char *)NULL);
		fprintf(stderr, "vm-init: %s: %s\n", SCRIPT_PATH, strerror(errno));
		_exit(127);
	}
	return pid;
}

/* What is readable of from, to the harness. False when there was nothing. */
static bool pass_output(int from, int to)
{
	char buffer[16384];
	ssize_t n = read(from, buffer, sizeof(buffer));

	if (n <= 0)
		return false;
	if (write_all(to, buffer, (size_t)n) < 0)
		give_up("the relay is gone");
	return true;
}

/* The wait status of the script, with everything it wrote passed on. */
static int run_script(int signals, int to_host)
{
	int status = -1, output[2];
	pid_t script;

	if (pipe2(output, O_CLOEXEC) < 0 || fcntl(output[0], F_SETFL, O_NONBLOCK) < 0)
		give_up("pipe: %s", strerror(errno));
	script = start_script(output[1]);

	for (bool running = true; running;) {
		struct pollfd fds[] = {
			{.fd = signals, .events = POLLIN},
			{.fd = output[0], .events = POLLIN},
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			give_up("poll: %s", strerror(errno));
		if (fds[0].revents) {
			struct signalfd_siginfo info;
			int s;
			pid_t pid;

			(void)!read(signals, &info, sizeof(info));
			while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
				if (pid == script) {
					status = s;
					running = false;
				}
			}
		}
		if (fds[1].revents)
			pass_output(output[0], to_host);
	}
	/* Not to its end: what the script left in the background may hold the pipe open. */
	while (pass_output(output[0], to_host))
		;
	close(output[0]);
	close(output[1]);
	return status;
}

static void report_status(int status)
{
	_cleanup_close_ int fd = ctl_connect();
	char line[64];
	struct pollfd p = {.events = POLLIN};

	if (fd < 0)
		give_up("cannot report the status: %s", strerror(-fd));
	if (WIFSIGNALED(status))
		snprintf(line, sizeof(line), "exit %d\n", -WTERMSIG(status));
	else
		snprintf(line, sizeof(line), "exit %d\n", WEXITSTATUS(status));
	if (write_all(fd, line, strlen(line)) < 0)
		give_up("cannot report the status");
	p.fd = fd;
	poll(&p, 1, END_TIMEOUT_MS);
}

/* Every user process but this one and the relay. */
static void kill_others(pid_t relay)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		uint64_t pid;

		if (parse_u64(entry->d_name, 2, INT32_MAX, &pid) == 0 && (pid_t)pid != relay)
			kill((pid_t)pid, SIGKILL);
	}
	closedir(proc);
}

/*
 * Returns when the host has taken every packet that was sent before. Packets stay in order, and to
 * a port of nobody's the host answers with a reset.
 */
static void flush_vsock(void)
{
	const struct sockaddr_vm nobody = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = 1,
	};
	const struct timeval patience = {.tv_sec = END_TIMEOUT_MS / 1000};
	_cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience,
				 sizeof(patience)) < 0)
		return;
	if (connect(fd, (const struct sockaddr *)&nobody, sizeof(nobody)) < 0 && errno == ETIMEDOUT)
		fprintf(stderr, "vm-init: the host did not take what was sent in time\n");
}

static void end_relay(pid_t relay)
{
	uint64_t deadline = monotonic_ns() + END_TIMEOUT_MS * NSEC_PER_MSEC;

	kill(relay, SIGTERM);
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid == relay || (pid < 0 && errno == ECHILD))
			return;
		if (monotonic_ns() > deadline) {
			fprintf(stderr, "vm-init: the relay did not end in time\n");
			return;
		}
		if (pid == 0)
			usleep(5000);
	}
}

int init_main(void)
{
	sigset_t child;
	int signals, to_host;
	pid_t relay;

	mount_everything();
	load_modules();
	bring_up_loopback();
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/root", 1);
	if (sethostname("guest", strlen("guest")) < 0)
		give_up("sethostname: %s", strerror(errno));

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		give_up("signalfd: %s", strerror(errno));

	relay = start_relay();
	to_host = ctl_connect();
	if (to_host < 0 || write_all(to_host, "output\n", strlen("output\n")) < 0)
		give_up("cannot reach the relay");

	report_status(run_script(signals, to_host));
	close(to_host);
	kill_others(relay);
	flush_vsock();
	end_relay(relay);
	power_off();
}
