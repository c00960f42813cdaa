/* SPDX-License-Identifier: MIT */
/* The class and activity of OCSF 1.8 for each event of the evidence. A static table; any thread. */
#pragma once

#include "common/wire.h"

/* https://schema.ocsf.io/1.8.0/classes: the uid of a class is that of its category, * 1000, + n. */
enum ocsf_class {
	OCSF_BASE_EVENT = 0,
	OCSF_FILE_ACTIVITY = 1001,
	OCSF_KERNEL_ACTIVITY = 1003,
	OCSF_PROCESS_ACTIVITY = 1007,
	OCSF_EVENT_LOG_ACTIVITY = 1008,
	OCSF_DETECTION_FINDING = 2004,
	OCSF_NETWORK_ACTIVITY = 4001,
};

#define OCSF_CATEGORY(class) ((unsigned)(class) / 1000)

/* Every class has it. The event names the activity itself. */
#define OCSF_ACTIVITY_OTHER 99u

enum ocsf_severity {
	OCSF_INFORMATIONAL = 1,
	OCSF_LOW,
	OCSF_MEDIUM,
	OCSF_HIGH,
	OCSF_CRITICAL,
};

struct ocsf_mapping {
	const char *type; /* without EVENT_TYPE_PREFIX */
	enum ocsf_class class;
	unsigned activity;
	const char *activity_name;
	enum ocsf_severity severity;
	/* Of findings: those with the same name and stream are one finding. NULL: each is its own.
	 */
	const char *finding;
	const char *message;
};

/* The mapping of a type without its prefix; that of a base event for one that is not known. */
const struct ocsf_mapping *ocsf_mapping_of(struct wire_text type);

const char *ocsf_class_name(enum ocsf_class class);
const char *ocsf_severity_name(enum ocsf_severity severity);
