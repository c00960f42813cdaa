/* Activity, silences and the host's curves on one time axis. */

const LANES = ["process", "network", "denied", "files"];
const LANE_HEIGHT = 34, CURVE_HEIGHT = 44, AXIS_HEIGHT = 24, LEFT = 186, RIGHT = 66;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5,
	9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];

/* state: {records, cell, from, to} as they are shown; choose(from, to) when a time is dragged. */
function newChart(model, place, output, choose) {
	const chart = {model, place, output, choose, state: null};
	new ResizeObserver(() => chart.state && draw(chart)).observe(place);
	place.addEventListener("dblclick", () => choose(null, null));
	return chart;
}

function draw(chart) {
	const {model} = chart, width = Math.max(chart.place.clientWidth, 480);
	const from = chart.state.from ?? model.first, to = chart.state.to ?? model.last;
	const x = time => LEFT + (time - from) / (to - from) * (width - LEFT - RIGHT);
	const view = {chart, width, from, to, x, y: 4, nodes: []};
	for (const kind of LANES)
		drawLane(view, kind);
	drawSilences(view);
	for (const [lane, curves] of (model.cells.get(chart.state.curves)?.curves || []))
		drawCurves(view, lane, curves);
	const height = view.y + AXIS_HEIGHT;
	const node = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img",
		"aria-label": "Activity over time"}, ...drawAxis(view), ...view.nodes);
	listen(view, node, height);
	chart.place.replaceChildren(node);
}

function lane(view, name, height, value) {
	const middle = view.y + height / 2 + 4;
	view.nodes.push(svg("line", {class: "lane", x1: 12, x2: view.width - 12, y1: view.y + height,
		y2: view.y + height}), svg("text", {class: "name", x: 16, y: middle}, name));
	if (value)
		view.nodes.push(svg("text", {x: view.width - 16, y: middle, "text-anchor": "end"}, value));
	view.y += height;
}

/* How many records of a kind, in bins of three pixels; the root keeps single ones visible. */
function drawLane(view, kind) {
	const bins = Math.ceil((view.width - LEFT - RIGHT) / 3), counts = new Uint32Array(bins);
	let most = 0, path = "", all = 0;
	for (const record of view.chart.state.records)
		if (record.kind === kind && record.time >= view.from && record.time <= view.to) {
			const bin = Math.min(bins - 1, Math.floor((view.x(record.time) - LEFT) / 3));
			most = Math.max(most, ++counts[bin]);
			all++;
		}
	const bottom = view.y + LANE_HEIGHT;
	for (let bin = 0; bin < bins; bin++)
		if (counts[bin]) {
			const high = 3 + Math.sqrt(counts[bin] / most) * (LANE_HEIGHT - 9);
			path += `M${LEFT + bin * 3} ${bottom}v${-high}h2.4v${high}z`;
		}
	view.nodes.push(svg("path", {class: `fill k-${kind}`, d: path}));
	lane(view, KINDS[kind], LANE_HEIGHT, all ? quantity(all) : "none");
}

function drawSilences(view) {
	const middle = view.y + LANE_HEIGHT / 2, {state, model} = view.chart;
	const ours = s => !state.cell || s.cell === state.cell;
	for (const silence of model.silences.filter(ours)) {
		const left = Math.max(view.x(silence.from), LEFT);
		const right = Math.min(view.x(silence.to), view.width - RIGHT);
		if (right >= left)
			view.nodes.push(svg("rect", {class: "silence k-loss", x: left, y: middle - 9, height: 18,
				width: Math.max(right - left, 2), rx: 3}, svg("title", {},
				`silent for ${duration(silence.to - silence.from)}`)));
	}
	let path = "", all = 0;
	for (const record of state.records)
		if (record.kind === "loss" && record.time >= view.from && record.time <= view.to) {
			path += `M${view.x(record.time)} ${middle - 6}l5 6l-5 6l-5-6z`;
			all++;
		}
	view.nodes.push(svg("path", {class: "fill k-loss", d: path}));
	lane(view, KINDS.loss, LANE_HEIGHT, all ? quantity(all) : "none");
}

function drawCurves(view, name, curves) {
	const bottom = view.y + CURVE_HEIGHT - 4, points = [...curves.values()].flat();
	const most = points.reduce((most, [, value]) => Math.max(most, value), 0);
	const y = value => bottom - (most ? value / most * (CURVE_HEIGHT - 12) : 0);
	let second = "";
	for (const [curve, values] of curves) {
		const seen = values.filter(([time]) => time >= view.from && time <= view.to);
		if (name === "Memory events") {
			const path = seen.filter(([, value]) => value).map(([time, value]) =>
				`M${view.x(time)} ${bottom}V${y(value)}h3V${bottom}z`).join("");
			view.nodes.push(svg("path", {class: "fill k-denied", d: path}));
		} else if (seen.length) {
			const line = seen.map(([time, value], i) =>
				`${i ? "L" : "M"}${view.x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
			view.nodes.push(svg("path", {class: `curve stroke k-host ${second}`, d: line},
				svg("title", {}, `${name}: ${curve}`)));
			if (!second)
				view.nodes.push(svg("path", {class: "area fill k-host", d: line +
					`L${view.x(seen.at(-1)[0])} ${bottom}L${view.x(seen[0][0])} ${bottom}z`}));
		}
		second = "second";
	}
	const label = name === "CPU" ? "CPU, cores" : name;
	lane(view, label, CURVE_HEIGHT, `${name === "Memory events" ? "" : "\u2264 "}${quantity(most)}`);
	if (curves.size === 2)
		view.nodes.push(svg("text", {x: 16, y: view.y - 3}, `\u2014 ${[...curves.keys()].join("  - - ")}`));
}

function drawAxis(view) {
	const wanted = (view.to - view.from) / ((view.width - LEFT - RIGHT) / 110);
	const step = STEPS.find(s => s >= wanted) || STEPS.at(-1) * Math.ceil(wanted / STEPS.at(-1));
	const nodes = [];
	for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
		const x = view.x(time);
		nodes.push(svg("line", {class: "grid", x1: x, x2: x, y1: 0, y2: view.y}),
			svg("text", {x, y: view.y + 16, "text-anchor": "middle"},
				step >= 864e5 ? day(time) : step >= 1000 ? clock(time).slice(0, 8) : clock(time)));
	}
	nodes.push(svg("text", {x: 16, y: view.y + 16}, `${day(view.from)} UTC`));
	return nodes;
}

/* Dragging chooses a time; the time under the pointer is written beside the title. */
function listen(view, node, height) {
	const {chart} = view;
	const cursor = svg("line", {class: "cursor", y1: 0, y2: height - AXIS_HEIGHT, x1: -9, x2: -9});
	const chosen = svg("rect", {class: "chosen", y: 0, height: height - AXIS_HEIGHT, width: 0});
	let start = null;
	const at = event => Math.min(Math.max(event.clientX - node.getBoundingClientRect().left, LEFT),
		view.width - RIGHT);
	const time = x => view.from + (x - LEFT) / (view.width - LEFT - RIGHT) * (view.to - view.from);
	node.append(chosen, cursor);
	node.addEventListener("pointerdown", event => {
		start = at(event);
		node.setPointerCapture(event.pointerId);
	});
	node.addEventListener("pointermove", event => {
		const x = at(event);
		cursor.setAttribute("x1", x);
		cursor.setAttribute("x2", x);
		chart.output.textContent = moment(time(x)) + (start === null ? "" :
			`, ${duration(Math.abs(time(x) - time(start)))}`);
		if (start !== null) {
			chosen.setAttribute("x", Math.min(start, x));
			chosen.setAttribute("width", Math.abs(x - start));
		}
	});
	node.addEventListener("pointerup", event => {
		const end = at(event), from = Math.min(start, end), to = Math.max(start, end);
		if (start !== null && to - from > 4)
			chart.choose(time(from), time(to));
		start = null;
	});
	node.addEventListener("pointerleave", () => {
		if (start === null)
			chart.output.textContent = "";
	});
}
