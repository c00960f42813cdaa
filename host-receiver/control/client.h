/* SPDX-License-Identifier: MIT */
/*
 * Asks the daemon, for the verbs: one request, one answer. Blocks for at most
 * CONTROL_ANSWER_WITHIN_S; any thread.
 */
#pragma once

#include <jansson.h>

#define CONTROL_ANSWER_WITHIN_S 30

/*
 * request is borrowed. Returns EX_OK and the answer (an object whose "ok" is true), or the exit
 * status after writing the reason to stderr: EX_UNAVAILABLE when the daemon is not there, or what
 * it refused with. verb is for the messages.
 */
int control_ask(const char *verb, const char *socket_path, const json_t *request, json_t **ret);
