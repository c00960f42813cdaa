/* SPDX-License-Identifier: MIT */
/*
 * Cell options as text, not parsed yet: names and values from a request on the control socket or
 * from a state file. No state; any thread.
 */
#pragma once

#include "host-receiver/cell/options.h"
#include "host-receiver/event/json_writer.h"

#define OPTION_TEXTS_MAX 64u /* more than there are options */

/* Zero it before use. */
struct option_texts {
	unsigned n;
	struct {
		char *name, *value; /* owned */
	} text[OPTION_TEXTS_MAX];
};

/*
 * Copies name and value, which are UTF-8. Returns 0; or -EINVAL with a sentence in why: an unknown
 * name, or a control character in the value; or -ENOMEM.
 */
int option_texts_add(struct option_texts *t, struct wire_text name, struct wire_text value,
		     char why[CELL_WHY_MAX]);
/* NULL: not given. Borrowed from t. */
const char *option_texts_get(const struct option_texts *t, const char *name);
void option_texts_free(struct option_texts *t);

/*
 * Set the options, which borrow the values, and check that none is missing. 0, or -EINVAL with a
 * sentence in why.
 */
int option_texts_apply(const struct option_texts *t, struct cell_options *o,
		       char why[CELL_WHY_MAX]);

/* As a JSON object. */
void option_texts_write(const struct option_texts *t, struct json_writer *w);
