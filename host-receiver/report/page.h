/* SPDX-License-Identifier: MIT */
/*
 * The page of a report: one HTML file that needs nothing else. Its design (page/) is compiled into
 * the program. The judge's result and the records are packed text in the page. The page's script
 * unpacks them in the reader's browser and shows them as text, never as HTML.
 *
 * The packed text has these lines:
 *
 * 	the head                      JSON: what was asked, and verify's result with all details
 * 	F <tab> "path"                the records that follow are of this file
 * 	S <tab> "origin"              ... of a segment of this log; "" : outside of any log
 * 	<index> <tab> <line> <tab> R  one record, R as it is stored; <index> is - outside of a log
 *
 * R of a line that is too long to be evidence is empty. One thread.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "host-receiver/judge/sources.h"

#define PAGE_RECORDS_MAX 500000u /* as many as browsers show without delay */
#define PAGE_WHY_MAX	 600u
#define PAGE_BEGIN	 "<!doctype html>" /* the first bytes of every page (page.html) */

struct page_options {
	const char *title; /* a sentence: plain ASCII without < and & */
	const char *head;  /* a line of JSON */
	size_t head_len;
	const char *cell;	    /* records of this cell, and of none; NULL: of all */
	int64_t since_ms, until_ms; /* INT64_MIN, INT64_MAX: not given */
};

/*
 * Write the page of these sources to out. Returns 0 and the number of records that it shows, or a
 * negative errno with a sentence in why; -E2BIG: more than PAGE_RECORDS_MAX.
 */
int page_write(FILE *out, const struct page_options *options, const struct sources *sources,
	       uint64_t *ret_records, char why[PAGE_WHY_MAX]);
