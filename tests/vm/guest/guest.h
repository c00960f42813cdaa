/* SPDX-License-Identifier: MIT */
/*
 * The one static program of the test VM: /init (PID 1) with the relay, and for scripts `vm`, which
 * talks to the harness, and `vsock-cat`. Which one is the name it was started by.
 */
#pragma once

/* Where the relay takes connections to the harness. */
#define VM_CONTROL_PATH "/run/vm.sock"

int init_main(void);

/* Writes a byte to ready_fd once the host has said who listens there. Ends on SIGTERM. */
int relay_main(int ready_fd);

int ctl_main(int argc, char **argv);
int idle_main(int argc, char **argv);
int vsock_cat_main(int argc, char **argv);

/* A connection to the harness, or a negative errno. */
int ctl_connect(void);

/* All of data; 0 or a negative errno. */
int write_all(int fd, const void *data, size_t len);
