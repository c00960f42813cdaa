/* SPDX-License-Identifier: MIT */
/*
 * States: WAITING (until next_try_ns) -> CONNECTED (connect, check the stream, seek to the cursor)
 * -> on any error WAITING again, with a longer pause. A turn while CONNECTED: take answers, move
 * the cursor over the contiguous acknowledged messages, send while there is room, sleep.
 */
#include "host-receiver/forward/forwarder.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "common/log.h"
#include "host-receiver/evidence/cursor.h"
#include "host-receiver/forward/connection.h"
#include "host-receiver/forward/cursor.h"
#include "host-receiver/forward/group.h"
#include "host-receiver/forward/restrict.h"
#include "host-receiver/forward/subject.h"
#include "host-receiver/forward/walk.h"
#include "host-receiver/forward/walk_find.h"

#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 30000u
#define TURN_MS	       200     /* a turn without an event */
#define CURSOR_MS      3000u   /* time between two writes of the cursor */
#define KEEP_MS	       600000u /* segments are kept for this long after they were acknowledged */
#define KEEP_STEP_MS   10000u
#define KEEP_STEPS     (KEEP_MS / KEEP_STEP_MS)
#define SEND_BURST     512u  /* messages of one turn; then answers are read again */
#define GATHER_MS      2     /* answers collect for this long while no message may be sent */
#define STATUS_MS      1000u /* between two reports */
#define STATUS_IDLE_MS                                                                             \
	100u /* used when the forwarder has just caught up, or has just fallen back */

/* A message that was sent, and the place in the log after it is acknowledged. */
struct sent {
	struct group_place after;
	const char *origin; /* the message's; the walk owns it */
	uint64_t index;	    /* of the message */
	unsigned entries;
	bool notice;		  /* it replaces an entry that is too large */
	char time[TIME_TEXT_MAX]; /* when its first entry was received */
};

/* A message that the server refused because of its size, although its announced limits allow it. */
struct refused {
	const char *origin; /* the walk's; NULL: none */
	uint64_t index;
	unsigned entries; /* a checkpoint has the index of the next entry, and 0 entries */
};

struct forwarder {
	const struct forward_settings *settings;
	int link_fd, signal_fd, state_fd, cursors_fd;
	struct publisher *publisher; /* NULL: WAITING */
	struct walk *walk;
	struct group *group;
	struct tree_hasher *hasher;
	struct link_order end; /* the durable end of the log */

	struct sent *sent; /* max_pending places: a ring parallel to the publisher's */
	uint64_t first, next;
	struct group_place place;     /* everything before it is acknowledged */
	struct forward_cursor cursor; /* the same place, or that of some seconds ago */
	bool cursor_known, place_newer, cursor_dirty;
	struct refused refused;
	uint64_t cursor_stored_ns;
	int cursor_error; /* of the last write; 0: it succeeded */

	struct {
		uint64_t ns;
		struct evidence_position at;
	} kept[KEEP_STEPS]; /* earlier places of the cursor, the oldest first */
	unsigned n_kept;

	struct restriction restriction;
	uint64_t next_try_ns;
	unsigned backoff_ms, url_number;
	bool caught_up, stopping, again, was_idle;
	struct forward_status status, reported;
	uint64_t status_ns;
};

/* ---- the cursor ---- */

static void keep_segments(struct forwarder *f, uint64_t now_ns)
{
	struct evidence_position floor = {0};

	if (f->n_kept > 0 && now_ns < f->kept[f->n_kept - 1].ns + KEEP_STEP_MS * NSEC_PER_MSEC)
		return;
	if (f->n_kept == KEEP_STEPS) {
		floor = f->kept[0].at;
		memmove(f->kept, f->kept + 1, sizeof(f->kept[0]) * (KEEP_STEPS - 1));
		f->n_kept--;
		evidence_cursor_store(f->cursors_fd, LINK_CURSOR, &floor);
	}
	f->kept[f->n_kept].ns = now_ns;
	f->kept[f->n_kept++].at = f->cursor.at;
}

/* Make a cursor from the place. The hash is computed here, not for each entry that is sent. */
static int update_cursor(struct forwarder *f)
{
	struct forward_cursor next = {
		.generation = f->cursor.generation,
		.index = f->place.index,
		.at = f->place.at,
	};
	int r;

	if (!f->place_newer)
		return 0;
	snprintf(next.origin, sizeof(next.origin), "%s", f->place.origin);
	r = walk_leaf(f->walk, &next.at, &next.before);
	if (r < 0)
		return r;
	f->cursor = next;
	f->cursor_known = true;
	f->place_newer = false;
	return 0;
}

/* Write the cursor rarely, because its syncs compete with the log's commits for the disk. */
static void store_cursor(struct forwarder *f, uint64_t now_ns, bool now)
{
	int r;

	if (!f->cursor_dirty || (!now && now_ns < f->cursor_stored_ns + CURSOR_MS * NSEC_PER_MSEC))
		return;
	f->cursor_stored_ns = now_ns;
	r = update_cursor(f);
	if (r == 0)
		r = forward_cursor_store(f->state_fd, &f->cursor);
	if (r < 0) {
		/*
		 * Log it once. It is tried again, and a failure costs only messages that are sent
		 * twice.
		 */
		if (f->cursor_error != r)
			log_error(
				"msg=\"cannot write the forwarder's cursor: after its end more is "
				"sent again\" error=\"%s\"",
				strerror(-r));
		f->cursor_error = r;
		return;
	}
	f->cursor_error = 0;
	f->cursor_dirty = false;
	keep_segments(f, now_ns);
}

/* ---- where to begin ---- */

static void report_lost_cursor(struct forwarder *f, const char *why)
{
	f->status.cursor_lost++;
	log_warning("msg=\"the forwarder's cursor does not fit the log: all of it is sent again\" "
		    "why=\"%s\" index=%" PRIu64 " origin=%s",
		    why, f->cursor.index, *f->cursor.origin ? f->cursor.origin : "none");
}

/* Put the walk after the last acknowledged entry. Returns 0 or a negative errno. */
static int seek(struct forwarder *f)
{
	int r;

	/* If it fails, the older cursor is still correct: more is sent again. */
	update_cursor(f);
	f->first = f->next = 0;
	r = f->cursor_known ? walk_find(f->walk, f->hasher, &f->cursor) : 0;
	if (r < 0)
		return r;
	if (r == 0) {
		if (f->cursor_known)
			report_lost_cursor(f, "the log has no such entry");
		f->cursor = (struct forward_cursor){.generation = f->cursor.generation};
		f->cursor_known = false;
		r = walk_rewind(f->walk);
	}
	f->place = (struct group_place){
		.origin = f->cursor_known ? walk_origin(f->walk) : "",
		.index = f->cursor.index,
		.at = f->cursor.at,
	};
	group_reset(f->group, &f->place);
	return MIN(r, 0);
}

/* ---- errors ---- */

static void note_error(struct forwarder *f, enum forward_error error, const char *why)
{
	f->status.errors[error]++;
	if (f->status.error != error || strcmp(f->status.why, why) != 0)
		log_warning("msg=\"evidence is not forwarded now; it stays in the log\" "
			    "reason=%s why=\"%s\" server=%s",
			    forward_error_name(error), why, f->status.server);
	f->status.error = error;
	snprintf(f->status.why, sizeof(f->status.why), "%s", why);
}

/* Forget the messages without an answer: they are sent again from the cursor on. */
static void wait_after(struct forwarder *f, enum forward_error error, const char *why)
{
	const uint64_t jitter = monotonic_ns() % 100;

	note_error(f, error, why);
	f->status.retries += publisher_pending(f->publisher);
	publisher_close(take_ptr(f->publisher));
	f->status.state = FORWARD_WAITING;
	f->next_try_ns =
		monotonic_ns() + (f->backoff_ms + f->backoff_ms * jitter / 400) * NSEC_PER_MSEC;
	f->backoff_ms = MIN(f->backoff_ms * 2, BACKOFF_MAX_MS);
}

/* ---- connecting ---- */

/*
 * True: a file that is needed for connecting was replaced, and this process may not read the new
 * one. The daemon then starts another process, which may read it.
 */
static bool must_start_again(struct forwarder *f)
{
	const char *path = restrict_replaced(&f->restriction);

	if (!path)
		return false;
	log_notice("msg=\"a file was replaced: the forwarder starts again to read it\" path=\"%s\"",
		   path);
	f->again = f->stopping = true;
	return true;
}

static void connect_now(struct forwarder *f)
{
	char url[512], why[PUBLISHER_WHY_MAX] = "", warnings[PUBLISHER_WHY_MAX] = "";
	enum forward_error error;
	size_t max;
	int r;

	if (must_start_again(f))
		return;
	connection_pick_url(f->settings->url, f->url_number++, url, sizeof(url));
	connection_show_url(url, f->status.server, sizeof(f->status.server));
	error = publisher_open(f->settings, url, &f->publisher, why, warnings);
	if (error != FORWARD_OK) {
		f->publisher = NULL;
		note_error(f, error, why);
		f->next_try_ns = monotonic_ns() + f->backoff_ms * NSEC_PER_MSEC;
		f->backoff_ms = MIN(f->backoff_ms * 2, BACKOFF_MAX_MS);
		return;
	}
	r = seek(f);
	if (r < 0) {
		wait_after(f, FORWARD_READ, strerror(-r));
		return;
	}
	if (strcmp(f->status.warnings, warnings) != 0 && *warnings)
		log_warning("msg=\"the stream's settings may lose evidence\" stream=%s why=\"%s\"",
			    f->settings->stream, warnings);
	snprintf(f->status.warnings, sizeof(f->status.warnings), "%s", warnings);
	max = publisher_max_size(f->publisher);
	group_set_max(f->group, max > GROUP_HEADERS_MAX ? max - GROUP_HEADERS_MAX : 1);
	f->status.state = FORWARD_CONNECTED;
}

/* ---- sending ---- */

static void remember(struct forwarder *f, const struct group_message *m, bool notice)
{
	struct sent *s = &f->sent[f->next++ % f->settings->max_pending];

	s->after = m->after;
	s->origin = m->origin;
	s->index = m->index;
	s->entries = m->entries;
	s->notice = notice;
	memcpy(s->time, m->time, sizeof(s->time));
}

static bool was_refused(const struct forwarder *f, const struct group_message *m)
{
	return f->refused.origin && f->refused.index == m->index &&
	       f->refused.entries == m->entries && strcmp(f->refused.origin, m->origin) == 0;
}

/* The server never takes this message: send a notice instead, and continue. */
static enum forward_error send_notice(struct forwarder *f, const struct group_message *m,
				      uint64_t now_ns, char why[PUBLISHER_WHY_MAX])
{
	struct publisher_message message = {.origin = m->origin, .index = m->index};
	char notice[GROUP_NOTICE_MAX], subject[SUBJECT_MAX], id[GROUP_ID_MAX];

	message.len = group_notice(m, publisher_max_size(f->publisher), notice, id);
	subject_entry(f->settings->subject, (struct wire_text){0},
		      (struct wire_text){.data = "forward.v1.skipped", .len = 18}, subject);
	message.subject = subject;
	message.id = id;
	message.data = notice;
	log_error("msg=\"the server takes no message of this size: it was skipped\" index=%" PRIu64
		  " bytes=%zu origin=%s",
		  m->index, m->len, m->origin);
	f->status.skipped++;
	f->status.errors[FORWARD_TOO_LARGE]++;
	remember(f, m, true);
	return publisher_send(f->publisher, &message, now_ns, why);
}

static enum forward_error send_one(struct forwarder *f, const struct group_message *m,
				   uint64_t now_ns, char why[PUBLISHER_WHY_MAX])
{
	const struct publisher_message message = {
		.subject = m->subject,
		.id = m->id,
		.origin = m->origin,
		.index = m->index,
		.data = m->data,
		.len = m->len,
	};

	if (was_refused(f, m) || !publisher_fits(f->publisher, &message))
		return send_notice(f, m, now_ns, why);
	remember(f, m, false);
	return publisher_send(f->publisher, &message, now_ns, why);
}

/* Read until there is a message. Returns 1, 0: nothing more is durable, or a negative errno. */
static int next_message(struct forwarder *f, struct group_message *m)
{
	int r;

	do {
		r = group_next(f->group, f->walk, m);
		if (r == -ENODATA || r == -EBADMSG) {
			note_error(f, FORWARD_READ,
				   r == -ENODATA ? "evidence is gone before it was forwarded"
						 : "a line of the log cannot be understood");
			group_reset(f->group, NULL);
		}
	} while (r == -ENODATA || r == -EBADMSG);
	return r;
}

static void send_more(struct forwarder *f)
{
	const uint64_t now_ns = monotonic_ns();
	char why[PUBLISHER_WHY_MAX] = "";
	enum forward_error error;
	struct group_message m;
	int r;

	for (unsigned i = 0; i < SEND_BURST && publisher_has_room(f->publisher); i++) {
		r = next_message(f, &m);
		f->caught_up = r == 0;
		if (r < 0) {
			wait_after(f, FORWARD_READ, strerror(-r));
			return;
		}
		if (r == 0)
			return;
		f->status.read += m.entries;
		error = send_one(f, &m, now_ns, why);
		if (error != FORWARD_OK) {
			wait_after(f, error, why);
			return;
		}
		f->status.published++;
	}
}

/* ---- answers ---- */

static void acknowledge(struct forwarder *f)
{
	const struct sent *s = &f->sent[f->first++ % f->settings->max_pending];

	f->status.acked++;
	if (s->notice)
		f->refused = (struct refused){0};
	if (s->after.index > 0) {
		f->place = s->after;
		f->place_newer = f->cursor_dirty = true;
	}
	f->backoff_ms = BACKOFF_MIN_MS;
	f->status.error = FORWARD_OK;
	f->status.why[0] = '\0';
}

/*
 * The server refused the oldest message because of its size. All messages before it are
 * acknowledged, so the next connection begins with it, and sends the notice. If the notice is
 * refused too, it is skipped.
 */
static bool pass_refused(struct forwarder *f, const struct publisher_answer *answer)
{
	const struct sent *s = &f->sent[f->first % f->settings->max_pending];

	if (!s->notice) {
		f->refused = (struct refused){s->origin, s->index, s->entries};
		wait_after(f, answer->error, answer->why);
		return false;
	}
	log_error("msg=\"the server refused the notice of a skipped message too\" index=%" PRIu64
		  " why=\"%s\"",
		  s->index, answer->why);
	return true;
}

static void take_answers(struct forwarder *f)
{
	struct publisher_answer answer;
	char why[PUBLISHER_WHY_MAX];
	enum forward_error error;

	while (publisher_take_answer(f->publisher, &answer)) {
		if (answer.error == FORWARD_TOO_LARGE) {
			if (!pass_refused(f, &answer))
				return;
		} else if (answer.error != FORWARD_OK) {
			wait_after(f, answer.error, answer.why);
			return;
		}
		f->status.duplicates += answer.duplicate;
		acknowledge(f);
	}
	error = publisher_check(f->publisher, monotonic_ns(), why);
	if (error != FORWARD_OK)
		wait_after(f, error, why);
}

/* ---- the daemon ---- */

static uint64_t realtime_ms(void)
{
	return clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC;
}

static void report_status(struct forwarder *f, uint64_t now_ns)
{
	struct forward_status *s = &f->status;
	const struct sent *oldest = &f->sent[f->first % f->settings->max_pending];
	const uint64_t sent_ns = f->publisher ? publisher_oldest_ns(f->publisher) : 0;
	const bool waits = f->first < f->next, idle = f->caught_up && !waits;
	uint64_t received_ms;

	/* Without the log's end nobody can say how far behind it is. */
	if (f->end.kind != LINK_END)
		return;
	/* Report a change at once, so that nobody waits a second for the end of an outage. */
	if (now_ns < f->status_ns + STATUS_MS * NSEC_PER_MSEC && s->state == f->reported.state &&
	    (idle == f->was_idle || now_ns < f->status_ns + STATUS_IDLE_MS * NSEC_PER_MSEC))
		return;
	f->status_ns = now_ns;
	f->was_idle = idle;
	s->index = f->place.index;
	s->lag_events = f->end.index > s->index ? f->end.index - s->index : 0;
	s->unacked_ms = sent_ns > 0 && now_ns > sent_ns ? (now_ns - sent_ns) / NSEC_PER_MSEC : 0;
	received_ms = waits ? group_time_ms(oldest->time) : 0;
	if (received_ms > 0 && realtime_ms() > received_ms)
		s->lag_ms = realtime_ms() - received_ms;
	else if (s->state == FORWARD_CONNECTED && idle)
		s->lag_ms = 0;
	else
		s->lag_ms += 1000;
	f->reported = *s;
	link_put_status(f->link_fd, s);
}

/* Send entries from this index or time on again. Before the oldest entry means all. */
static void rewind_to(struct forwarder *f, const struct link_order *order)
{
	struct group_place before = {.origin = ""};
	struct walk_line line;
	char time[TIME_TEXT_MAX];
	uint64_t time_ms;
	int r;

	publisher_close(take_ptr(f->publisher));
	f->status.state = FORWARD_WAITING;
	f->next_try_ns = 0;
	walk_rewind(f->walk);
	while ((r = walk_next(f->walk, &line)) != 0) {
		if (r < 0 && r != -ENODATA && r != -EBADMSG)
			break;
		if (r < 0 || line.kind != WALK_ENTRY)
			continue;
		snprintf(time, sizeof(time), "%.*s", (int)MIN(line.time.len, sizeof(time) - 1),
			 line.time.data ? line.time.data : "");
		time_ms = group_time_ms(time);
		if (order->kind == LINK_REWIND_INDEX ? line.index >= order->index
						     : time_ms >= order->realtime_ms)
			break;
		before = (struct group_place){
			.origin = line.origin,
			.index = line.index + 1,
			.at = line.start,
		};
	}
	f->place = before;
	f->cursor = (struct forward_cursor){.generation = f->cursor.generation};
	f->cursor_known = false;
	f->place_newer = before.index > 0;
	f->cursor_dirty = true;
	store_cursor(f, monotonic_ns(), true);
	log_notice("msg=\"the forwarder sends again\" from=%" PRIu64, f->place.index);
}

static void take_orders(struct forwarder *f)
{
	struct link_order order;
	int r;

	while ((r = link_take_order(f->link_fd, &order)) == 1) {
		if (order.kind == LINK_END) {
			f->end = order;
			walk_set_end(f->walk, &order.at);
		} else {
			rewind_to(f, &order);
		}
	}
	if (r < 0)
		f->stopping = true;
}

/* ---- the loop ---- */

static void wait_for_event(struct forwarder *f)
{
	struct pollfd fds[] = {
		{.fd = f->signal_fd, .events = POLLIN},
		{.fd = f->link_fd, .events = POLLIN},
		{.fd = -1},
	};
	const bool busy = f->publisher && !f->caught_up && publisher_has_room(f->publisher);

	if (f->publisher) {
		fds[2].fd = publisher_fd(f->publisher);
		fds[2].events = publisher_events(f->publisher);
	}
	poll(fds, ARRAY_SIZE(fds), busy ? 0 : TURN_MS);
	/* Waking up for each single answer would cost more than sending the message. */
	if (!f->caught_up && !busy && fds[2].events == POLLIN && fds[2].revents == POLLIN)
		poll(fds, 2, GATHER_MS);
	if (fds[0].revents)
		f->stopping = true;
	if (fds[1].revents)
		take_orders(f);
	if (f->publisher && fds[2].revents)
		publisher_turn(f->publisher, fds[2].revents);
}

static void run(struct forwarder *f)
{
	while (!f->stopping) {
		const uint64_t now_ns = monotonic_ns();

		/*
		 * There is nothing to read until the daemon has reported the durable end of the
		 * log.
		 */
		if (!f->publisher && f->end.kind == LINK_END && now_ns >= f->next_try_ns)
			connect_now(f);
		if (f->publisher)
			take_answers(f);
		if (f->publisher)
			send_more(f);
		store_cursor(f, now_ns, false);
		report_status(f, now_ns);
		wait_for_event(f);
	}
	if (f->publisher)
		take_answers(f);
	store_cursor(f, monotonic_ns(), true);
	publisher_close(f->publisher);
}

static int open_folder(const char *dir, const char *name)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = -1;

	if (fd >= 0 && (mkdirat(fd, name, 0750) == 0 || errno == EEXIST))
		r = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r < 0) {
		r = -errno;
		log_error("msg=\"cannot open the forwarder's folder\" path=\"%s/%s\" error=\"%s\"",
			  dir, name, strerror(-r));
	}
	return r;
}

static void load_cursor(struct forwarder *f)
{
	bool damaged;
	int r = forward_cursor_load(f->state_fd, &f->cursor, &damaged);

	f->cursor_known = r == 0 && f->cursor.index > 0;
	f->place.index = f->cursor.index;
	if (r < 0 && r != -ENOENT)
		report_lost_cursor(f, "both generations are damaged");
	else if (damaged)
		log_warning("msg=\"one generation of the forwarder's cursor is damaged; the other "
			    "is used\"");
}

/* Do it before the first line is read: retention then keeps these segments. */
static int hold_segments(struct forwarder *f)
{
	struct evidence_position at;
	int r = evidence_cursor_load(f->cursors_fd, LINK_CURSOR, &at);

	if (r == 0)
		return 0;
	at = (struct evidence_position){0};
	return evidence_cursor_store(f->cursors_fd, LINK_CURSOR, &at);
}

static int begin(struct forwarder *f)
{
	sigset_t signals;
	int r;

	f->backoff_ms = BACKOFF_MIN_MS;
	f->place.origin = "";
	f->sent = calloc(f->settings->max_pending, sizeof(*f->sent));
	f->hasher = tree_hasher_new();
	f->state_fd = open_folder(f->settings->state_dir, "forward");
	f->cursors_fd = open_folder(f->settings->state_dir, "cursors");
	if (f->state_fd < 0 || f->cursors_fd < 0)
		return MIN(f->state_fd, f->cursors_fd);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	f->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!f->sent || !f->hasher || f->signal_fd < 0)
		return -ENOMEM;
	r = restrict_forwarder(f->settings, &f->restriction);
	if (r < 0)
		return r;
	f->status.landlock = f->restriction.landlock;
	if (!f->restriction.landlock)
		log_warning("msg=\"this kernel has no Landlock: the forwarder is not held to its "
			    "files\"");
	connection_library_open();
	r = hold_segments(f);
	if (r == 0)
		r = walk_open(f->settings->evidence_dir, &f->walk);
	if (r == 0)
		r = group_new(f->settings, &f->group);
	if (r == 0) {
		/* Nothing counts as durable before the daemon reports it. */
		walk_set_end(f->walk, &f->end.at);
		load_cursor(f);
	}
	return r;
}

int forwarder_run(const struct forward_settings *settings, int link_fd)
{
	struct forwarder f = {
		.settings = settings,
		.link_fd = link_fd,
		.signal_fd = -1,
		.state_fd = -1,
		.cursors_fd = -1,
	};
	int r = begin(&f);

	if (r == 0)
		run(&f);
	else
		log_error("msg=\"the forwarder cannot start\" error=\"%s\"", strerror(-r));
	walk_close(f.walk);
	group_free(f.group);
	tree_hasher_free(f.hasher);
	free(f.sent);
	close_fd(f.signal_fd);
	close_fd(f.state_fd);
	close_fd(f.cursors_fd);
	return r < 0 ? r : f.again;
}
