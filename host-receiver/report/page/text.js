/* Text of the evidence as text: whoever wrote it, it is shown, never obeyed. */

/* Everything that does not show by itself, or moves what stands beside it. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0\ufffc]/gu;

function escapeOf(character) {
	return "\\u{" + character.codePointAt(0).toString(16) + "}";
}

/* A string without any such character. */
function plain(text) {
	return String(text).replace(UNSEEN, escapeOf);
}

/* The same as nodes: what was replaced is marked, and directions of writing stay inside. */
function shown(text) {
	const node = document.createElement("bdi");
	let at = 0;
	text = String(text);
	for (const match of text.matchAll(UNSEEN)) {
		node.append(text.slice(at, match.index), el("span.escaped", escapeOf(match[0])));
		at = match.index + match[0].length;
	}
	node.append(text.slice(at));
	return node;
}

/* el("tag.class#id", {attribute: value}, child...): strings become text nodes. */
function el(what, ...children) {
	const [, tag, rest] = /^(\w+)(.*)$/.exec(what);
	const node = document.createElement(tag);
	for (const [, mark, name] of rest.matchAll(/([.#])([\w-]+)/g))
		mark === "#" ? node.id = name : node.classList.add(name);
	for (const child of children) {
		if (child && child.constructor === Object)
			for (const [name, value] of Object.entries(child))
				name.startsWith("on") ? node.addEventListener(name.slice(2), value)
				: value !== null && node.setAttribute(name, value);
		else if (child !== null && child !== undefined && child !== "")
			node.append(child);
	}
	return node;
}

function svg(tag, attributes, ...children) {
	const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes))
		node.setAttribute(name, value);
	node.append(...children);
	return node;
}

/* A row of a definition list; nothing for a value that is not there. */
function term(name, value) {
	if (value === undefined || value === null || value === "")
		return [];
	return [el("dt", name), el("dd", value instanceof Node ? value : shown(value))];
}

function count(n, one, many) {
	return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/* Milliseconds since 1970 as UTC. */
function day(ms) {
	return new Date(ms).toISOString().slice(0, 10);
}
function clock(ms) {
	return new Date(ms).toISOString().slice(11, 23);
}
function moment(ms) {
	return `${day(ms)} ${clock(ms)}`;
}

function duration(ms) {
	for (const [unit, size] of [["d", 864e5], ["h", 36e5], ["min", 6e4], ["s", 1e3]])
		if (ms >= 2 * size)
			return `${(ms / size).toFixed(ms >= 10 * size ? 0 : 1)} ${unit}`;
	return `${Math.round(ms)} ms`;
}

function quantity(n) {
	for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
		if (n >= size)
			return `${(n / size).toPrecision(3)} ${unit}`;
	return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toPrecision(2);
}

/* A word of a shell's command line. */
function quote(word) {
	if (/^[\w@%+=:,./-]+$/.test(word))
		return word;
	if (/^[\x20-\x7e]*$/.test(word))
		return `'${word.replaceAll("'", "'\\''")}'`;
	const bytes = new TextEncoder().encode(word);
	return "$'" + Array.from(bytes, b => b > 0x20 && b < 0x7f && b !== 0x27 && b !== 0x5c
		? String.fromCharCode(b) : "\\x" + b.toString(16).padStart(2, "0")).join("") + "'";
}

/* JSON with lines and indents. The digits of its numbers stay as they are, which JSON.parse()
   would not promise. What is no JSON comes back as it was. */
function indented(json) {
	let out = "", depth = 0;
	const line = () => "\n" + "  ".repeat(depth);
	for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"?|[{}[\],:]|[^"{}[\],:]+/gs)) {
		if (token === "{" || token === "[") {
			depth++;
			out += token + line();
		} else if (token === "}" || token === "]") {
			depth = Math.max(depth - 1, 0);
			out = out.trimEnd() + (/[{[]$/.test(out.trimEnd()) ? "" : line()) + token;
		} else {
			out += token === "," ? "," + line() : token === ":" ? ": " : token;
		}
	}
	return out;
}
