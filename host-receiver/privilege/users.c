/* SPDX-License-Identifier: MIT */
#include "host-receiver/privilege/users.h"

#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#include "common/util.h"

static int find(const char *option, const char *name, struct user_ids *ret, char why[USERS_WHY_MAX])
{
	const struct passwd *user;

	if (strlen(name) >= sizeof(ret->name)) {
		snprintf(why, USERS_WHY_MAX, "%s: expected less than %zu bytes", option,
			 sizeof(ret->name));
		return -EINVAL;
	}
	user = getpwnam(name);
	if (!user) {
		snprintf(why, USERS_WHY_MAX, "%s %s: no such user", option, name);
		return -ENOENT;
	}
	if (user->pw_uid == 0) {
		snprintf(why, USERS_WHY_MAX, "%s %s: expected a user that is not root", option,
			 name);
		return -EINVAL;
	}
	*ret = (struct user_ids){.uid = user->pw_uid, .gid = user->pw_gid};
	strcpy(ret->name, name);
	return 0;
}

int users_find(const char *receiver, const char *signer, struct process_users *ret,
	       char why[USERS_WHY_MAX])
{
	struct process_users users = {.separate = true};
	int r;

	if (!receiver && !signer) {
		*ret = (struct process_users){0};
		return 0;
	}
	if (!receiver || !signer) {
		snprintf(why, USERS_WHY_MAX, "--user and --signer-user go together");
		return -EINVAL;
	}
	r = find("--user", receiver, &users.receiver, why);
	if (r == 0)
		r = find("--signer-user", signer, &users.signer, why);
	if (r < 0)
		return r;
	if (users.receiver.uid == users.signer.uid) {
		snprintf(why, USERS_WHY_MAX,
			 "--user and --signer-user are the same user: the receiver could reach the "
			 "key");
		return -EINVAL;
	}
	if (geteuid() != 0) {
		snprintf(why, USERS_WHY_MAX, "--user needs a start as root");
		return -EPERM;
	}
	*ret = users;
	return 0;
}

int users_become(const struct user_ids *user, bool all_groups, bool keep_capabilities)
{
	if (all_groups ? initgroups(user->name, user->gid) < 0 : setgroups(0, NULL) < 0)
		return -errno;
	if (setresgid(user->gid, user->gid, user->gid) < 0)
		return -errno;
	/* Cleared by the kernel at the next execve(2). */
	if (keep_capabilities && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return -errno;
	if (setresuid(user->uid, user->uid, user->uid) < 0)
		return -errno;
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	return 0;
}

struct user_acting users_act_as(uid_t uid, gid_t gid)
{
	struct user_acting was;

	/* Group first: without the uid's privileges it could not be set. */
	was.gid = setfsgid(gid);
	was.uid = setfsuid(uid);
	return was;
}

void users_act_back(const struct user_acting *was)
{
	setfsuid((uid_t)was->uid);
	setfsgid((gid_t)was->gid);
}
