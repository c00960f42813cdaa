/* SPDX-License-Identifier: MIT */
#include "host-receiver/sign/key.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/evidence/base64.h"

bool kid_valid(const char *kid, size_t len)
{
	if (len < 1 || len > KID_MAX ||
	    (kid[0] == '.' && (len == 1 || (len == 2 && kid[1] == '.'))))
		return false;
	for (size_t i = 0; i < len; i++) {
		const char c = kid[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		      c == '.' || c == '_' || c == ':' || c == '-'))
			return false;
	}
	return true;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int key_decode(const char *text, size_t len, uint8_t out[static KEY_BYTES_MAX])
{
	size_t n;

	while (len > 0 && is_space(text[0]))
		text++, len--;
	while (len > 0 && is_space(text[len - 1]))
		len--;
	for (int padding = 0; len > 0 && padding < 2 && text[len - 1] == '='; padding++)
		len--;
	if (len == 0 || !base64_decode(text, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING, out,
				       KEY_BYTES_MAX, &n))
		return -EINVAL;
	return (int)n;
}

/* Non-blocking, because opening a FIFO with this name would block. */
static int open_key_file(const char *path, const struct user_ids *owner)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	struct user_acting was;
	int fd = open(path, flags), error;

	if (fd >= 0 || errno != EACCES || !owner)
		return fd < 0 ? -errno : fd;
	was = users_act_as(owner->uid, owner->gid);
	fd = open(path, flags);
	error = errno;
	users_act_back(&was);
	return fd < 0 ? -error : fd;
}

static int check_secret(const char *path, const struct stat *st, const struct user_ids *owner,
			char *why, size_t why_size)
{
	const uid_t own = owner ? owner->uid : geteuid();

	/* The owner of the file could replace it. */
	if (st->st_uid != 0 && st->st_uid != own) {
		snprintf(why, why_size, "%s: belongs to uid %u; expected root or uid %u", path,
			 (unsigned)st->st_uid, (unsigned)own);
		return -EPERM;
	}
	if (st->st_mode & (S_IRWXG | S_IRWXO)) {
		snprintf(why, why_size,
			 "%s: mode %04o lets others at the key; expected 0600 or 0400", path,
			 (unsigned)st->st_mode & 07777u);
		return -EPERM;
	}
	return 0;
}

/* Explain that the secret belongs to another user. False: there is another reason. */
static bool explain_closed(const char *path, const struct user_ids *owner, char *why,
			   size_t why_size)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	       check_secret(path, &st, owner, why, why_size) < 0;
}

static int check_file(int fd, const char *path, struct stat *ret, char *why, size_t why_size)
{
	if (fstat(fd, ret) < 0)
		return -errno;
	if (!S_ISREG(ret->st_mode)) {
		snprintf(why, why_size, "%s: expected a regular file", path);
		return -EINVAL;
	}
	if (ret->st_size > (off_t)KEY_FILE_MAX) {
		snprintf(why, why_size, "%s: larger than %u bytes", path, KEY_FILE_MAX);
		return -EFBIG;
	}
	return 0;
}

/* Returns the number of bytes, or a negative errno. */
static ssize_t read_whole(int fd, char *data, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

static int read_file(const char *path, bool secret, const struct user_ids *owner, char **ret,
		     size_t *ret_len, char *why, size_t why_size)
{
	_cleanup_close_ int fd = open_key_file(path, owner);
	struct stat st;
	ssize_t n;
	char *data;
	int r;

	if (fd == -EACCES && secret && explain_closed(path, owner, why, why_size))
		return -EPERM;
	if (fd < 0) {
		snprintf(why, why_size, "%s: %s", path,
			 fd == -ELOOP ? "is a symbolic link; expected a regular file"
				      : strerror(-fd));
		return fd;
	}
	r = check_file(fd, path, &st, why, why_size);
	if (r == 0 && secret)
		r = check_secret(path, &st, owner, why, why_size);
	if (r < 0)
		return r;
	data = sodium_malloc((size_t)st.st_size + 1);
	if (!data) {
		snprintf(why, why_size, "%s: no memory that can be locked for it", path);
		return -ENOMEM;
	}
	n = read_whole(fd, data, (size_t)st.st_size);
	if (n < 0) {
		snprintf(why, why_size, "%s: %s", path, strerror((int)-n));
		sodium_free(data);
		return (int)n;
	}
	data[n] = '\0';
	*ret = data;
	*ret_len = (size_t)n;
	return 0;
}

int key_read_file(const char *path, bool secret, char **ret, size_t *ret_len, char *why,
		  size_t why_size)
{
	return read_file(path, secret, NULL, ret, ret_len, why, why_size);
}

int key_read_secret(const char *path, const struct user_ids *owner, char **ret, size_t *ret_len,
		    char *why, size_t why_size)
{
	return read_file(path, true, owner, ret, ret_len, why, why_size);
}
