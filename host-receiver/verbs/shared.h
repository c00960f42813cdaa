/* SPDX-License-Identifier: MIT */
/*
 * Small steps that several verbs have in common: reading the daemon's configuration with messages
 * on stderr, and taking members out of JSON that the daemon or the log wrote. No state; one thread.
 */
#pragma once

#include <jansson.h>

#include "host-receiver/config/config.h"

/* Of the daemon, if no configuration can be read. */
#define SOCKET_DEFAULT "/run/cellos/host-telemetry.sock"

/*
 * So often a verb lists a folder of evidence, if retention deletes segments meanwhile. The second
 * time is almost always enough: it deletes the oldest segments, which are read first.
 */
#define SHARED_LISTINGS_MAX 16u

/*
 * Read the configuration and print all its mistakes to stderr. path NULL is the default file.
 * Returns EX_OK or EX_CONFIG. Free *ret with config_free() in any case.
 */
int shared_read_config(const char *path, struct config *ret);

/*
 * The folder of the daemon's evidence, for a verb that got no path: *ret_dir is borrowed from
 * *config. path as above. Returns EX_OK, EX_CONFIG, or EX_USAGE if path is NULL and the default
 * file cannot be opened, after a message. Free *config with config_free() in any case.
 */
int shared_find_evidence(const char *verb, const char *path, struct config *config,
			 const char **ret_dir);

/*
 * The daemon's control socket: given, if it is not NULL, or the configuration's. path as above. A
 * user who may ask the daemon is perhaps not allowed to read its configuration: if path is NULL and
 * the default file cannot be opened, the socket is the default one. *ret_socket is borrowed from
 * given or *config, or static. Returns EX_OK, or EX_CONFIG after a message. Free *config with
 * config_free() in any case.
 */
int shared_find_socket(const char *given, const char *path, struct config *config,
		       const char **ret_socket);

/* The member as a string; "": it is missing or no string. Borrowed from object. */
const char *shared_text(const json_t *object, const char *key);
/* The member as an integer; 0: it is missing or no integer. */
json_int_t shared_number(const json_t *object, const char *key);
