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

char *cell_state_format(const json_t *options, const uint8_t stream_id[static UUID_SIZE],
			const struct evidence_position *since)
{
	char stream[UUID_STRING_MAX], *text;
	json_t *object;

	uuid_format(stream_id, stream);
	object = json_pack("{s:O,s:s,s:[I,I]}", "options", options, "streamId", stream, "since",
			   (json_int_t)since->segment, (json_int_t)since->offset);
	text = object ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(object);
	return text;
}

int cell_state_stage(int dir_fd, const char *id, const char *text)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_stage(dir_fd, name, text, strlen(text), STATE_MODE);
}

int cell_state_commit(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_commit(dir_fd, name);
}

int cell_state_publish(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_publish(dir_fd, name);
}

int cell_state_discard(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_discard(dir_fd, name);
}

int cell_state_remove(int dir_fd, const char *id)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	return durable_remove(dir_fd, name);
}

int cell_state_sync(int dir_fd)
{
	return syncfs(dir_fd) < 0 ? -errno : 0;
}

/* Returns NULL, or what is wrong with the file. */
static const char *load(int dir_fd, const char *name, json_t **ret, struct cell_state *state)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[CELL_STATE_FILE_MAX];
	const json_t *since;
	const char *stream;
	ssize_t n;

	if (fd < 0)
		return strerror(errno);
	n = read(fd, text, sizeof(text));
	if (n < 0 || n == (ssize_t)sizeof(text))
		return n < 0 ? strerror(errno) : "longer than any of these files";
	*ret = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	stream = json_string_value(json_object_get(*ret, "streamId"));
	state->options = json_object_get(*ret, "options");
	if (!stream || !uuid_parse(stream, state->stream_id) || !json_is_object(state->options))
		return "expected an object with options and streamId";
	/* Without it: from the log's beginning. */
	since = json_object_get(*ret, "since");
	state->since = (struct evidence_position){
		.segment = (uint64_t)json_integer_value(json_array_get(since, 0)),
		.offset = (uint64_t)json_integer_value(json_array_get(since, 1)),
	};
	return NULL;
}

static bool is_there(int dir_fd, const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

json_t *cell_state_load(int dir_fd, const char *id, struct cell_state *ret)
{
	char name[NAME_MAX + 1];
	json_t *object = NULL;

	file_name(id, name);
	*ret = (struct cell_state){.file = id, .id = id, .has_file = is_there(dir_fd, name)};
	ret->why = load(dir_fd, name, &object, ret);
	if (!ret->why)
		return object;
	ret->options = NULL;
	json_decref(object);
	return NULL;
}

static bool ends_with(const char *s, const char *end)
{
	const size_t len = strlen(s), n = strlen(end);

	return len > n && strcmp(s + len - n, end) == 0;
}

static int is_file(const struct dirent *entry)
{
	return ends_with(entry->d_name, SUFFIX);
}

static int is_staged(const struct dirent *entry)
{
	return ends_with(entry->d_name, SUFFIX DURABLE_STAGED_SUFFIX);
}

int cell_state_each(int dir_fd, bool staged, void (*fn)(void *ctx, const struct cell_state *state),
		    void *ctx)
{
	struct dirent **entries;
	int n = scandirat(dir_fd, ".", &entries, staged ? is_staged : is_file, alphasort);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		const char *file = entries[i]->d_name;
		char id[NAME_MAX + 1], name[NAME_MAX + 1];
		struct cell_state state = {.file = file, .id = id};
		json_t *object = NULL;

		snprintf(id, sizeof(id), "%.*s", (int)(strrchr(file, '.') - file), file);
		file_name(id, name);
		state.has_file = is_there(dir_fd, name);
		state.why = load(dir_fd, file, &object, &state);
		if (state.why)
			state.options = NULL;
		fn(ctx, &state);
		json_decref(object);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static bool option_known(const char *name)
{
	return option_find(cell_option_rows, CELL_OPTION_ROWS, name, strlen(name));
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
