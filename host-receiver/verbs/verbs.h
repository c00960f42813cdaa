/* SPDX-License-Identifier: MIT */
/*
 * The verbs of cellos-host-telemetry. Each parses its command line, calls the rooms, and prints.
 * argv[0] is the verb. Each returns the exit status of the process (of sysexits.h, where one fits)
 * after it has written the reason of a failure to stderr.
 */
#pragma once

int cmd_receive(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_checkpoint(int argc, char **argv);
int cmd_prove(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_cell(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_tail(int argc, char **argv);
int cmd_check_config(int argc, char **argv);
int cmd_dump_config(int argc, char **argv);
int cmd_forward(int argc, char **argv);
int cmd_keygen(int argc, char **argv);
