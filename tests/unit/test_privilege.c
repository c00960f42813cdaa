/* SPDX-License-Identifier: MIT */
/* Users, hidden files and sockets of other owners, on this machine's kernel. */
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "host-receiver/privilege/hidden.h"
#include "host-receiver/privilege/listener.h"
#include "host-receiver/privilege/users.h"
#include "tests/unit/refuse_call.h"
#include "tests/unit/unit.h"

static char folder[] = "/tmp/cellos-privilege-XXXXXX";

static void make(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static bool can_read(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	close_fd(fd);
	return fd >= 0;
}

/* Whose user it is makes no difference: this may be root. */
static int hide_and_look(void)
{
	char secret[64], state[64], missing[64];
	const char *const hidden[] = {secret, state, missing};

	snprintf(secret, sizeof(secret), "%s/key", folder);
	snprintf(state, sizeof(state), "%s//state/", folder);
	snprintf(missing, sizeof(missing), "%s/none/key", folder);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || !hidden_enter(hidden, 3))
		return 77;
	if (can_read("key") || can_read("state/tree"))
		return 1;
	if (!can_read("key2") || !can_read("beside/file") || access("/proc/self/status", R_OK) < 0)
		return 2;
	/* Made later: below what was there it can be read, beside the hidden ones it cannot. */
	make("beside/new");
	make("new");
	if (!can_read("beside/new") || can_read("new"))
		return 3;
	return 0;
}

UNIT_TEST(hidden_files_are_out_of_reach)
{
	int status;
	char path[64];
	pid_t child;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, i ? "state" : "beside");
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	make("key");
	make("key2");
	make("state/tree");
	make("beside/file");
	child = unit_fork();
	if (child == 0)
		_exit(hide_and_look());
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		puts("skipped: no Landlock here");
	else
		ck_assert_int_eq(WEXITSTATUS(status), 0);
	snprintf(path, sizeof(path), "rm -r %s", folder);
	ck_assert_int_eq(system(path), 0);
}

/* The caller warns of it: it must not read that the files are hidden. */
UNIT_LOOP_TEST(without_landlock_nothing_is_hidden, 2)
{
	const int call = _i ? SYS_landlock_restrict_self : SYS_landlock_create_ruleset;
	const pid_t child = unit_fork();
	int status;

	if (child == 0)
		_exit(refuse_call((unsigned)call, ENOSYS) == 0 && !hidden_enter(NULL, 0) ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}

UNIT_TEST(users_go_together)
{
	struct process_users users;
	char why[USERS_WHY_MAX];

	ck_assert_int_eq(users_find(NULL, NULL, &users, why), 0);
	ck_assert(!users.separate);
	ck_assert_int_eq(users_find("daemon", NULL, &users, why), -EINVAL);
	ck_assert_int_eq(users_find(NULL, "daemon", &users, why), -EINVAL);
	ck_assert_int_eq(users_find("root", "daemon", &users, why), -EINVAL);
	ck_assert_int_eq(users_find("daemon", "daemon", &users, why), -EINVAL);
	ck_assert_int_eq(users_find("daemon", "no-such-user", &users, why), -ENOENT);
	ck_assert_int_eq(users_find("daemon", "games", &users, why), geteuid() == 0 ? 0 : -EPERM);
}

/* A cell's socket in a folder that only another user may enter, below one that only root may. */
UNIT_TEST(a_listener_is_bound_as_its_owner)
{
	char base[] = "/tmp/cellos-listener-XXXXXX", path[96], why[LISTENER_WHY_MAX];
	const struct listener_options options = {
		.base = path, .set_owner = true, .uid = 1234, .gid = 5678, .mode = 0600};
	struct listener listener, other;
	struct stat st;

	if (geteuid() != 0) {
		puts("skipped: needs root");
		return;
	}
	ck_assert_ptr_nonnull(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/jail", base);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(chown(path, 1234, 5678), 0);
	snprintf(path, sizeof(path), "%s/jail/v", base);
	ck_assert_msg(listener_bind(&listener, &options, why) == 0, "%s", why);
	ck_assert_int_eq(fstatat(listener.dir_fd, "v_9001", &st, 0), 0);
	ck_assert_int_eq(st.st_uid, 1234);
	ck_assert_int_eq(st.st_gid, 5678);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(geteuid(), 0);
	/* Taken; then stale, and not ours to remove without a record. */
	ck_assert_int_eq(listener_bind(&other, &options, why), -EADDRINUSE);
	close_fd(take_fd(&listener.fd));
	ck_assert_int_eq(listener_bind(&other, &options, why), -EEXIST);
	/* Only the very inode is unlinked. */
	listener.ino++;
	listener_unlink(&listener, true, 1234, 5678);
	ck_assert_int_eq(fstatat(listener.dir_fd, "v_9001", &st, 0), 0);
	listener.ino--;
	listener_unlink(&listener, true, 1234, 5678);
	ck_assert_int_lt(fstatat(listener.dir_fd, "v_9001", &st, 0), 0);
	listener_close(&listener);
	snprintf(path, sizeof(path), "rm -r %s", base);
	ck_assert_int_eq(system(path), 0);
}

/* The parent of the daemon has the right to change its user, and no capability over files. */
static int bind_below_closed_folders(const char *base)
{
	const uint64_t keep = UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID;
	struct listener_options options = {
		.base = base, .set_owner = true, .uid = 1234, .gid = 5678, .mode = 0600};
	struct listener listener;
	char why[LISTENER_WHY_MAX];

	if (confine_capabilities(keep) < 0)
		return 1;
	if (listener_bind(&listener, &options, why) < 0) {
		fprintf(stderr, "%s\n", why);
		return 2;
	}
	options.set_owner = false;
	return listener_bind(&listener, &options, why) == -EACCES ? 0 : 3;
}

/* One folder is closed to the owner, the next to everybody else. */
UNIT_TEST(folders_are_opened_by_who_may)
{
	char base[] = "/tmp/cellos-listener-XXXXXX", path[96];
	struct stat st;
	int status;
	pid_t child;

	if (geteuid() != 0) {
		puts("skipped: needs root");
		return;
	}
	ck_assert_ptr_nonnull(mkdtemp(base));
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/jail%s", base, i ? "/inner" : "");
		ck_assert_int_eq(mkdir(path, 0700), 0);
		ck_assert_int_eq(chown(path, 1234, 5678), 0);
	}
	snprintf(path, sizeof(path), "%s/jail/inner/v", base);
	child = unit_fork();
	if (child == 0)
		_exit(bind_below_closed_folders(path));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	strcat(path, "_9001");
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_int_eq(st.st_uid, 1234);
	snprintf(path, sizeof(path), "rm -r %s", base);
	ck_assert_int_eq(system(path), 0);
}
