/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>

#include "common/util.h"
#include "host-receiver/evidence/durable.h"

#define SUFFIX	   ".json"
#define STATE_MODE 0600

static void file_name(const char *id, char out[static NAME_MAX + 1])
{
	_Static_assert(CELL_ID_MAX + sizeof(SUFFIX) + sizeof(DURABLE_STAGED_SUFFIX) < NAME_MAX,
		       "the longest id has a file name");
	snprintf(out, NAME_MAX + 1, "%.*s" SUFFIX, (int)CELL_ID_MAX, id);
}

static int store(int dir_fd, const char *id, const json_t *options, const uint8_t *stream_id,
		 int (*put)(int, const char *, const void *, size_t, mode_t))
{
	char name[NAME_MAX + 1], stream[UUID_STRING_MAX];
	_cleanup_free_ char *text = NULL;
	json_t *object;

	uuid_format(stream_id, stream);
	object = json_pack("{s:O,s:s}", "options", options, "streamId", stream);
	text = object ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(object);
	if (!text)
		return -ENOMEM;
	file_name(id, name);
	return put(dir_fd, name, text, strlen(text), STATE_MODE);
}

int cell_state_store(int dir_fd, const char *id, const json_t *options,
		     const uint8_t stream_id[static UUID_SIZE])
{
	return store(dir_fd, id, options, stream_id, durable_write);
}

int cell_state_stage(int dir_fd, const char *id, const json_t *options,
		     const uint8_t stream_id[static UUID_SIZE])
{
	return store(dir_fd, id, options, stream_id, durable_stage);
}

int cell_state_sync(int dir_fd)
{
	return syncfs(dir_fd) < 0 ? -errno : 0;
}

int cell_state_publish(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_publish(dir_fd, name);
}

int cell_state_remove(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_remove(dir_fd, name);
}

static bool parse_uuid(const char *s, uint8_t ret[static UUID_SIZE])
{
	char again[UUID_STRING_MAX];
	unsigned byte;

	if (strlen(s) != UUID_STRING_MAX - 1)
		return false;
	for (size_t i = 0; i < UUID_SIZE; i++) {
		s += *s == '-';
		if (sscanf(s, "%2x", &byte) != 1)
			return false;
		ret[i] = (uint8_t)byte;
		s += 2;
	}
	uuid_format(ret, again);
	return strcmp(again, s - (UUID_STRING_MAX - 1)) == 0;
}

/* Returns NULL, or what is wrong with the file. */
static const char *load(int dir_fd, const char *name, json_t **ret, uint8_t *stream_id)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[CELL_STATE_FILE_MAX];
	const char *stream;
	ssize_t n;

	if (fd < 0)
		return strerror(errno);
	n = read(fd, text, sizeof(text));
	if (n < 0 || n == (ssize_t)sizeof(text))
		return n < 0 ? strerror(errno) : "longer than any of these files";
	*ret = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	stream = json_string_value(json_object_get(*ret, "streamId"));
	if (!stream || !parse_uuid(stream, stream_id) ||
	    !json_is_object(json_object_get(*ret, "options")))
		return "expected an object with options and streamId";
	return NULL;
}

static int is_state(const struct dirent *entry)
{
	const size_t len = strlen(entry->d_name);

	return len > sizeof(SUFFIX) - 1 &&
	       strcmp(entry->d_name + len - (sizeof(SUFFIX) - 1), SUFFIX) == 0;
}

int cell_state_each(int dir_fd,
		    void (*fn)(void *ctx, const char *file, const json_t *options,
			       const uint8_t stream_id[UUID_SIZE], const char *why),
		    void *ctx)
{
	struct dirent **entries;
	int n = scandirat(dir_fd, ".", &entries, is_state, alphasort);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		uint8_t stream_id[UUID_SIZE];
		json_t *state = NULL;
		const char *why = load(dir_fd, entries[i]->d_name, &state, stream_id);

		fn(ctx, entries[i]->d_name, why ? NULL : json_object_get(state, "options"),
		   stream_id, why);
		json_decref(state);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static bool option_known(const char *name)
{
	for (size_t i = 0; cell_option_names[i]; i++)
		if (strcmp(cell_option_names[i], name) == 0)
			return true;
	return false;
}

int cell_options_from_json(struct cell_options *o, const json_t *object, char why[CELL_WHY_MAX])
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, name, value)
	{
		if (!option_known(name) || !json_is_string(value)) {
			snprintf(why, CELL_WHY_MAX, "%.64s: %s", name,
				 option_known(name) ? "expected a string" : "no such cell option");
			return -EINVAL;
		}
		if (cell_options_set(o, name, json_string_value(value), why) < 0)
			return -EINVAL;
	}
	return cell_options_check(o, why);
}
