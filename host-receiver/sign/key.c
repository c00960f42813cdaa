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

int key_read_file(const char *path, bool secret, char **ret, size_t *ret_len, char *why,
		  size_t why_size)
{
	/* Non-blocking, so that a FIFO in its place does not hold us up. */
	_cleanup_close_ int fd =
		open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char *data;
	size_t len = 0;

	if (fd < 0) {
		const int error = errno;

		snprintf(why, why_size, "%s: %s", path,
			 error == ELOOP ? "is a symbolic link; expected a regular file"
					: strerror(error));
		return -error;
	}
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode)) {
		snprintf(why, why_size, "%s: expected a regular file", path);
		return -EINVAL;
	}
	/* Whoever owns it could put another one in its place. */
	if (secret && st.st_uid != 0 && st.st_uid != geteuid()) {
		snprintf(why, why_size, "%s: belongs to uid %u; expected root or uid %u", path,
			 (unsigned)st.st_uid, (unsigned)geteuid());
		return -EPERM;
	}
	if (secret && (st.st_mode & (S_IRWXG | S_IRWXO))) {
		snprintf(why, why_size,
			 "%s: mode %04o lets others at the key; expected 0600 or 0400", path,
			 (unsigned)st.st_mode & 07777u);
		return -EPERM;
	}
	if (st.st_size > (off_t)KEY_FILE_MAX) {
		snprintf(why, why_size, "%s: larger than %u bytes", path, KEY_FILE_MAX);
		return -EFBIG;
	}
	data = sodium_malloc((size_t)st.st_size + 1);
	if (!data) {
		snprintf(why, why_size, "%s: no memory that can be locked for it", path);
		return -ENOMEM;
	}
	while (len < (size_t)st.st_size) {
		ssize_t n = read(fd, data + len, (size_t)st.st_size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			const int error = errno;

			snprintf(why, why_size, "%s: %s", path, strerror(error));
			sodium_free(data);
			return -error;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	data[len] = '\0';
	*ret = data;
	*ret_len = len;
	return 0;
}
