/* SPDX-License-Identifier: MIT */
/*
 * The forwarder: reads the durable part of the evidence log and publishes it to JetStream, so that
 * no entry is lost on the way (host-receiver.md section 10). The log is its only buffer: after any
 * error it goes back to the last acknowledged entry and sends again. The server's duplicate window
 * drops the repeats.
 *
 * A process of its own: it holds no signing key and writes only its cursor. One thread, and
 * libnats' own below it, which connect and free.
 */
#pragma once

#include "host-receiver/forward/link.h"
#include "host-receiver/forward/settings.h"

/*
 * Runs until SIGTERM, SIGINT or the end of the daemon on link_fd. The caller must have blocked the
 * signals. Confines this process first (restrict.h). Returns 0; 1: a file that it reads was
 * replaced, and only a new process may read the new file; or a negative errno after a log line: the
 * folders cannot be used.
 */
int forwarder_run(const struct forward_settings *settings, int link_fd);
