/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/gap.h"

#include "common/util.h"

const char *gap_reason_name(enum gap_reason reason)
{
	static const char *const names[] = {
		[GAP_JUMP] = "jump",
		[GAP_SESSION_START] = "session_start",
		[GAP_REFUSED] = "refused",
		[GAP_INHERITED] = "inherited",
		[GAP_HOST_AHEAD] = "host_ahead",
	};
	_Static_assert(ARRAY_SIZE(names) == _GAP_REASON_MAX, "a name for each reason");

	return names[reason];
}

/* Every number below next was assigned, so those that did not arrive are missing. */
static void reach(struct session *s, uint64_t next, struct gap *ret)
{
	if (next <= s->next)
		return;
	*ret = (struct gap){.first = s->next, .last = next - 1, .reason = GAP_JUMP};
	s->next = next;
}

static void begin_session(struct numbering *n, struct sessions *memory,
			  const struct hello_numbers *hello, struct gap *ret)
{
	const uint64_t next = MAX(hello->next_seq, UINT64_C(1));

	n->session = sessions_add(memory, hello->session, next);
	if (next > 1)
		*ret = (struct gap){
			.first = 1,
			.last = next - 1,
			.reason = hello->boot_elsewhere ? GAP_INHERITED : GAP_SESSION_START,
		};
}

enum number_verdict numbering_hello(struct numbering *n, struct sessions *memory,
				    const struct hello_numbers *hello, struct gap *ret)
{
	struct session *s = sessions_find(memory, hello->session);

	*ret = (struct gap){0};
	if (n->session)
		/* Another hello of the same session says that a source changed. */
		return s == n->session ? NUMBER_FINE : NUMBER_SECOND_SESSION;
	if (!s) {
		begin_session(n, memory, hello, ret);
		return NUMBER_FINE;
	}
	n->session = s;
	if (hello->next_seq == 0)
		return NUMBER_FINE;
	if (hello->assigned != 0 && s->next > hello->assigned) {
		/*
		 * Its frames are all new from now on, whatever their numbers are: there are no
		 * repeats.
		 */
		*ret = (struct gap){
			.first = hello->assigned,
			.last = s->next - 1,
			.reason = GAP_HOST_AHEAD,
		};
		s->next = hello->next_seq;
		return NUMBER_FINE;
	}
	n->repeat_next = hello->next_seq;
	n->repeat_end = s->next;
	reach(s, hello->next_seq, ret);
	return NUMBER_FINE;
}

/* Whether the number is the next repeat or a later one. */
static bool is_repeat(struct numbering *n, uint64_t seq)
{
	if (seq < n->repeat_next || seq >= n->repeat_end)
		return false;
	n->repeat_next = seq + 1;
	return true;
}

enum number_verdict numbering_frame(struct numbering *n, uint64_t seq, struct gap *ret)
{
	bool noted;

	*ret = (struct gap){0};
	if (!n->session) {
		noted = n->no_hello_noted;
		n->no_hello_noted = true;
		return noted ? NUMBER_FINE : NUMBER_NO_HELLO;
	}
	if (seq >= n->session->next) {
		reach(n->session, seq, ret);
		n->session->next = seq + 1;
		return NUMBER_FINE;
	}
	if (is_repeat(n, seq))
		return NUMBER_REPEAT;
	noted = n->backwards_noted;
	n->backwards_noted = true;
	return noted ? NUMBER_FINE : NUMBER_BACKWARDS;
}

void numbering_reach(struct numbering *n, uint64_t next_seq, struct gap *ret)
{
	*ret = (struct gap){0};
	if (n->session)
		reach(n->session, next_seq, ret);
}

void numbering_refused(struct numbering *n, struct gap *ret)
{
	*ret = (struct gap){0};
	if (!n->session)
		return;
	if (n->repeat_next < n->repeat_end) {
		/* The frame was refused before, and its number is accounted for. */
		n->repeat_next++;
		return;
	}
	if (n->session->next > WIRE_SEQ_MAX)
		return;
	*ret = (struct gap){
		.first = n->session->next,
		.last = n->session->next,
		.reason = GAP_REFUSED,
	};
	n->session->next++;
}
