/* SPDX-License-Identifier: MIT */
/* Limits of the fc_metrics probe. */
#pragma once

#include "host-receiver/probes/fc_document.h"
#include "host-receiver/probes/probe.h"

#define FC_READ_MAX (4u * 1024u * 1024u) /* bytes that one reading takes in */
