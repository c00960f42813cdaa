/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/socket.h"

#include "common/util.h"

_Static_assert(CELL_WHY_MAX == LISTENER_WHY_MAX, "one limit for the sentence");

static struct listener_options options_of(const struct cell_options *o, bool replace)
{
	return (struct listener_options){
		.base = o->uds_base,
		.set_owner = o->set_owner,
		.uid = o->socket_uid,
		.gid = o->socket_gid,
		.mode = o->socket_mode,
		.replace = replace,
	};
}

int cell_socket_bind(struct cell_socket *s, const struct cell_options *o, bool replace,
		     struct sign_client *parent, char why[CELL_WHY_MAX])
{
	const struct listener_options options = options_of(o, replace);

	*s = (struct cell_socket){
		.listener = {.fd = -1, .dir_fd = -1},
		.set_owner = o->set_owner,
		.uid = o->socket_uid,
		.gid = o->socket_gid,
		.parent = parent,
	};
	return o->set_owner && parent ? sign_client_listen(parent, &options, &s->listener, why)
				      : listener_bind(&s->listener, &options, why);
}

void cell_socket_remove_stale(const struct cell_options *o, struct sign_client *parent)
{
	const struct listener_options options = options_of(o, true);

	if (o->set_owner && parent)
		sign_client_clear(parent, &options);
	else
		listener_remove_stale(&options);
}

void cell_socket_close(struct cell_socket *s)
{
	/* Close the listener before the name is removed: a connect in between is refused. */
	close_fd(take_fd(&s->listener.fd));
	if (s->listener.ino != 0 && s->set_owner && s->parent)
		sign_client_unlink(s->parent, &s->listener, s->uid, s->gid);
	else if (s->listener.ino != 0)
		listener_unlink(&s->listener, s->set_owner, s->uid, s->gid);
	listener_close(&s->listener);
}
