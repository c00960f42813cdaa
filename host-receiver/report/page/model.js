/* The packed text as records, processes, silences and curves. */

const PREFIX = "dev.cellos.events.cell.observability.";
const ENVELOPE = "dev.cellos.events.signed_envelope.v1";
const SLICE = 5000; /* records between two breaths of the browser */

const KINDS = {
	process: "Processes", network: "Network", denied: "Refused", files: "Files",
	loss: "Silences and losses", agent: "Agent", host: "Host probes", log: "Streams and log",
	unreadable: "No event",
};

/* Of guests' types: guest.v1.<beginning>; the first that fits. */
const KIND_OF = [
	["process_", "process"], ["net_", "network"], ["capability_", "denied"], ["fs_", "files"],
	["telemetry_dropped", "loss"], ["telemetry_gap", "loss"], ["telemetry_", "agent"],
	["agent_connected", "agent"], ["agent_disconnected", "agent"], ["", "loss"],
];
/* Of the log's own stream, what says that something is lost or not served. */
const LOG_LOSSES = new Set(["log.v1.segment_lost", "log.v1.cell_unserved"]);

function kindOf(name) {
	if (name.startsWith("guest.v1."))
		return KIND_OF.find(([start]) => name.startsWith(start, 9))[1];
	if (name.startsWith("host.v1."))
		return "host";
	return LOG_LOSSES.has(name) ? "loss" : "log";
}

/* One name for a type, here as in tail: what the guest declared has the name of its source. */
function shortName(name, data) {
	return data.probeSource && name.startsWith("guest.v1.") ? data.probeSource
		: name.replace(".v1.", ".");
}

/* What every event has, or what has a column of its own. */
const COMMON = new Set(["authority", "cellId", "connection", "contentVersion", "detail", "guestComm",
	"guestMonotonicNs", "guestPid", "hostMonotonicNs", "hostReceivedAt", "probeSource", "runId",
	"seq", "sequence", "specSignatureHash", "streamId", "inputs", "output", "sessions"]);

function pairs(values, but) {
	return Object.entries(values).filter(([key]) => !but || !but.has(key)).map(([key, value]) =>
		`${key}=${typeof value === "object" ? JSON.stringify(value) : value}`).join("  ");
}

function target(d) {
	const host = d.family === "inet6" ? `[${d.address}]` : d.address;
	return `${host}:${d.port}`;
}

/* What a record says in a line, where pairs would be hard to read. */
const SENTENCES = {
	"process.spawned": d => `by ${d.ppid}`,
	"process.executed": d => (d.args || d.exe || `exe not known: ${d.why}`) +
		(d.uid === undefined ? "" : `  (uid ${d.uid}${d.euid !== d.uid ? `, euid ${d.euid}` : ""})`),
	"process.exited": d => d.signal ? `signal ${d.signal}${d.core ? ", core dumped" : ""}`
		: `exit ${d.exitCode}`,
	"process.identity_changed": d => `${d.kind} ${d.real}, effective ${d.effective}  ${d.exe || ""}`,
	"process.traced": d => `by ${d.tracerPid} ${d.tracerComm || ""}`,
	"net.connect_attempted": d => target(d) + (d.result ? `  ${d.result}` : ""),
	"net.datagram_sent": d => `${target(d)}  ${d.protocol || ""}`,
	"net.bound": d => `${target(d)}  ${d.protocol || ""}`,
	"capability.denied": d => `${d.syscall}  ${d.error}  ${d.capability || ""}  ${d.exe || ""}`,
	"fs.changed": d => `${d.path}  ${d.name || ""}  ${d.event}`,
	"fs.inotify_fired": d => `${d.path}  ${d.name || ""}  ${d.event}`,
	"guest.agent_silenced": (d, data) => data.reason === "never_connected" ? "no agent ever connected"
		: `no frame for ${duration(data.windowMs)} (${data.reason})`,
	"guest.agent_resumed": (d, data) => `after ${duration(data.silentMs)}`,
	"guest.telemetry_gap": (d, data) => `frames ${data.firstMissing} to ${data.lastMissing} are missing` +
		` (${data.reason})`,
	"host.tap_link": (d, data) => `rx ${data.output.rxPackets}  tx ${data.output.txPackets} packets` +
		`  ${data.output.operstate}`,
	"host.cgroup": (d, data) => pairs({...data.output.cpu_stat && {
		cpu_ms: Math.round(data.output.cpu_stat.usage_usec / 1000)}, ...data.output.memory_events}),
	"host.fc_metrics": (d, data) => `${data.output.documents} documents`,
	"host.nftables": (d, data) => `${(data.output.rows || []).length} rules, ` +
		`${sum((data.output.rows || []).map(row => row.packets))} packets`,
};

function sum(numbers) {
	return numbers.reduce((a, b) => a + (b || 0), 0);
}

function sentence(record, data) {
	const detail = data.detail || {};
	const repeated = detail.repeat ? `  and ${count(detail.repeat, "time", "times")} more` : "";
	try {
		return SENTENCES[record.name](detail, data) + repeated;
	} catch {
		return [pairs(detail), pairs(data, COMMON)].filter(Boolean).join("  ");
	}
}

/* The event of a record as it was signed; {} of a line that is none. */
function eventOf(record) {
	try {
		const outer = JSON.parse(record.raw);
		const event = outer.type === ENVELOPE ? outer.data.event : outer;
		return event && typeof event.data === "object" && event.data ? event : {data: {}};
	} catch {
		return {data: {}};
	}
}

/* ---- from the packed text ---- */

async function unpack(element) {
	if (typeof DecompressionStream === "undefined")
		throw new Error("this browser is too old: it has no DecompressionStream");
	const packed = atob(element.textContent);
	element.textContent = "";
	const bytes = new Uint8Array(packed.length);
	for (let i = 0; i < packed.length; i++)
		bytes[i] = packed.charCodeAt(i);
	const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
	return new Response(stream).text();
}

function readRecord(model, place, index, line, raw) {
	const record = {number: model.records.length, file: place.file, origin: place.origin, index, line,
		raw, time: NaN, kind: "unreadable", name: "no event", cell: "", node: null};
	const event = eventOf(record), data = event.data;
	const type = typeof event.type === "string" ? event.type : "";
	if (type) {
		const name = type.startsWith(PREFIX) ? type.slice(PREFIX.length) : type;
		record.time = Date.parse(event.time);
		record.kind = kindOf(name);
		record.name = String(shortName(name, data));
		record.cell = String(data.cellId ?? "");
		record.declared = data.authority === "declared";
		if (record.declared && data.guestPid)
			record.actor = `${data.guestPid} ${data.guestComm}`;
		record.pid = data.guestPid;
	}
	record.text = sentence(record, data);
	model.records.push(record);
	model.follow(record, data);
}

/* Calls progress(part of 1) now and then. */
async function readModel(text, progress) {
	let at = text.indexOf("\n");
	const model = newModel(JSON.parse(text.slice(0, at)));
	const place = {file: "", origin: ""};
	for (let n = 1; at + 1 < text.length; n++) {
		const end = text.indexOf("\n", at + 1);
		const line = text.slice(at + 1, end);
		const tab = line.indexOf("\t"), next = line.indexOf("\t", tab + 1), mark = line.slice(0, tab);
		if (mark === "F")
			place.file = JSON.parse(line.slice(2));
		else if (mark === "S")
			place.origin = JSON.parse(line.slice(2));
		else
			readRecord(model, place, mark === "-" ? null : mark, line.slice(tab + 1, next),
				line.slice(next + 1));
		at = end;
		if (n % SLICE === 0) {
			progress(at / text.length);
			await new Promise(resolve => setTimeout(resolve));
		}
	}
	model.finish();
	return model;
}

/* ---- what records mean together ---- */

function newModel(head) {
	const model = {head, records: [], cells: new Map(), nodes: [], silences: [], first: Infinity,
		last: -Infinity, kinds: {}};
	model.follow = (record, data) => follow(model, record, data);
	model.finish = () => finish(model);
	return model;
}

function cellOf(model, id) {
	let cell = model.cells.get(id);
	if (!cell) {
		cell = {id, pids: new Map(), ended: new Map(), boot: null, silence: null, curves: new Map(),
			before: new Map(), records: 0};
		model.cells.set(id, cell);
	}
	return cell;
}

function follow(model, record, data) {
	model.kinds[record.kind] = (model.kinds[record.kind] || 0) + 1;
	if (record.time < model.first)
		model.first = record.time;
	if (record.time > model.last)
		model.last = record.time;
	if (!record.cell)
		return;
	const cell = cellOf(model, record.cell);
	cell.records++;
	if (record.declared)
		followProcess(model, cell, record, data);
	else if (record.kind === "host")
		followCurves(cell, record, data.output || {});
	if (record.name === "guest.agent_silenced" && !cell.silence)
		model.silences.push(cell.silence = {cell: record.cell, to: null,
			from: record.time - (Number(data.lastFrameAgeMs) || 0)});
	else if (record.name === "guest.agent_resumed" || record.name === "stream.sealed") {
		if (cell.silence)
			cell.silence.to = record.time;
		cell.silence = null;
	}
}

function finish(model) {
	if (!(model.first <= model.last))
		model.first = model.last = 0;
	if (model.last - model.first < 1000)
		model.last = model.first + 1000;
	for (const silence of model.silences)
		silence.to ??= model.last;
}

/* ---- processes ---- */

function newNode(model, cell, pid, parent) {
	const node = {number: model.nodes.length, pid, cell: cell.id, parent, children: [], comm: "",
		exe: "", args: "", uid: null, from: null, to: null, end: "", records: 0, counts: {}};
	model.nodes.push(node);
	cell.pids.set(pid, node);
	if (parent)
		parent.children.push(node);
	return node;
}

function nodeOf(model, cell, pid, ppid) {
	const known = cell.pids.get(pid);
	if (known)
		return known;
	return newNode(model, cell, pid, ppid > 0 && ppid !== pid ? nodeOf(model, cell, ppid, 0) : null);
}

/* The agent reads its sources one after the other: what a process did may follow its end. */
function processOf(model, cell, record, data) {
	const ended = cell.ended.get(data.guestPid);
	if (ended && record.name !== "process.spawned" && data.guestMonotonicNs <= ended.endNs)
		return ended;
	return nodeOf(model, cell, data.guestPid, data.detail?.ppid || 0);
}

function followProcess(model, cell, record, data) {
	const d = data.detail || {}, pid = data.guestPid;
	if (record.name === "telemetry.hello" && d.bootId !== cell.boot) {
		cell.boot = d.bootId;
		cell.pids.clear(); /* another kernel: its numbers are other processes */
		cell.ended.clear();
	}
	if (record.kind === "agent" || record.kind === "loss" || !(pid > 0))
		return;
	if (record.name === "process.spawned")
		cell.pids.delete(pid);
	const node = processOf(model, cell, record, data);
	record.node = node;
	node.records++;
	node.counts[record.kind] = (node.counts[record.kind] || 0) + 1;
	if (data.guestComm)
		node.comm = data.guestComm;
	switch (record.name) {
	case "process.spawned":
		node.from = record.time;
		break;
	case "process.executed":
		node.exe = d.exe || node.exe;
		node.args = d.args || d.exe || "";
		node.uid = d.euid ?? d.uid ?? node.uid;
		break;
	case "process.identity_changed":
		if (d.kind === "uid")
			node.uid = d.effective;
		break;
	case "process.exited":
		node.to = record.time;
		node.end = record.text;
		node.endNs = data.guestMonotonicNs;
		cell.pids.delete(pid);
		cell.ended.set(pid, node);
		break;
	}
	if (node.uid === null && node.parent)
		node.uid = node.parent.uid;
}

/* ---- the host's curves: name -> {unit, points: [time, value]} ---- */

/* How counters become curves: the lane, the curve, the value of a reading. */
const COUNTERS = {
	"host.cgroup": [
		["CPU", "cores", o => o.cpu_stat && o.cpu_stat.usage_usec / 1e6],
		["Memory events", "all", o => o.memory_events && sum(Object.values(o.memory_events))],
	],
	"host.tap_link": [
		["Packets a second", "from the guest", o => o.rxPackets],
		["Packets a second", "to the guest", o => o.txPackets],
	],
	"host.nftables": [
		["Firewall packets a second", "all rules", o => o.rows && sum(o.rows.map(r => r.packets))],
	],
	"host.fc_metrics": [
		["VMM vsock bytes a second", "from the guest", o => o.totals?.vsock?.tx_bytes_count],
		["VMM vsock bytes a second", "to the guest", o => o.totals?.vsock?.rx_bytes_count],
		["VMM net bytes a second", "from the guest", o => o.totals?.net?.tx_bytes_count],
		["VMM net bytes a second", "to the guest", o => o.totals?.net?.rx_bytes_count],
		["VMM disk bytes a second", "read", o => o.totals?.block?.read_bytes],
		["VMM disk bytes a second", "written", o => o.totals?.block?.write_bytes],
		["VMM exits a second", "all", o => o.totals?.vcpu &&
			sum(Object.values(o.totals.vcpu).filter(Number.isFinite))],
	],
};

/* A counter's growth since the reading before, a second; memory events are counted as they are. */
function followCurves(cell, record, output) {
	for (const [lane, curve, value] of COUNTERS[record.name] || []) {
		const now = value(output), key = `${lane}\n${curve}`, before = cell.before.get(key);
		if (!Number.isFinite(now))
			continue;
		cell.before.set(key, {time: record.time, value: now});
		if (!before || record.time <= before.time)
			continue;
		if (!cell.curves.has(lane))
			cell.curves.set(lane, new Map());
		const curves = cell.curves.get(lane);
		if (!curves.has(curve))
			curves.set(curve, []);
		const grown = Math.max(now - before.value, 0);
		curves.get(curve).push([record.time, lane === "Memory events" ? grown
			: grown * 1000 / (record.time - before.time), before.time]);
	}
}
