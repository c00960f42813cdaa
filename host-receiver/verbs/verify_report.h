/* SPDX-License-Identifier: MIT */
/*
 * What verify prints: the findings and the verdict, and with --report each log and each stream;
 * for people, or as one JSON object. It decides nothing. Texts of the evidence are escaped.
 */
#pragma once

#include <stdio.h>

#include "host-receiver/judge/verifier.h"

struct verify_report {
	const struct verifier_result *result;
	bool require_signed; /* were unsigned records a failure? */
	bool details;	     /* --report */
};

void verify_report_text(const struct verify_report *report);
/* One line to out. Returns 0 or -ENOMEM. */
int verify_report_json(const struct verify_report *report, FILE *out);
