/* SPDX-License-Identifier: MIT */
/*
 * Hides files from this process for ever, by a Landlock domain; no change of user makes them
 * readable again. Landlock has only rules that allow, so everything beside the hidden paths is
 * allowed by name. Therefore an entry that is made later directly in a parent folder of a hidden
 * path cannot be read either. Allocates while it walks. Call it on one thread, before others are
 * started.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define HIDDEN_MAX 4u

/*
 * Hide n absolute paths, at most HIDDEN_MAX, whether they exist or not. Device nodes cannot be made
 * either. With n = 0 only the domain is entered: this process then cannot trace a process outside
 * of it. Returns whether the kernel has Landlock and did it.
 */
bool hidden_enter(const char *const *paths, size_t n);
