/* SPDX-License-Identifier: MIT */
/*
 * The files of page/ as one document, in pieces. embed.py makes design.c from them. The document's
 * Content-Security-Policy allows its own script and style by their hashes, and nothing else.
 */
#pragma once

/* ... title ... before ... title ... between ... packed text ... after */
extern const char report_design_title[], report_design_before[], report_design_between[],
	report_design_after[];
