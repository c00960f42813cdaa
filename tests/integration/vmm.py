# SPDX-License-Identifier: MIT
"""A writer of metrics that behaves as the VMM does (Firecracker 1.16: src/logger/src/metrics.rs,
src/utils/mod.rs): a document a line with all its top-level keys, counters since the line before,
opened O_RDWR | O_NONBLOCK without O_APPEND and O_TRUNC, written in chunks of 1 KiB of which a full
FIFO loses the rest; and its API, as far as FlushMetrics goes."""

import json
import os
import select
import socket
import threading
import time

STORED = {("api_server", "process_startup_time_us"), ("seccomp", "num_faults"),
          ("vmm", "panic_count"), ("signals", "sigsegv"), ("latencies_us", "full_create_snapshot")}

FIELDS = {
    "api_server": ["process_startup_time_us", "process_startup_time_cpu_us"],
    "balloon": ["activate_fails", "inflate_count", "statistics_updates_count"],
    "block_rootfs": ["activate_fails", "read_bytes", "write_bytes", "read_count", "write_count"],
    "block": ["activate_fails", "read_bytes", "write_bytes", "read_count", "write_count"],
    "deprecated_api": ["deprecated_http_api_calls", "deprecated_cmd_line_api_calls"],
    "get_api_requests": ["instance_info_count", "machine_cfg_count", "mmds_count"],
    "i8042": ["error_count", "missed_read_count", "reset_count"],
    "uart": ["error_count", "flush_count", "read_count", "write_count"],
    "latencies_us": ["full_create_snapshot", "diff_create_snapshot", "load_snapshot"],
    "logger": ["missed_metrics_count", "metrics_fails", "missed_log_count"],
    "mmds": ["rx_accepted", "rx_accepted_err", "connections_created"],
    "net_eth0": ["rx_bytes_count", "tx_bytes_count", "rx_packets_count", "tx_packets_count"],
    "net": ["rx_bytes_count", "tx_bytes_count", "rx_packets_count", "tx_packets_count"],
    "patch_api_requests": ["drive_count", "network_count"],
    "put_api_requests": ["actions_count", "actions_fails", "boot_source_count", "drive_count"],
    "seccomp": ["num_faults"],
    "vcpu": ["exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write", "failures"],
    "vmm": ["device_events", "panic_count"],
    "signals": ["sigbus", "sigsegv", "sigxfsz", "sigpipe"],
    "vsock": ["activate_fails", "rx_bytes_count", "tx_bytes_count", "rx_packets_count",
              "tx_packets_count", "conns_added", "conns_killed", "conns_removed"],
    "entropy": ["activate_fails", "entropy_bytes"],
    "pmem": ["activate_fails"],
    "interrupts": ["triggers", "config_updates"],
    "memory_hotplug": ["activate_fails"],
}
# Latencies have an object: the extremes are kept, the sum is counted.
AGGREGATES = [("block_rootfs", "read_agg"), ("block", "read_agg"), ("vcpu", "exit_io_in_agg")]


class Vmm:
    def __init__(self, path, padding=0):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
        self.position = 0
        self.fifo = not os.path.isfile(path)
        self.counts = {}
        self.padding = padding
        self.flushed = 0
        self.cut = 0
        self.cut_inside = False

    def count(self, device, name, n=1):
        self.counts[device, name] = self.counts.get((device, name), 0) + n

    def document(self):
        doc = {"utc_timestamp_ms": int(time.time() * 1000)}
        for device, names in FIELDS.items():
            doc[device] = {name: self.counts.get((device, name), 0) for name in names}
        for device, name in AGGREGATES:
            doc[device][name] = {"min_us": 3, "max_us": 9,
                                 "sum_us": self.counts.get((device, name), 0)}
        for i in range(self.padding):
            doc[f"vhost_user_block_disk{i}"] = {"activate_fails": 0, "init_time_us": i}
        self.counts = {key: n for key, n in self.counts.items() if key in STORED}
        return doc

    def flush(self):
        """The delta is gone even if its bytes are lost."""
        self.write(json.dumps(self.document(), separators=(",", ":")).encode() + b"\n")
        self.flushed += 1

    def write_whole(self, data):
        """As nobody's VMM does: all of it, as fast as it is read."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        while data:
            poll.poll()
            try:
                data = data[os.write(self.fd, data[:1024]):]
            except BlockingIOError:
                pass

    def write(self, data):
        for i in range(0, len(data), 1024):
            chunk = data[i:i + 1024]
            try:
                n = os.write(self.fd, chunk)
            except BlockingIOError:
                n = 0
            if n < len(chunk):
                self.cut += 1
                self.cut_inside |= i + n > 0
                self.count("logger", "missed_metrics_count")
                return

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Api:
    """PUT /actions FlushMetrics: answers as told, or never."""

    def __init__(self, path, vmm, answer=b"HTTP/1.1 204 No Content\r\nServer: Firecracker API\r\n"
                 b"Connection: keep-alive\r\n\r\n"):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(16)
        self.vmm = vmm
        self.answer = answer
        self.requests = []
        self.kept = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                client = self.server.accept()[0]
            except OSError:
                return
            data = client.recv(4096)
            self.requests.append(data)
            answer = self.answer  # the test may change it at any time
            if answer is None:
                self.kept.append(client)
                continue
            if answer.startswith(b"HTTP/1.1 204"):
                self.vmm.flush()
            client.sendall(answer)
            client.close()

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()
