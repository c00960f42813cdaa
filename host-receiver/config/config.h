/* SPDX-License-Identifier: MIT */
/*
 * The daemon's configuration file: INI, read by libinih, checked whole against one table. All
 * errors are reported, each with file:line. No state; any thread.
 */
#pragma once

#include <stdio.h>
#include <sys/socket.h>

#include "host-receiver/cell/options.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/settings.h"

#define CONFIG_FILE_DEFAULT "/etc/cellos/host-telemetry.conf"
#define CONFIG_LINE_MAX	    4096u /* bytes of a line; libinih may be built for fewer */
#define CONFIG_ERRORS_MAX   100u  /* reported; more are only counted */

/* Strings are owned; an empty string is a key that is not set. */
struct config {
	char *control_socket, *control_group, *state_dir;
	uint64_t keepalive_ms, connect_within_ms, max_cells, max_inflight, checkpoint_ms;
	uint64_t rate, rate_bytes, rate_connections; /* of a cell, a second */
	uint64_t stop_timeout_ms;
	char *evidence_dir, *evidence_origin;
	uint64_t rotate_size, rotate_age_ms, retain_size, retain_size_hard, retain_cell_share,
		sync; /* enum evidence_sync */
	char *sign_algorithm, *sign_kid, *sign_key_file;
	uint64_t sign_required, sign_allow_unlocked; /* 0 or 1 */
	char *metrics_listen;
	uint64_t metrics_per_cell; /* 0 or 1 */
	char *nats_url, *nats_stream, *nats_subject;
	uint64_t nats_mode;	     /* enum forward_mode */
	uint64_t nats_create_stream; /* 0 or 1 */
	char *nats_credentials, *nats_tls_ca, *nats_tls_cert, *nats_tls_key;
	uint64_t nats_max_pending, nats_lag_ready_ms;
};

struct config_errors {
	char *text; /* "FILE:LINE: reason\n" each; owned, NULL: none */
	size_t len;
	unsigned n;
};

/*
 * Read the file over the defaults. Returns 0; -EINVAL with all mistakes in errors; or a negative
 * errno if it cannot be read, with the reason in errors. Free *ret and *errors in any case.
 */
int config_read(const char *path, struct config *ret, struct config_errors *errors);

/* The same from an open file, which the errors call name. */
int config_read_file(FILE *f, const char *name, struct config *ret, struct config_errors *errors);

void config_free(struct config *config);
void config_errors_free(struct config_errors *errors);

/* Write a file that reads back to the same. It holds no secret: keys are in their own files. */
void config_dump(const struct config *config, FILE *f);

/* Whether a key differs that can only change with a restart, and the first such key (static). */
bool config_needs_restart(const struct config *running, const struct config *wanted,
			  const char **ret_section, const char **ret_name);

/* Strings are the configuration's. */
void config_forward(const struct config *config, struct forward_settings *ret);

/* True when the forwarder must be started again: its part of the two is not the same. */
bool config_forward_differs(const struct config *a, const struct config *b);

void config_limits(const struct config *config, struct evidence_limits *ret);
