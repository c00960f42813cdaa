/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/evidence/durable.h"

#define SUFFIX	   ".json"
#define STATE_MODE 0600

static void file_name(const char *id, char out[static NAME_MAX + 1])
{
	_Static_assert(CELL_ID_MAX + sizeof(SUFFIX) + sizeof(DURABLE_STAGED_SUFFIX) < NAME_MAX,
		       "the longest id has a file name");
	snprintf(out, NAME_MAX + 1, "%.*s" SUFFIX, (int)CELL_ID_MAX, id);
}

#define DIGITS_MAX 20 /* of a u64 */

int cell_state_format(const struct option_texts *options, const uint8_t stream_id[static UUID_SIZE],
		      const struct evidence_position *since, char **ret)
{
	const int digits = snprintf(NULL, 0, "%" PRIu64 "%" PRIu64, since->segment, since->offset);
	const size_t reserve = (size_t)(2 * DIGITS_MAX - digits);
	_cleanup_free_ char *text = malloc(CELL_STATE_FILE_MAX + 1);
	char stream[UUID_STRING_MAX];
	struct json_writer w;
	size_t len;

	if (!text)
		return -ENOMEM;
	uuid_format(stream_id, stream);
	json_writer_init(&w, text, CELL_STATE_FILE_MAX - reserve);
	json_put_begin_object(&w);
	json_put_key(&w, "options");
	option_texts_write(options, &w);
	json_put_key(&w, "since");
	json_put_begin_array(&w);
	json_put_uint(&w, since->segment);
	json_put_uint(&w, since->offset);
	json_put_end_array(&w);
	json_put_kv_string(&w, "streamId", stream);
	json_put_end_object(&w);
	if (json_writer_done(&w, &len) < 0)
		return -E2BIG;
	text[len] = '\0';
	*ret = take_ptr(text);
	return 0;
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

/* ---- reading ---- */

/* Returns the length, or a negative errno with the reason in *ret_why. */
static ssize_t read_file(int dir_fd, const char *name, char text[static CELL_STATE_FILE_MAX + 1],
			 const char **ret_why)
{
	/* Without O_NONBLOCK a FIFO would hang here. */
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	size_t len = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0) {
		*ret_why = strerrordesc_np(errno);
		return -errno;
	}
	if (!S_ISREG(st.st_mode)) {
		*ret_why = "not a regular file";
		return -EMEDIUMTYPE;
	}
	while (len <= CELL_STATE_FILE_MAX) {
		n = read(fd, text + len, CELL_STATE_FILE_MAX + 1 - len);
		if (n == 0)
			return (ssize_t)len;
		if (n < 0 && errno != EINTR) {
			*ret_why = strerrordesc_np(errno);
			return -errno;
		}
		len += (size_t)MAX(n, 0);
	}
	*ret_why = "longer than 16384 bytes";
	return -EFBIG;
}
_Static_assert(CELL_STATE_FILE_MAX == 16384, "the message says so");

static const char *read_options(const struct json_document *doc, struct option_texts *ret)
{
	const struct json_node *options = json_member(doc, json_document_root(doc), "options");
	char why[CELL_WHY_MAX];

	if (!options || options->type != JSON_OBJECT_NODE)
		return "expected an object with options and streamId";
	for (const struct json_node *o = json_child(doc, options); o; o = json_sibling(doc, o))
		if (o->type != JSON_STRING_NODE || option_texts_add(ret, o->key, o->text, why) < 0)
			return "expected cell options, each a string without control characters";
	return NULL;
}

static bool read_uint(const struct json_node *node, uint64_t *ret)
{
	char digits[DIGITS_MAX + 1];

	if (!node || node->type != JSON_INTEGER_NODE || node->text.len >= sizeof(digits))
		return false;
	memcpy(digits, node->text.data, node->text.len);
	digits[node->text.len] = '\0';
	return parse_u64(digits, 0, UINT64_MAX, ret) == 0;
}

/* Without `since`: from the beginning of the log. */
static bool read_since(const struct json_document *doc, struct evidence_position *ret)
{
	const struct json_node *since = json_member(doc, json_document_root(doc), "since");
	const struct json_node *segment = since ? json_child(doc, since) : NULL;

	return !since || (since->type == JSON_ARRAY_NODE && read_uint(segment, &ret->segment) &&
			  read_uint(json_sibling(doc, segment), &ret->offset));
}

static bool read_stream(const struct json_document *doc, uint8_t ret[static UUID_SIZE])
{
	char stream[UUID_STRING_MAX];
	struct wire_text text;

	if (!json_member_string(doc, json_document_root(doc), "streamId", &text) ||
	    text.len != sizeof(stream) - 1)
		return false;
	memcpy(stream, text.data, text.len);
	stream[text.len] = '\0';
	return uuid_parse(stream, ret);
}

/* Returns NULL, or the mistake in the file. */
static const char *load(int dir_fd, const char *name, const char *id, struct json_document *doc,
			struct cell_state *state)
{
	char text[CELL_STATE_FILE_MAX + 1];
	const char *why, *cell_id;
	size_t offset;
	ssize_t len = read_file(dir_fd, name, text, &why);
	int r;

	if (len < 0)
		return why;
	r = json_document_read(doc, text, (size_t)len, &why, &offset);
	if (r < 0)
		return r == -EBADMSG ? why : strerrordesc_np(-r);
	if (!read_stream(doc, state->stream_id) || !read_since(doc, &state->since))
		return "expected an object with options and streamId";
	why = read_options(doc, &state->options);
	if (why)
		return why;
	cell_id = option_texts_get(&state->options, "cell-id");
	return cell_id && strcmp(cell_id, id) == 0 ? NULL : "its cell-id is not its file's name";
}

static bool is_there(int dir_fd, const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* name: the file's, or the staged file's. */
static void load_into(int dir_fd, const char *name, const char *id, struct cell_state *ret)
{
	struct json_document *doc = json_document_new(CELL_STATE_FILE_MAX);
	char file[NAME_MAX + 1];

	file_name(id, file);
	*ret = (struct cell_state){.has_file = is_there(dir_fd, file)};
	ret->why = doc ? load(dir_fd, name, id, doc, ret) : "no memory";
	if (ret->why)
		option_texts_free(&ret->options);
	json_document_free(doc);
}

void cell_state_load(int dir_fd, const char *id, struct cell_state *ret)
{
	char name[NAME_MAX + 1];

	file_name(id, name);
	load_into(dir_fd, name, id, ret);
}

void cell_state_free(struct cell_state *state)
{
	option_texts_free(&state->options);
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

int cell_state_each(int dir_fd, bool staged, cell_state_fn *fn, void *ctx)
{
	struct dirent **entries;
	int n = scandirat(dir_fd, ".", &entries, staged ? is_staged : is_file, alphasort);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		const char *file = entries[i]->d_name;
		char id[NAME_MAX + 1];
		struct cell_state state;

		snprintf(id, sizeof(id), "%.*s", (int)(strrchr(file, '.') - file), file);
		load_into(dir_fd, file, id, &state);
		fn(ctx, file, id, &state);
		cell_state_free(&state);
		free(entries[i]);
	}
	free(entries);
	return 0;
}
