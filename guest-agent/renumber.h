/* SPDX-License-Identifier: MIT */
/*
 * Lower the numbers inside a frame of the agent's own encoder, in its place. A new session numbers
 * the frames that the old one did not send from 1 again. Pure functions on memory.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Lower seq, and in a loss receipt first_seq and last_seq, by `by`, which is less than seq. A
 * smaller number is never longer, so the frame only shrinks. Returns by how many bytes.
 */
size_t renumber_frame(uint8_t *frame, size_t len, uint64_t by);

/*
 * A range of lost numbers in the new session. The part up to `by` was settled in the old session; a
 * range that lies wholly in it becomes 0, 0: no number.
 */
void renumber_range(uint64_t *first, uint64_t *last, uint64_t by);
