/* SPDX-License-Identifier: MIT */
/*
 * Checks of the machine for the verb check-config: key, groups, folders, free space, ports, as a
 * start would find them. It changes nothing, and a daemon may run meanwhile. Prints to standard
 * output and error.
 */
#pragma once

#include "host-receiver/config/config.h"
#include "host-receiver/privilege/users.h"

/*
 * path names the configuration in messages. With separate users the key is checked as the parent
 * and the signer would read it, and the rest with the rights of the receiver's user. Otherwise root
 * checks with the rights of the user who owns state_dir. The process keeps them. Returns an exit
 * status: EX_OK after a line "OK: ...", or EX_CONFIG after a line for each error.
 */
int daemon_check(const char *path, const struct config *config, const struct process_users *users);
