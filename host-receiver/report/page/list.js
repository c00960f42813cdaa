/* A list of any length: only the rows that can be seen are in the document. */

const ROW_HEIGHT = 26, SPARE_ROWS = 12;

/* row(item) makes an element; choose(item) is called when one is chosen. */
function newList(place, row, choose) {
	const list = {place, row, items: [], chosen: null, spacer: el("div"), rows: new Map(),
		nothing: el("p.nothing", "Nothing matches.")};
	place.replaceChildren(list.spacer);
	place.addEventListener("scroll", () => fill(list), {passive: true});
	place.addEventListener("click", event => {
		const node = event.target.closest(".row");
		if (node)
			choose(list.items[Number(node.dataset.at)]);
	});
	place.addEventListener("keydown", event => {
		const page = Math.floor(place.clientHeight / ROW_HEIGHT) - 1;
		const step = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity,
			End: Infinity}[event.key];
		if (!step || !list.items.length)
			return;
		event.preventDefault();
		const at = list.items.indexOf(list.chosen);
		choose(list.items[Math.min(Math.max((at < 0 ? 0 : at) + step, 0), list.items.length - 1)]);
	});
	new ResizeObserver(() => fill(list)).observe(place);
	return list;
}

function setItems(list, items) {
	list.items = items;
	list.spacer.style.height = `${items.length * ROW_HEIGHT}px`;
	list.spacer.replaceChildren(...items.length ? [] : [list.nothing]);
	list.rows.clear();
	fill(list);
}

function fill(list) {
	const first = Math.max(Math.floor(list.place.scrollTop / ROW_HEIGHT) - SPARE_ROWS, 0);
	const last = Math.min(first + Math.ceil(list.place.clientHeight / ROW_HEIGHT) + 2 * SPARE_ROWS,
		list.items.length);
	for (const [at, node] of list.rows)
		if (at < first || at >= last) {
			node.remove();
			list.rows.delete(at);
		}
	for (let at = first; at < last; at++)
		if (!list.rows.has(at)) {
			const node = list.row(list.items[at]);
			node.classList.add("row");
			node.dataset.at = at;
			node.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
			node.setAttribute("role", "option");
			node.setAttribute("aria-selected", list.items[at] === list.chosen);
			list.rows.set(at, node);
			list.spacer.append(node);
		}
}

/* Mark an item and bring it into sight; null: none. */
function choose(list, item) {
	const at = item === null ? -1 : list.items.indexOf(item);
	list.chosen = item;
	for (const [row, node] of list.rows)
		node.setAttribute("aria-selected", row === at);
	if (at < 0)
		return;
	const top = at * ROW_HEIGHT, {place} = list;
	if (top < place.scrollTop || top + ROW_HEIGHT > place.scrollTop + place.clientHeight)
		place.scrollTop = top - place.clientHeight / 2;
	fill(list);
}
