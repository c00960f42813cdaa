/* SPDX-License-Identifier: MIT */
/*
 * Prints the result of verify, for people or as one JSON object: the findings, the verdict, and
 * with --report each log and each stream. It decides nothing. Texts of the evidence are escaped.
 */
#pragma once

#include <stdio.h>

#include "host-receiver/judge/verifier.h"

struct verify_report {
	const struct verifier_result *result;
	bool require_signed; /* unsigned records count as failures */
	bool details;	     /* --report */
};

#define VERIFY_VERDICT_MAX 160u

/*
 * The verdict in a line: "OK: ..." or "NOT OK: ...". Plain ASCII, without any text of the evidence.
 */
void verify_report_verdict(const struct verify_report *report, char ret[VERIFY_VERDICT_MAX]);
/* Print the whole result to stdout, for people. */
void verify_report_text(const struct verify_report *report);
/* Print the result to out as one JSON object, without a newline. Returns 0 or -ENOMEM. */
int verify_report_json(const struct verify_report *report, FILE *out);
