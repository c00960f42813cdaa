/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/option_texts.h"

#include "common/util.h"

/* Values are printed in log lines and in messages for terminals. */
static bool has_control(struct wire_text value)
{
	for (size_t i = 0; i < value.len; i++)
		if ((unsigned char)value.data[i] < ' ' || value.data[i] == 0x7f)
			return true;
	return false;
}

int option_texts_add(struct option_texts *t, struct wire_text name, struct wire_text value,
		     char why[CELL_WHY_MAX])
{
	char *name_copy, *value_copy;

	if (!option_find(cell_option_rows, CELL_OPTION_ROWS, name.data, name.len)) {
		snprintf(why, CELL_WHY_MAX, "%.*s: no such cell option", (int)MIN(name.len, 64u),
			 name.data);
		return -EINVAL;
	}
	if (has_control(value) || t->n == OPTION_TEXTS_MAX) {
		snprintf(why, CELL_WHY_MAX, "--%.*s: expected text without control characters",
			 (int)name.len, name.data);
		return -EINVAL;
	}
	name_copy = strndup(name.data, name.len);
	value_copy = strndup(value.data, value.len);
	if (!name_copy || !value_copy) {
		free(name_copy);
		free(value_copy);
		snprintf(why, CELL_WHY_MAX, "no memory");
		return -ENOMEM;
	}
	t->text[t->n].name = name_copy;
	t->text[t->n++].value = value_copy;
	return 0;
}

const char *option_texts_get(const struct option_texts *t, const char *name)
{
	for (unsigned i = 0; i < t->n; i++)
		if (strcmp(t->text[i].name, name) == 0)
			return t->text[i].value;
	return NULL;
}

void option_texts_free(struct option_texts *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		free(t->text[i].name);
		free(t->text[i].value);
	}
	t->n = 0;
}

int option_texts_apply(const struct option_texts *t, struct cell_options *o, char why[CELL_WHY_MAX])
{
	for (unsigned i = 0; i < t->n; i++)
		if (cell_options_set(o, t->text[i].name, t->text[i].value, why) < 0)
			return -EINVAL;
	return cell_options_check(o, why);
}

void option_texts_write(const struct option_texts *t, struct json_writer *w)
{
	json_put_begin_object(w);
	for (unsigned i = 0; i < t->n; i++)
		json_put_kv_string(w, t->text[i].name, t->text[i].value);
	json_put_end_object(w);
}
