/* SPDX-License-Identifier: MIT */
/*
 * The verbs' side of the control socket: sends one request and waits for its answer, at most
 * CONTROL_ANSWER_WITHIN_S. Any thread.
 */
#pragma once

#include <jansson.h>

#define CONTROL_ANSWER_WITHIN_S 30

/*
 * request is borrowed. Returns EX_OK and the answer (an object whose "ok" is true), or the exit
 * status after a message on stderr: EX_UNAVAILABLE if the daemon is not there, or the status of its
 * refusal. verb begins the messages.
 */
int control_ask(const char *verb, const char *socket_path, const json_t *request, json_t **ret);
