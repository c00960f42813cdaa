/* SPDX-License-Identifier: MIT */
/*
 * The daemon's configuration file (cellos-host-telemetry.conf(5)): INI, read by libinih and checked
 * against one table. A reading reports all errors of the file, each with file:line. The values are
 * only stored here: the rooms that use them get them as plain structs. No state; any thread.
 */
#pragma once

#include <stdio.h>
#include <sys/socket.h>

#include "host-receiver/cell/options.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/settings.h"

#define CONFIG_FILE_DEFAULT "/etc/cellos/host-telemetry.conf"
#define CONFIG_LINE_MAX	    4096u /* bytes of a line; libinih may be built for fewer */
#define CONFIG_ERRORS_MAX   100u  /* errors that are reported; further ones are only counted */

/*
 * The values of all keys. Times are milliseconds, sizes are bytes. Strings are owned and never
 * NULL; an empty string is a key that is not set.
 */
struct config {
	char *control_socket, *control_group, *state_dir;
	uint64_t keepalive_ms, connect_within_ms, max_cells, max_inflight, checkpoint_ms;
	uint64_t rate, rate_bytes, rate_connections; /* of each cell, per second */
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
	char *text; /* lines of "FILE:LINE: reason\n"; owned; NULL: none */
	size_t len;
	unsigned n;
};

/*
 * Fill *ret with the defaults, then with the values of the file. Returns 0; -EINVAL with all
 * mistakes in errors; or a negative errno if the file cannot be read, with the reason in errors.
 * Free *ret and *errors in any case, with the functions below.
 */
int config_read(const char *path, struct config *ret, struct config_errors *errors);

/* The same from an open file; name stands for it in the errors. */
int config_read_file(FILE *f, const char *name, struct config *ret, struct config_errors *errors);

/* Both may be called twice, and on a zeroed struct. */
void config_free(struct config *config);
void config_errors_free(struct config_errors *errors);

/*
 * Write a file that reads back to the same configuration. It has no secrets: keys are in files of
 * their own.
 */
void config_dump(const struct config *config, FILE *f);

/*
 * Whether a key differs that can change only with a restart. The first such key is in *ret_section
 * and *ret_name (static).
 */
bool config_needs_restart(const struct config *running, const struct config *wanted,
			  const char **ret_section, const char **ret_name);

/* The settings of the forwarder. Its strings are borrowed from config. */
void config_forward(const struct config *config, struct forward_settings *ret);

/* Whether the two differ in section [nats], so that the forwarder must be started again. */
bool config_forward_differs(const struct config *a, const struct config *b);

/* The settings of the evidence log. */
void config_limits(const struct config *config, struct evidence_limits *ret);
