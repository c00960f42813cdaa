/* SPDX-License-Identifier: MIT */
#include "host-receiver/evidence/timestamp.h"

#include "common/util.h"

#define DAY_MS INT64_C(86400000)

/* Days from 1970-01-01 to a date of the Gregorian calendar, counted in eras of 400 years. */
static int64_t days_of(int64_t year, int month, int day)
{
	const int64_t y = month <= 2 ? year - 1 : year;
	const int64_t era = y / 400;
	const int64_t of_era = y - era * 400;
	const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Read exactly n digits. Returns -1 if there are fewer. */
static int digits(const char **at, const char *end, int n)
{
	int v = 0;

	if (end - *at < n)
		return -1;
	for (int i = 0; i < n; i++) {
		const char c = *(*at)++;

		if (c < '0' || c > '9')
			return -1;
		v = v * 10 + (c - '0');
	}
	return v;
}

static int take(const char **at, const char *end, char c)
{
	if (*at == end || **at != c)
		return -EINVAL;
	(*at)++;
	return 0;
}

static int parse_date(const char **at, const char *end, int64_t *ret_ms)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year, month, day, last;

	year = digits(at, end, 4);
	if (year < 1970 || take(at, end, '-') < 0)
		return -EINVAL;
	month = digits(at, end, 2);
	if (month < 1 || month > 12 || take(at, end, '-') < 0)
		return -EINVAL;
	day = digits(at, end, 2);
	last = lengths[month - 1];
	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		last = 29;
	if (day < 1 || day > last)
		return -EINVAL;
	*ret_ms = days_of(year, month, day) * DAY_MS;
	return 0;
}

static int parse_clock(const char **at, const char *end, int64_t *ret_ms)
{
	int hour, minute, second, n = 0;
	int64_t fraction = 0;

	hour = digits(at, end, 2);
	if (hour < 0 || hour > 23 || take(at, end, ':') < 0)
		return -EINVAL;
	minute = digits(at, end, 2);
	if (minute < 0 || minute > 59 || take(at, end, ':') < 0)
		return -EINVAL;
	second = digits(at, end, 2);
	if (second < 0 || second > 60)
		return -EINVAL;
	if (take(at, end, '.') == 0) {
		for (; *at < end && **at >= '0' && **at <= '9' && n < 9; (*at)++, n++)
			if (n < 3)
				fraction = fraction * 10 + (**at - '0');
		if (n == 0)
			return -EINVAL;
		for (; n < 3; n++)
			fraction *= 10;
	}
	*ret_ms = (((int64_t)hour * 60 + minute) * 60 + second) * 1000 + fraction;
	return take(at, end, 'Z');
}

int timestamp_parse(const char *text, size_t len, int64_t *ret_ms)
{
	const char *at = text, *end = text + len;
	int64_t date, clock;

	if (parse_date(&at, end, &date) < 0 || take(&at, end, 'T') < 0 ||
	    parse_clock(&at, end, &clock) < 0 || at != end)
		return -EINVAL;
	*ret_ms = date + clock;
	return 0;
}

int timestamp_parse_duration(const char *text, int64_t *ret_ms)
{
	static const struct {
		char unit;
		int64_t ms;
	} units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', DAY_MS}};
	char number[16];
	const size_t len = strlen(text);
	uint64_t v;

	if (len < 2 || len > sizeof(number))
		return -EINVAL;
	memcpy(number, text, len - 1);
	number[len - 1] = '\0';
	if (parse_u64(number, 0, 1000000000, &v) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (units[i].unit == text[len - 1]) {
			*ret_ms = (int64_t)v * units[i].ms;
			return 0;
		}
	return -EINVAL;
}

int timestamp_parse_argument(const char *text, int64_t now_ms, int64_t *ret_ms)
{
	const char *at = text, *end = text + strlen(text);
	int64_t ms;

	if (timestamp_parse(text, strlen(text), ret_ms) == 0)
		return 0;
	if (parse_date(&at, end, &ms) == 0 && at == end) {
		*ret_ms = ms;
		return 0;
	}
	if (timestamp_parse_duration(text, &ms) < 0)
		return -EINVAL;
	*ret_ms = now_ms - ms;
	return 0;
}

const char *timestamp_format(int64_t ms, char out[static TIMESTAMP_TEXT_MAX])
{
	const time_t seconds = (time_t)(ms / 1000);
	char date[24] = "?";
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, TIMESTAMP_TEXT_MAX, "%.23s.%03dZ", date, (int)(ms % 1000));
	return out;
}
