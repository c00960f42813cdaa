/* SPDX-License-Identifier: MIT */
/*
 * Small steps that several verbs have in common: reading the daemon's configuration with messages
 * on stderr, and taking members out of JSON that the daemon or the log wrote. No state; one thread.
 */
#pragma once

#include <jansson.h>

#include "host-receiver/config/config.h"

/*
 * Read the configuration and print all its mistakes to stderr. Returns EX_OK or EX_CONFIG. Free
 * *ret with config_free() in any case.
 */
int shared_read_config(const char *path, struct config *ret);

/* The member as a string; "": it is missing or no string. Borrowed from object. */
const char *shared_text(const json_t *object, const char *key);
/* The member as an integer; 0: it is missing or no integer. */
json_int_t shared_number(const json_t *object, const char *key);
