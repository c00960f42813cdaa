/* SPDX-License-Identifier: MIT */
/* A process that gave up paths and capabilities, on this machine's kernel. */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "tests/unit/refuse_call.h"
#include "tests/unit/unit.h"

#define CANNOT 77 /* without Landlock, or without root */

static char folder[64];

static void make_file(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close_fd(fd);
}

static void make_folder(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

static void set_up(void)
{
	snprintf(folder, sizeof(folder), "/tmp/cellos-confine-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	make_folder("read");
	make_folder("write");
	make_file("read/one");
	make_file("write/one");
	make_file("secret");
	make_file("alone");
}

static void clean_up(void)
{
	static const char *const names[] = {"read/one",	 "read/new", "read",   "write/one",
					    "write/new", "write",    "secret", "alone"};
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		remove(path);
	}
	rmdir(folder);
}

/* The errno of opening it; 0: it was opened. */
static int try_open(const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	close_fd(fd);
	return 0;
}

static int try_rename(const char *from, const char *to)
{
	char old[128], new[128];

	snprintf(old, sizeof(old), "%s/%s", folder, from);
	snprintf(new, sizeof(new), "%s/%s", folder, to);
	return rename(old, new) < 0 ? errno : 0;
}

/* The number of the first thing that was not as it has to be; 0: all was. */
static int check_paths(void)
{
	if (try_open("read/one", O_RDONLY) != 0)
		return 1;
	if (try_open("read/one", O_WRONLY) != EACCES)
		return 2;
	if (try_open("read/new", O_WRONLY | O_CREAT) != EACCES)
		return 3;
	if (try_open("write/one", O_RDWR | O_TRUNC) != 0)
		return 4;
	if (try_open("write/new", O_WRONLY | O_CREAT) != 0)
		return 5;
	if (try_rename("write/new", "write/one") != 0)
		return 6;
	if (try_open("secret", O_RDONLY) != EACCES)
		return 7;
	if (try_open("alone", O_RDONLY) != 0)
		return 8;
	if (try_open("alone", O_WRONLY) != EACCES)
		return 9;
	/* Not even by moving it to where more is allowed. */
	if (try_rename("secret", "write/new") == 0)
		return 10;
	return 0;
}

static int in_child(int (*check)(void))
{
	char read[80], write[80], alone[80];
	const struct confine_path paths[] = {
		{.path = read}, {.path = write, .write = true}, {.path = alone}, {.path = "/none"}};
	const struct confine_access access = {
		.paths = paths,
		.n_paths = ARRAY_SIZE(paths),
		.no_listening = true,
		.no_signals = true,
	};
	int status;
	pid_t pid;

	snprintf(read, sizeof(read), "%s/read", folder);
	snprintf(write, sizeof(write), "%s/write", folder);
	snprintf(alone, sizeof(alone), "%s/alone", folder);
	pid = unit_fork();
	if (pid == 0) {
		int r = confine_no_new_privileges();

		if (r == 0)
			r = confine_landlock(&access);
		_exit(r < 0 ? 99 : r == 0 ? CANNOT : check());
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void expect(int result)
{
	if (result == CANNOT)
		fputs("skipped: this kernel has no Landlock\n", stderr);
	else
		ck_assert_int_eq(result, 0);
}

UNIT_TEST(paths)
{
	expect(in_child(check_paths));
}

static int check_signals(void)
{
	/* From ABI 6 on the parent is out of reach; before, it is not. */
	const long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return (kill(getppid(), 0) < 0) == (abi >= 6) ? 0 : 1;
}

UNIT_TEST(signals)
{
	expect(in_child(check_signals));
}

static int check_listening(void)
{
	const struct sockaddr_in address = {.sin_family = AF_INET,
					    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int r = bind(fd, (const struct sockaddr *)&address, sizeof(address));

	return (r < 0 && errno == EACCES) == (abi >= 4) ? 0 : 1;
}

UNIT_TEST(listening)
{
	expect(in_child(check_listening));
}

/* A kernel without Landlock is no error: the process runs on, and its caller knows. */
UNIT_TEST(without_landlock)
{
	const struct confine_access access = {.no_listening = true};
	const pid_t pid = unit_fork();
	int status;

	if (pid == 0) {
		if (refuse_call(SYS_landlock_create_ruleset, ENOSYS) < 0)
			_exit(1);
		_exit(confine_landlock(&access) == 0 && try_open("alone", O_RDWR) == 0 ? 0 : 2);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

/* Also the last one. */
UNIT_TEST(bounding_set)
{
	const pid_t pid = unit_fork();
	int status;

	if (pid == 0) {
		if (prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM, 0, 0, 0) < 0)
			_exit(CANNOT); /* no CAP_SETPCAP */
		confine_bounding_set(CAP_TO_MASK(CAP_KILL));
		for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
			if (cap != CAP_KILL && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) > 0)
				_exit(1 + cap);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == CANNOT)
		puts("skipped: needs root");
	else
		ck_assert_int_eq(WEXITSTATUS(status), 0);
}

UNIT_TEST(capabilities)
{
	const pid_t pid = unit_fork();
	int status;

	if (pid == 0) {
		struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct sets[2];
		const uint32_t keep = CAP_TO_MASK(CAP_KILL);
		const int r = confine_capabilities(keep);

		syscall(SYS_capget, &head, sets);
		_exit(r == 0 && (sets[0].permitted & ~keep) == 0 && sets[1].permitted == 0 &&
				      sets[0].effective == (geteuid() == 0 ? keep : 0)
			      ? 0
			      : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

UNIT_SUITE(.setup = set_up, .teardown = clean_up);
