/* SPDX-License-Identifier: MIT */
/*
 * Files that this process can never read any more, whatever user it is: a Landlock domain. Landlock
 * only knows what is allowed, so everything beside the hidden paths is allowed by name; what is
 * made later in one of their parent folders (not below its other entries) cannot be read either.
 * Allocates while it walks; one thread, before others are started.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define HIDDEN_MAX 4u

/*
 * Hide n absolute paths, at most HIDDEN_MAX, whether they are there or not; and no devices can be
 * made. With no path only the domain is entered, outside of which no process can be traced. Returns
 * whether the kernel has Landlock and did it.
 */
bool hidden_enter(const char *const *paths, size_t n);
