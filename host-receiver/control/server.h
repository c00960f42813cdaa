/* SPDX-License-Identifier: MIT */
/*
 * The control socket: a client sends one JSON line and gets one JSON line, then its connection is
 * closed. Root, the daemon's own user and the members of one group may use it. This room only
 * carries the lines; options.handle answers the requests.
 *
 * Loop thread only. A client that is slow, or never reads, delays no other client.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <uv.h>

#define CONTROL_REQUEST_MAX (64u * 1024u) /* bytes, '\n' included */
#define CONTROL_STEP_MS	    1000u
#define CONTROL_STEPS	    5u	/* for a client's request, and again for its answer */
#define CONTROL_CLIENTS_MAX 64u /* clients at a time; a further one is closed at once */
#define CONTROL_FOR_ROOT    2u	/* places that only root may take */
#define CONTROL_SOCKET_MODE 0660
#define CONTROL_WHY_MAX	    512u

struct control_server;
struct control_reply;

struct control_server_options {
	const char *path;
	const char *group; /* "": none */
	/*
	 * Returns the answer, an object that the server takes. NULL: no memory, or control_defer()
	 * was called.
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
 * Call it within handle() to answer later, by control_answer(). The client's time limit does not
 * run meanwhile. Returns NULL if there is no memory. The result stays valid until control_answer(),
 * even if the client or the server is closed before.
 */
struct control_reply *control_defer(struct control_server *server);
/* Call it within handle(): the client's uid, from the kernel. */
uid_t control_peer_uid(const struct control_server *server);
/* Send the answer. Takes both; answer NULL: there was no memory for it. */
void control_answer(struct control_reply *reply, json_t *answer);

/* Close everything and unlink the socket. The loop must run once more for the handles to close. */
void control_server_free(struct control_server *server);

/* {"error":..,"ok":false,"status":N}: the verb that asked exits with this status. */
json_t *control_refusal(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
