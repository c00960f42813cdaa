#!/bin/sh
# SPDX-License-Identifier: MIT
# An init for a microVM image in shell: guest-init.sh COMMAND [ARG...]
#
#   1. start the agent and wait until it is ready: a workload that runs before it could speak in
#      its place
#   2. run the workload under the profile
#   3. stop the agent, so that it says goodbye
#
# Needs sh, mount, kill, sleep. Exit status: the workload's; 124 if the agent did not start (the
# workload is not run then). As PID 1 it ends by a reboot, which ends a Firecracker VM (reboot=k).
if [ $$ -eq 1 ]; then
	mount -t devtmpfs devtmpfs /dev 2> /dev/null
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t tmpfs tmpfs /run
fi

# It returns when the agent is connected, has its sources and has said hello.
if cellos-telemetry; then
	cellos-workload-exec --init --drop-net-admin -- "$@"
	code=$?
	agent=$(cat /run/cellos-telemetry/agent.pid)
	kill -TERM "$agent"
	tries=0
	while kill -0 "$agent" 2> /dev/null && [ $tries -lt 400 ]; do
		sleep 0.05
		tries=$((tries + 1))
	done
else
	code=124
fi

if [ $$ -eq 1 ]; then
	reboot -f 2> /dev/null || echo b > /proc/sysrq-trigger
fi
exit $code
