/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/shared.h"

#include <errno.h>
#include <sysexits.h>

static void print_errors(const struct config_errors *errors)
{
	fputs(errors->text ? errors->text : "no memory\n", stderr);
}

/* Nobody named the file, and it cannot be opened: the verb can do without it, or say more. */
static bool is_absent(const char *path, int r)
{
	return !path && (r == -ENOENT || r == -EACCES);
}

int shared_read_config(const char *path, struct config *ret)
{
	struct config_errors errors;
	const int r = config_read(path ? path : CONFIG_FILE_DEFAULT, ret, &errors);

	if (r < 0)
		print_errors(&errors);
	config_errors_free(&errors);
	return r < 0 ? EX_CONFIG : EX_OK;
}

int shared_find_evidence(const char *verb, const char *path, struct config *config,
			 const char **ret_dir)
{
	struct config_errors errors;
	const int r = config_read(path ? path : CONFIG_FILE_DEFAULT, config, &errors);
	int status = EX_OK;

	if (is_absent(path, r)) {
		fprintf(stderr,
			"%s: expected a folder or a file of evidence; without one it reads the "
			"daemon's folder, which\n" CONFIG_FILE_DEFAULT
			" names: %s; --help says how it is used\n",
			verb, strerror(-r));
		status = EX_USAGE;
	} else if (r < 0) {
		print_errors(&errors);
		status = EX_CONFIG;
	} else {
		*ret_dir = config->evidence_dir;
	}
	config_errors_free(&errors);
	return status;
}

int shared_find_socket(const char *given, const char *path, struct config *config,
		       const char **ret_socket)
{
	struct config_errors errors = {0};
	int r = 0;

	*ret_socket = given;
	if (given)
		return EX_OK;
	r = config_read(path ? path : CONFIG_FILE_DEFAULT, config, &errors);
	*ret_socket = r == 0 ? config->control_socket : SOCKET_DEFAULT;
	if (is_absent(path, r))
		r = 0;
	else if (r < 0)
		print_errors(&errors);
	config_errors_free(&errors);
	return r < 0 ? EX_CONFIG : EX_OK;
}

const char *shared_text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

json_int_t shared_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}
