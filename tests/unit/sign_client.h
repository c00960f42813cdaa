/* SPDX-License-Identifier: MIT */
/* A signer process with its state in memory, for tests that sign. */
#pragma once

#include "host-receiver/sign/client.h"
#include "host-receiver/sign/keeper.h"
#include "tests/unit/unit.h"

static inline void unit_signer_lost(const char *why)
{
	ck_abort_msg("the signer is lost: %s", why);
}

static inline struct sign_client *unit_sign_client_of(bool allow_unlocked)
{
	struct sign_client_options options = {
		.state = "",
		.channels = 5,
		.allow_unlocked = allow_unlocked,
		.on_lost = unit_signer_lost,
	};
	const struct keeper_options keeper = {0};
	struct sign_client *client;

	ck_assert_int_eq(keeper_start(&keeper, &options.keeper_fd, &options.keeper_pid), 0);
	ck_assert_int_eq(sign_client_new(&options, &client), 0);
	return client;
}

static inline struct sign_client *unit_sign_client(void)
{
	return unit_sign_client_of(true);
}
