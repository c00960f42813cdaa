/* SPDX-License-Identifier: MIT */
/*
 * The users of the three processes (evidence-log.md section 5): the parent stays root with the
 * capabilities that set ids, the receiver and the signer get users of their own. No state; one
 * thread, before others are started.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define USERS_NAME_MAX 64u
#define USERS_WHY_MAX  256u

struct user_ids {
	char name[USERS_NAME_MAX];
	uid_t uid;
	gid_t gid;
};

struct process_users {
	bool separate; /* false: all three processes keep the caller's user */
	struct user_ids receiver, signer;
};

/*
 * Look both names up; with both NULL the result is not separate. Returns 0, or a negative errno
 * with a sentence in why: one name without the other, an unknown user, root, the same user twice,
 * or -EPERM when the caller is not root.
 */
int users_find(const char *receiver, const char *signer, struct process_users *ret,
	       char why[USERS_WHY_MAX]);

/*
 * Become this user for ever, with all its groups or with its own group only. keep_capabilities: the
 * caller's capabilities stay permitted. Returns 0 or a negative errno.
 */
int users_become(const struct user_ids *user, bool all_groups, bool keep_capabilities);

/*
 * Let this thread access files as another user, until users_act_back(). Without the capability
 * nothing changes, and the kernel checks the access as the caller's.
 */
struct user_acting {
	int uid, gid;
};
struct user_acting users_act_as(uid_t uid, gid_t gid);
void users_act_back(const struct user_acting *was);
