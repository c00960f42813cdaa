/* SPDX-License-Identifier: MIT */
#include "host-receiver/export/classes.h"

#include <string.h>

#include "common/util.h"

#define PROCESS(n, name)   OCSF_PROCESS_ACTIVITY, n, name
#define NETWORK(n, name)   OCSF_NETWORK_ACTIVITY, n, name
#define LOGGING(n, name)   OCSF_EVENT_LOG_ACTIVITY, n, name
#define FINDING(n, name)   OCSF_DETECTION_FINDING, n, name
#define OTHER(class, name) class, OCSF_ACTIVITY_OTHER, name
#define FILE_UPDATE	   OCSF_FILE_ACTIVITY, 3, "Update" /* ocsf.c looks at what happened */

static const struct ocsf_mapping mappings[] = {
	{"guest.v1.process_spawned", PROCESS(1, "Launch"), OCSF_INFORMATIONAL, NULL,
	 "a process began"},
	{"guest.v1.process_executed", PROCESS(1, "Launch"), OCSF_INFORMATIONAL, NULL,
	 "a process executed a program"},
	{"guest.v1.process_identity_changed", PROCESS(5, "Set User ID"), OCSF_LOW, NULL,
	 "a process changed its identity"},
	{"guest.v1.process_session_started", OTHER(OCSF_PROCESS_ACTIVITY, "Start Session"),
	 OCSF_INFORMATIONAL, NULL, "a process began a session"},
	{"guest.v1.process_traced", PROCESS(3, "Open"), OCSF_LOW, NULL,
	 "a process attached to another"},
	{"guest.v1.process_core_dumped", OTHER(OCSF_PROCESS_ACTIVITY, "Dump Core"), OCSF_LOW, NULL,
	 "a process dumped its core"},
	{"guest.v1.process_exited", PROCESS(2, "Terminate"), OCSF_INFORMATIONAL, NULL,
	 "a process ended"},
	{"guest.v1.net_connect_attempted", NETWORK(1, "Open"), OCSF_INFORMATIONAL, NULL,
	 "a process called connect"},
	{"guest.v1.net_datagram_sent", NETWORK(6, "Traffic"), OCSF_INFORMATIONAL, NULL,
	 "a process sent a datagram"},
	{"guest.v1.net_bound", NETWORK(7, "Listen"), OCSF_INFORMATIONAL, NULL,
	 "a process bound an address"},
	{"guest.v1.net_socket_created", OTHER(OCSF_NETWORK_ACTIVITY, "Create Socket"), OCSF_LOW,
	 NULL, "a process made a socket that is neither TCP nor UDP"},
	{"guest.v1.capability_denied", OCSF_KERNEL_ACTIVITY, 4, "Invoke", OCSF_MEDIUM, NULL,
	 "a system call was refused because a privilege was missing"},
	{"guest.v1.fs_changed", FILE_UPDATE, OCSF_INFORMATIONAL, NULL, "a watched path changed"},
	{"guest.v1.fs_inotify_fired", FILE_UPDATE, OCSF_INFORMATIONAL, NULL,
	 "a watched path changed"},
	{"guest.v1.telemetry_hello", LOGGING(6, "Start"), OCSF_INFORMATIONAL, NULL,
	 "the guest's agent began to send"},
	{"guest.v1.telemetry_bye", LOGGING(7, "Stop"), OCSF_INFORMATIONAL, NULL,
	 "the guest's agent ended in order"},
	{"guest.v1.telemetry_dropped", FINDING(1, "Create"), OCSF_MEDIUM, NULL,
	 "the guest declared that observations were lost"},

	{"guest.v1.agent_connected", LOGGING(9, "Enable"), OCSF_INFORMATIONAL, NULL,
	 "an agent connected"},
	{"guest.v1.agent_disconnected", LOGGING(10, "Disable"), OCSF_LOW, NULL,
	 "an agent's connection ended"},
	{"guest.v1.agent_silenced", FINDING(1, "Create"), OCSF_HIGH, "silence",
	 "an agent sends nothing any more"},
	{"guest.v1.agent_resumed", FINDING(3, "Close"), OCSF_INFORMATIONAL, "silence",
	 "an agent sends again"},
	{"guest.v1.telemetry_gap", FINDING(1, "Create"), OCSF_MEDIUM, NULL,
	 "frames of a guest are missing"},
	{"guest.v1.channel_violation", FINDING(1, "Create"), OCSF_HIGH, NULL,
	 "a guest broke the protocol"},
	{"guest.v1.channel_contested", FINDING(1, "Create"), OCSF_HIGH, NULL,
	 "a second peer wanted a cell's channel"},
	{"guest.v1.version_rejected", FINDING(1, "Create"), OCSF_MEDIUM, NULL,
	 "frames of an unknown version were rejected"},
	{"guest.v1.unknown_source", FINDING(1, "Create"), OCSF_MEDIUM, NULL,
	 "frames of an unknown source were rejected"},
	{"guest.v1.rate_limited", FINDING(1, "Create"), OCSF_LOW, NULL, "a guest was slowed down"},
	{"guest.v1.declaration_unwitnessed", FINDING(1, "Create"), OCSF_HIGH, NULL,
	 "the host saw nothing of what a guest declared"},

	{"stream.v1.opened", LOGGING(6, "Start"), OCSF_INFORMATIONAL, NULL, "a stream was opened"},
	{"stream.v1.checkpoint", OTHER(OCSF_EVENT_LOG_ACTIVITY, "Checkpoint"), OCSF_INFORMATIONAL,
	 NULL, "a stream's totals"},
	{"stream.v1.sealed", LOGGING(7, "Stop"), OCSF_INFORMATIONAL, NULL, "a stream was sealed"},

	{"log.v1.opened", LOGGING(6, "Start"), OCSF_INFORMATIONAL, NULL, "a log was opened"},
	{"log.v1.resumed", LOGGING(8, "Restart"), OCSF_LOW, NULL, "a log goes on"},
	{"log.v1.closed", LOGGING(7, "Stop"), OCSF_INFORMATIONAL, NULL, "a log was closed"},
	{"log.v1.pruned", LOGGING(2, "Delete"), OCSF_LOW, NULL, "old segments were deleted"},
	{"log.v1.segment_lost", FINDING(1, "Create"), OCSF_CRITICAL, NULL,
	 "somebody took a segment of the log away"},
	{"log.v1.cell_unserved", FINDING(1, "Create"), OCSF_HIGH, NULL, "a cell cannot be served"},
};

/* Readings of the host, what else the log says of itself, and types of later versions. */
static const struct ocsf_mapping base_event = {"", OTHER(OCSF_BASE_EVENT, "Report"),
					       OCSF_INFORMATIONAL, NULL, "a reading of the host"};
static const struct ocsf_mapping other_log_event = {
	"log.v1.", OTHER(OCSF_EVENT_LOG_ACTIVITY, "Change"), OCSF_INFORMATIONAL, NULL,
	"the log changed its keys or its cells"};

const struct ocsf_mapping *ocsf_mapping_of(struct wire_text type)
{
	const size_t prefix = strlen(other_log_event.type);

	for (size_t i = 0; i < ARRAY_SIZE(mappings); i++)
		if (strlen(mappings[i].type) == type.len &&
		    memcmp(mappings[i].type, type.data, type.len) == 0)
			return &mappings[i];
	if (type.len > prefix && memcmp(type.data, other_log_event.type, prefix) == 0)
		return &other_log_event;
	return &base_event;
}

const char *ocsf_class_name(enum ocsf_class class)
{
	switch (class) {
	case OCSF_FILE_ACTIVITY: return "File System Activity";
	case OCSF_KERNEL_ACTIVITY: return "Kernel Activity";
	case OCSF_PROCESS_ACTIVITY: return "Process Activity";
	case OCSF_EVENT_LOG_ACTIVITY: return "Event Log Activity";
	case OCSF_DETECTION_FINDING: return "Detection Finding";
	case OCSF_NETWORK_ACTIVITY: return "Network Activity";
	case OCSF_BASE_EVENT: break;
	}
	return "Base Event";
}

const char *ocsf_severity_name(enum ocsf_severity severity)
{
	static const char *const names[] = {
		[OCSF_INFORMATIONAL] = "Informational",
		[OCSF_LOW] = "Low",
		[OCSF_MEDIUM] = "Medium",
		[OCSF_HIGH] = "High",
		[OCSF_CRITICAL] = "Critical",
	};

	return names[severity];
}
