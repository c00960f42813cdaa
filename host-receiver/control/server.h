/* SPDX-License-Identifier: MIT */
/*
 * The control socket: a client sends one JSON line, gets one JSON line, and is closed. Root, the
 * daemon's own user and the members of one group may use it. The requests are answered elsewhere.
 *
 * Loop thread only. A client that is slow, or never reads, delays no other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <uv.h>

#define CONTROL_REQUEST_MAX (64u * 1024u) /* bytes, '\n' included */
#define CONTROL_STALL_MS    5000u	  /* for a client's request, and again for its answer */
#define CONTROL_CLIENTS_MAX 64u		  /* at a time; more are closed at once */
#define CONTROL_FOR_ROOT    2u		  /* places that only root may take */
#define CONTROL_SOCKET_MODE 0660
#define CONTROL_WHY_MAX	    512u

struct control_server;
struct control_reply;

struct control_server_options {
	const char *path;
	const char *group; /* "": none */
	/* Answers an object; NULL: no memory, or control_defer() was called. The answer is taken.
	 */
	json_t *(*handle)(void *ctx, const json_t *request);
	/* Optional; of struct spare_fd. */
	void (*report_shortage)(bool begins, uint64_t refused);
	void *ctx;
};

/* A stale socket at the path is replaced; a live one is an error. Returns 0 or a negative errno
 * with a sentence in why. */
int control_server_new(uv_loop_t *loop, const struct control_server_options *options,
		       struct control_server **ret, char why[CONTROL_WHY_MAX]);

/*
 * Within handle(): the answer comes later, by control_answer(). The client is not cut meanwhile.
 * Returns NULL if there is no memory. It stays valid until control_answer(), even if the client or
 * the server has gone.
 */
struct control_reply *control_defer(struct control_server *server);
/* Within handle(): the client's uid, from the kernel. */
uid_t control_peer_uid(const struct control_server *server);
/* Takes both. answer NULL: no memory. */
void control_answer(struct control_reply *reply, json_t *answer);

/* Close everything and unlink the socket. The loop must run once more. */
void control_server_free(struct control_server *server);

/* {"error":..,"ok":false,"status":N}: status is the exit status of the verb that asked. */
json_t *control_refusal(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
