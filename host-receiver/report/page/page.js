/* The page: what was judged, what to look at first, and the records, each with its proof. */

const NO_PRINT_AFTER = 2000; /* rows on paper */
const SEARCH_AFTER_MS = 120;
const NOT_NAMED = "(its start is not in these records)";

const byId = id => document.getElementById(id);

const page = {model: null, chart: null, list: null, tree: null, record: null, searching: 0,
	filter: null,
	treeIsOld: true};

function noFilter() {
	return {kinds: null, cell: "", search: "", from: null, to: null, nodes: null, nodeText: "",
		names: null};
}

/* ---- the verdict ---- */

function verdictClass(verify) {
	if (verify.exit === 0)
		return verify.unsigned > 0 ? "warn" : "good";
	return verify.exit === 1 || verify.exit === 3 ? "bad" : "warn";
}

function showVerdict({head, records}) {
	const {verify} = head, node = byId("verdict");
	const parts = [`${count(verify.records, "record was", "records were")} judged: ` +
		`${verify.verified.toLocaleString("en")} verified`];
	for (const [key, name] of [["bad", "bad"], ["forked", "forked"], ["unverifiable", "unverifiable"],
		["unprovable", "unprovable"], ["unsigned", "unsigned"], ["missing", "missing"],
		["rolledBack", "rolled back"], ["unsealed", "unsealed"], ["inFlight", "in flight"]])
		if (verify[key])
			parts.push(`${verify[key].toLocaleString("en")} ${name}`);
	const ends = [[verify.complete, "complete"], [verify.interrupted, "interrupted"]].filter(x => x[0])
		.map(([n, name]) => `${n} ${name}`).join(", ");
	node.classList.add(verdictClass(verify));
	byId("scope").replaceChildren(`${parts.join(", ")}. ${count(verify.streams, "stream", "streams")}` +
		`${ends && `: ${ends}`}. ` + (head.keys ? "" : "No keyring was given: no signature was checked. ") +
		(records.length < verify.records ? `${count(records.length, "record is", "records are")} shown` +
		` (${chosenWords(head)}).` : ""));
	byId("logs").append(...verify.logs.map(log => el("dl",
		...term("Log", log.origin),
		...term("Entries", log.present ? `${log.entries.toLocaleString("en")}, index ${log.firstIndex} to ` +
			`size ${log.size}, ${count(log.checkpoints, "checkpoint", "checkpoints")}` +
			(log.kids.length ? `, signed by ${log.kids.join(", ")}` : "") : "not in the input"),
		...term("Time", log.firstTime && `${log.firstTime} to ${log.lastTime}`))));
	byId("notes").append(...verify.notes.map(note => el("li", note)));
	showFindings(verify.places);
}

function chosenWords(head) {
	return [head.cell && `of cell ${plain(head.cell)}`, head.since && `since ${head.since}`,
		head.until && `until ${head.until}`].filter(Boolean).join(", ");
}

function showFindings(places) {
	const names = {rolledBack: "rolled back"};
	for (const [kind, list] of Object.entries(places))
		for (const {file, line, why} of list) {
			const record = page.model.records.find(r => r.file === file && r.line === String(line));
			byId("findings").append(el("li", el("b", names[kind] || kind),
				record ? el("button", {onclick: () => showRecord(record)}, plain(`${file}:${line}`))
					: el("code", plain(line ? `${file}:${line}` : file)), " ", shown(why)));
		}
}

/* ---- what to look at first ---- */

function showFirst(model) {
	const names = {};
	for (const record of model.records)
		names[record.name] = (names[record.name] || 0) + 1;
	const tiles = [
		["loss", "silence", "silences", ["guest.agent_silenced"]], ["loss", "gap", "gaps", ["guest.telemetry_gap"]],
		["loss", "loss that the guest declared", "losses that the guest declared", ["telemetry.dropped"]],
		["loss", "contest of the channel", "contests of the channel",
			["guest.channel_contested", "guest.channel_violation"]],
		["loss", "unwitnessed declaration", "unwitnessed declarations", ["guest.declaration_unwitnessed"]],
		["denied", "refused privilege", "refused privileges", ["capability.denied"]],
		["process", "program started", "programs started", ["process.executed"]],
		["process", "change of identity", "changes of identity", ["process.identity_changed"]],
		["process", "traced process", "traced processes", ["process.traced"]],
		["network", "connect or datagram", "connects and datagrams",
			["net.connect_attempted", "net.datagram_sent"]],
		["network", "bound address", "bound addresses", ["net.bound"]],
		["files", "change of a file", "changes of files", ["fs.changed", "fs.inotify_fired"]],
		["unreadable", "line that is no event", "lines that are no event", ["no event"]],
	];
	for (const [kind, one, many, of] of tiles) {
		const n = of.reduce((n, name) => n + (names[name] || 0), 0);
		if (n)
			byId("first").append(el(`button.tile.k-${kind}`, {onclick: () => {
				page.filter = {...noFilter(), names: new Set(of)};
				openTab("list");
				applyFilter();
			}}, el("b", n.toLocaleString("en")), el("span", n === 1 ? one : many)));
	}
}

/* ---- the filter ---- */

/* All records as one text in lower case, made at the first search: the browser's own search in one
   long text is much faster than a hundred thousand in short ones. */
function haystack(model) {
	if (!model.haystack) {
		const ends = new Float64Array(model.records.length);
		let end = 0;
		const text = model.records.map((record, i) => {
			const line = `${record.raw}\t${record.text}\n`.toLowerCase();
			ends[i] = end += line.length;
			return line;
		}).join("");
		model.haystack = {text, ends};
	}
	return model.haystack;
}

/* For each record: whether these words are in it. */
function search(model, words) {
	const {text, ends} = haystack(model), found = new Uint8Array(model.records.length);
	const wanted = words.toLowerCase();
	for (let at = text.indexOf(wanted), n = 0; at >= 0; at = text.indexOf(wanted, ends[n])) {
		while (ends[n] <= at)
			n++;
		found[n] = 1;
	}
	return found;
}

function matcher(filter) {
	const found = filter.search && search(page.model, filter.search);
	const tests = [
		filter.kinds && (r => filter.kinds.has(r.kind)),
		filter.names && (r => filter.names.has(r.name)),
		filter.cell && (r => r.cell === filter.cell),
		filter.from !== null && (r => r.time >= filter.from && r.time <= filter.to),
		filter.nodes && (r => filter.nodes.has(r.node)),
		found && (r => found[r.number]),
	].filter(Boolean);
	return record => tests.every(test => test(record));
}

function applyFilter() {
	const {model, filter, list} = page, fits = matcher(filter);
	const records = model.records.filter(fits);
	setItems(list, records);
	if (byId("tree").hidden)
		page.treeIsOld = true;
	else
		fillTree();
	choose(list, page.record && fits(page.record) ? page.record : null);
	const some = records.length < model.records.length;
	byId("count").replaceChildren(some ? `${records.length.toLocaleString("en")} of ` : "",
		count(model.records.length, "record", "records"),
		filter.nodeText ? ` (${plain(filter.nodeText)} and what it started)` : "");
	byId("reset").hidden = !some;
	byId("search").value = filter.search;
	byId("cell").value = filter.cell;
	for (const button of byId("kinds").children)
		button.setAttribute("aria-pressed", !filter.kinds || filter.kinds.has(button.dataset.kind));
	page.chart.state = {records: filter.from === null && filter.to === null ? records
		: model.records.filter(matcher({...filter, from: null, to: null})), cell: filter.cell,
		from: filter.from, to: filter.to, curves: byId("curves").value};
	draw(page.chart);
}

function setFilter(changes) {
	Object.assign(page.filter, changes);
	applyFilter();
}

function toggleKind(kind) {
	const all = Object.keys(page.model.kinds);
	const kinds = new Set(page.filter.kinds || all);
	if (!page.filter.kinds)
		kinds.clear(); /* the first click asks for this kind alone */
	kinds.has(kind) ? kinds.delete(kind) : kinds.add(kind);
	setFilter({kinds: kinds.size === 0 || kinds.size === all.length ? null : kinds});
}

/* ---- rows ---- */

function recordRow(record) {
	const day = page.days ? ".day" : "";
	return el(`div.k-${record.kind}`,
		el(`span.time${day}`, isNaN(record.time) ? "" : day ? moment(record.time) : clock(record.time)),
		page.model.cells.size > 1 ? el("span.cell", shown(record.cell)) : null,
		el("span.says", record.kind === "unreadable" ? "" : record.declared ? "guest" : "host"),
		el("span.what", shown(record.name)),
		el("span.actor", record.actor ? shown(record.actor) : ""),
		el("span.text", shown(record.text)));
}

/* Processes in the order of a tree; with a filter those that have records which match. */
function treeItems() {
	const {model, filter} = page, items = [];
	const plainFilter = {...filter, nodes: null};
	const wanted = new Set();
	const fits = matcher(plainFilter);
	for (const record of model.records)
		if (record.node && fits(record))
			for (let node = record.node; node && !wanted.has(node); node = node.parent)
				wanted.add(node);
	const stack = model.nodes.filter(node => !node.parent).reverse().map(node => [node, 0]);
	while (stack.length) {
		const [node, depth] = stack.pop();
		if (!wanted.has(node))
			continue;
		node.depth = depth;
		items.push(node);
		for (let i = node.children.length - 1; i >= 0; i--)
			stack.push([node.children[i], depth + 1]);
	}
	return items;
}

function fillTree() {
	page.treeIsOld = false;
	setItems(page.tree, treeItems());
}

function processRow(node) {
	const program = el(node.to === null ? "span.program" : "span.program.gone",
		shown(node.args || node.comm || NOT_NAMED));
	program.style.paddingLeft = `${Math.min(node.depth, 24) * 16}px`;
	return el("div.k-process",
		el("span.pid", String(node.pid)),
		page.model.cells.size > 1 ? el("span.cell", shown(node.cell)) : null,
		el(node.uid === 0 ? "span.uid.uid0" : "span.uid", node.uid === null ? "" : `uid ${node.uid}`),
		program,
		...["denied", "network", "files"].filter(kind => node.counts[kind]).map(kind =>
			el(`span.badge.k-${kind}`, {title: KINDS[kind]}, String(node.counts[kind]))),
		el("span.life", node.from === null ? "began before" : clock(node.from) +
			(node.to === null ? "" : ` for ${duration(node.to - node.from)}`)));
}

function descendants(node) {
	const found = new Set(), stack = [node];
	while (stack.length) {
		const one = stack.pop();
		found.add(one);
		stack.push(...one.children);
	}
	return found;
}

/* ---- the chosen one ---- */

function proofOf(record) {
	if (record.index === null)
		return [el("p.dim", "It stands outside of any log with checkpoints: there is no proof of it.")];
	const origin = record.origin ? `--origin ${quote(record.origin)} ` : "";
	return [
		el("pre.command#prove", `cellos-host-telemetry prove ${origin}${record.index} ${quote(record.file)}`),
		el("pre.command", `cellos-host-telemetry verify --keys keyring.json ` +
			`--proof entry-${record.index}.tlog-proof`)];
}

function showRecord(record) {
	page.record = record;
	openTab("list");
	if (!page.list.items.includes(record)) {
		page.filter = noFilter();
		applyFilter();
	}
	choose(page.list, record);
	history.replaceState(null, "", `#record-${record.number}`);
	const event = eventOf(record), data = event.data, {node} = record;
	byId("detail").replaceChildren(
		el(`h3.k-${record.kind}`, shown(record.name)),
		el("p.dim", record.kind === "unreadable" ? "This line is no event."
			: record.declared ? "The guest declared it: its word, as the host received it."
			: "The host observed it."),
		page.model.head.verify.exit === 0 ? null : el("p.doubt", "Not everything here verifies: trust " +
			"this record only with its proof."),
		el("dl",
			...term("Time", isNaN(record.time) ? null : `${moment(record.time)} UTC`),
			...term("Process", record.actor),
			...term("Says", record.text),
			...term("Cell", record.cell), ...term("Run", data.runId),
			...term("Stream", data.streamId && `${data.streamId}, record ${data.sequence}`),
			...term("Log", record.origin), ...term("Index", record.index),
			...term("Stands in", `${record.file}:${record.line}`)),
		el("div.more",
			node ? el("button", {onclick: () => showNode(node)}, "Its process") : null,
			node ? el("button", {onclick: () => setFilter({...noFilter(), nodes: descendants(node),
				nodeText: node.args || node.comm || String(node.pid)})},
			"All that it did") : null,
			isNaN(record.time) ? null : el("button", {onclick: () => setFilter({...noFilter(),
				cell: record.cell, from: record.time - 5000, to: record.time + 5000})},
			"5 s before and after")),
		el("h4", "Proof"), ...proofOf(record),
		el("h4", "Record"), el("pre.record", shownLines(indented(record.raw))));
	byId("detail").scrollTop = 0;
}

/* Text of several lines. */
function shownLines(text) {
	const node = el("span");
	for (const line of text.split("\n"))
		node.append(shown(line), "\n");
	return node;
}

function showNode(node) {
	openTab("tree");
	if (!page.tree.items.includes(node)) {
		page.filter = noFilter();
		applyFilter();
	}
	choose(page.tree, node);
	const ours = page.model.records.filter(record => record.node === node);
	byId("detail").replaceChildren(
		el("h3.k-process", shown(`${node.pid} ${node.comm}`)),
		el("dl", ...term("Arguments", node.args), ...term("Program", node.exe),
			...term("uid", node.uid === null ? null : String(node.uid)),
			...term("Cell", node.cell),
			...term("Parent", node.parent && `${node.parent.pid} ${node.parent.comm}`),
			...term("Began", node.from === null ? "before the records" : `${moment(node.from)} UTC`),
			...term("Ended", node.to === null ? null : `${moment(node.to)} UTC, ${node.end}`),
			...term("Records", String(node.records))),
		el("div.more", el("button", {onclick: () => {
			setFilter({...noFilter(), nodes: descendants(node), nodeText: node.args || node.comm});
			openTab("list");
		}}, "All that it and its children did")),
		el("h4", "What it did"),
		...ours.slice(0, 100).map(record => el(`button.row-link.k-${record.kind}`,
			{onclick: () => showRecord(record)}, el("b", record.name), " ", shown(record.text))),
		ours.length > 100 ? el("p.dim", `and ${ours.length - 100} more`) : null);
}

/* ---- streams ---- */

const LOSSES = {gapFrames: "in gaps", guestDropped: "dropped by the guest",
	guestKernelLost: "lost by its kernel", cutLines: "cut after crashes", silences: "silence|s",
	contests: "contest|s", unwitnessed: "unwitnessed"};

function lossesOf(stream) {
	return Object.entries(LOSSES).filter(([key]) => stream.declared[key])
		.map(([key, name]) => `${stream.declared[key].toLocaleString("en")} ` +
			(stream.declared[key] === 1 ? name.replace("|s", "") : name.replace("|", ""))).join(", ");
}

function showStreams({head}) {
	byId("streams").append(el("table", el("thead", el("tr", ...["Cell", "Run", "Host", "From", "To",
		"Records", "End", "Declared lost"].map(name => el("th", name)))),
	el("tbody", ...head.verify.streamList.map(stream => el("tr",
		el("td", stream.cellId ? el("button", {onclick: () => {
			page.filter = {...noFilter(), cell: stream.cellId};
			openTab("list");
			applyFilter();
		}}, shown(stream.cellId)) : "the log's own"),
		el("td", shown(stream.runId)), el("td", shown(stream.hostname)),
		el("td", stream.firstTime || ""), el("td", stream.lastTime || ""),
		el("td.number", stream.records.toLocaleString("en")),
		el("td", stream.end + (stream.signed ? "" : ", not signed")),
		el("td", lossesOf(stream) || "nothing"))))));
}

/* ---- paper ---- */

function paperTable(name, heads, rows) {
	return el(`table.${name}`, el("thead", el("tr", ...heads.map(([key, head]) =>
		el(`th.${key}`, head)))), el("tbody", ...rows));
}

function paperProcess(node) {
	return el("tr", el("td.number", String(node.pid)), el("td", node.uid === null ? "" : String(node.uid)),
		el("td.mono", "\u00a0\u00a0".repeat(node.depth), shown(node.args || node.comm || NOT_NAMED)),
		el("td", node.end));
}

function paperRecord(record) {
	const time = page.days ? moment(record.time) : clock(record.time);
	return el(`tr.k-${record.kind}`, el("td.number", record.index ?? ""),
		el("td.mono", isNaN(record.time) ? "" : time),
		page.model.cells.size > 1 ? el("td", shown(record.cell)) : null,
		el("td.what", shown(record.name)), el("td", shown(record.actor || "")),
		el("td.mono", shown(record.text)));
}

function fillPrint() {
	if (page.treeIsOld)
		fillTree();
	const items = page.list.items.slice(0, NO_PRINT_AFTER);
	const cell = page.model.cells.size > 1 ? [["cell", "Cell"]] : [];
	byId("print").replaceChildren(
		el("h2", "Streams"), byId("streams").firstChild.cloneNode(true),
		el("h2", "Processes"), paperTable("processes", [["pid", "Pid"], ["uid", "Uid"], ["args", "Program"],
			["end", "End"]], page.tree.items.slice(0, NO_PRINT_AFTER).map(paperProcess)),
		el("h2", "Records"), paperTable("records", [["index", "Index"], [page.days ? "day" : "time",
			"Time, UTC"], ...cell, ["what", "Type"], ["actor", "Process"], ["text", "What it says"]],
		items.map(paperRecord)),
		page.list.items.length > items.length ? el("p", `The first ${items.length} of ` +
			`${page.list.items.length} records. Filter the page to print others.`) : "");
}

/* ---- the start ---- */

function openTab(name) {
	for (const tab of ["list", "tree", "streams"]) {
		byId(tab).hidden = tab !== name;
		byId(`tab-${tab}`).setAttribute("aria-selected", tab === name);
	}
	if (name === "tree" && page.treeIsOld)
		fillTree();
}

function fillControls(model) {
	const ids = [...model.cells.keys()].sort();
	byId("cell").append(el("option", {value: ""}, "all"),
		...ids.map(id => el("option", {value: id}, plain(id))));
	byId("cell").parentNode.hidden = ids.length < 2;
	const curves = ids.filter(id => model.cells.get(id).curves.size);
	byId("curves").append(...curves.map(id => el("option", {value: id}, plain(id))));
	byId("curves").parentNode.hidden = curves.length < 2;
	byId("kinds").append(...Object.keys(KINDS).filter(kind => model.kinds[kind]).map(kind =>
		el(`button.kind.k-${kind}`, {"data-kind": kind, onclick: () => toggleKind(kind)},
			`${KINDS[kind]} `, el("span.dim", model.kinds[kind].toLocaleString("en")))));
	byId("about").append(`Made ${model.head.made} by cellos-host-telemetry ${model.head.version}. ` +
		"The verdict is that of verify, when the page was made. This page is not evidence: the files are.");
}

function listenToControls() {
	for (const tab of ["list", "tree", "streams"])
		byId(`tab-${tab}`).addEventListener("click", () => openTab(tab));
	byId("search").addEventListener("input", event => {
		clearTimeout(page.searching);
		page.searching = setTimeout(() => setFilter({search: event.target.value}), SEARCH_AFTER_MS);
	});
	/* The first search is no slower than the next. */
	byId("search").addEventListener("focus", () => setTimeout(() => haystack(page.model)));
	byId("cell").addEventListener("change", event => {
		const cell = event.target.value;
		if (page.model.cells.get(cell)?.curves.size)
			byId("curves").value = cell;
		setFilter({cell});
	});
	byId("curves").addEventListener("change", applyFilter);
	byId("reset").addEventListener("click", () => {
		page.filter = noFilter();
		applyFilter();
	});
	addEventListener("beforeprint", fillPrint);
	addEventListener("afterprint", () => byId("print").replaceChildren());
	addEventListener("hashchange", showHash);
}

function showHash() {
	const record = page.model.records[/^#record-(\d+)$/.exec(location.hash)?.[1]];
	if (record)
		showRecord(record);
}

async function start() {
	const scope = byId("scope");
	const model = await readModel(await unpack(byId("packed")), part =>
		scope.textContent = `Reading the evidence in this page: ${Math.round(part * 100)} %`);
	page.model = model;
	page.filter = noFilter();
	page.days = day(model.first) !== day(model.last);
	page.list = newList(byId("list"), recordRow, showRecord);
	page.tree = newList(byId("tree"), processRow, showNode);
	page.chart = newChart(model, byId("chart"), byId("moment"), (from, to) => setFilter({from, to}));
	byId("body").hidden = false;
	showVerdict(model);
	showFirst(model);
	showStreams(model);
	fillControls(model);
	listenToControls();
	byId("detail").append(el("p.dim", "Choose a record or a process: what it says, where it stands, " +
		"and how to prove it."));
	applyFilter();
	showHash();
	document.documentElement.dataset.ready = "yes";
}

start().catch(error => {
	byId("scope").textContent = `This page cannot be shown: ${error.message}`;
	document.documentElement.dataset.ready = "failed";
});
