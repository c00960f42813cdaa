/* SPDX-License-Identifier: MIT */
#include <stdarg.h>

#include "seccomp/launcher/launch.h"

void step_set(struct step *step, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(step->name, sizeof(step->name), fmt, ap);
	va_end(ap);
}
