"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const state = { image: data.images[0], view: data.views[data.images[0].views[0]], active: null, chosen: null };
const at = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 760px)");
const MARGIN = 0.15, ABOVE = 0.3;  // in sides of a word's square

// ---- building elements: all text goes in as text, never as HTML

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function patches(key, side) {
  const word = data.words[key];
  if (!word?.sprite) return make("span", { className: "nothing", textContent: "no patches stored" });
  const rings = (word.marks ?? []).map(([cx, cy]) => draw("circle", { cx, cy, r: 0.09, class: "ring" }));
  const sheet = draw("image", { href: word.sprite, width: 3, height: 3 });
  return draw("svg", { viewBox: `0 0 ${side} ${side}`, class: "patches", "aria-hidden": "true" }, sheet, ...rings);
}

// ---- words for things

const percent = (share) => (share >= 0.01 ? `${Math.round(100 * share)} %` : share > 0 ? "under 1 %" : "0 %");
const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const isDecision = (node) => "class_name" in node;

function title(key) {
  const node = state.view.nodes[key];
  if (isDecision(node)) return node.class_name;
  return node.word_name ? `${node.word_name} (w${node.word})` : `w${node.word}`;
}

function question(view) {
  const node = view.nodes[view.root];
  if (!isDecision(node)) return `What is ${node.word_name ?? view.root} made of?`;
  if (view.contrast_name) return `Why \u201c${view.class_name}\u201d rather than \u201c${view.contrast_name}\u201d?`;
  return node.count ? `Why \u201c${view.class_name}\u201d?` : `What speaks for \u201c${view.class_name}\u201d?`;
}

function scope(view) {
  if (view.n_images === 1) return "this image";
  const node = view.nodes[view.root];
  const called = isDecision(node) && node.count === view.n_images ? ` decided \u201c${view.class_name}\u201d` : "";
  return `all ${view.n_images} images${called}`;
}

function imageName(image) {
  return `Image ${image.number}, which the network calls \u201c${image.decision}\u201d`;
}

// ---- what belongs together

const above = (key) => state.view.edges.filter((edge) => edge.tail === key);
const below = (key) => state.view.edges.filter((edge) => edge.head === key);

/** The node and all that explains it, directly or through others. */
function explaining(key) {
  const found = new Set([key]);
  for (const node of found) for (const edge of below(node)) found.add(edge.tail);
  return found;
}

// ---- controls: radio buttons, so that the browser brings the keyboard along

function radios(fieldset, name, options, checked, choose) {
  const focused = fieldset.contains(document.activeElement);
  fieldset.hidden = options.length < 2;
  fieldset.querySelector("div")?.remove();
  const labels = options.map((option, i) => {
    const input = make("input", { type: "radio", name, checked: i === checked });
    input.addEventListener("change", () => choose(i));
    if (option.label) input.setAttribute("aria-label", option.label);
    return make("label", { title: option.label ?? "" }, input, make("span", {}, option.content));
  });
  fieldset.append(make("div", {}, ...labels));
  if (focused) fieldset.querySelector("input:checked").focus();
}

function drawControls() {
  const views = state.image.views.map((number) => data.views[number]);
  const scopes = [...new Set(views.map(scope))];
  const here = views.filter((view) => scope(view) === scope(state.view));
  radios(at("scopes"), "scope", scopes.map((content) => ({ content })), scopes.indexOf(scope(state.view)),
    (i) => show(state.image, nearest(views.filter((view) => scope(view) === scopes[i]))));
  radios(at("questions"), "question", here.map((view) => ({ content: question(view) })), here.indexOf(state.view),
    (i) => show(state.image, here[i]));
}

function drawImages() {
  const options = data.images.map((image) => ({
    label: imageName(image),
    content: image.picture ? make("img", { src: image.picture, alt: "" }) : make("em", { textContent: image.number }),
  }));
  radios(at("images"), "image", options, data.images.indexOf(state.image), (i) => {
    show(data.images[i], nearest(data.images[i].views.map((number) => data.views[number])));
  });
}

/** The view that is most like the one that is shown: of the same scope, then with or without a contrast. */
function nearest(views) {
  const likeness = (view) =>
    2 * ((view.n_images === 1) === (state.view.n_images === 1)) + (!view.contrast_name === !state.view.contrast_name);
  return views.reduce((best, view) => (likeness(view) > likeness(best) ? view : best));
}

// ---- the graph

let unit = 100, offset = 0;  // pixels: of a word's square, and left of a graph that is narrower than its frame
const nodes = new Map();
let arrows = [];

const x = (value) => unit * (value - state.view.limits[0] + MARGIN);
const y = (value) => unit * (state.view.limits[3] - value + ABOVE);

function place(element, left, top, width, height) {
  Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
}

function drawGraph() {
  const graph = at("graph"), [left, bottom, right, top] = state.view.limits;
  const width = right - left + 2 * MARGIN, height = top - bottom + ABOVE + MARGIN;
  const room = at("frame").clientWidth, tall = narrow.matches ? Infinity : innerHeight - 24;
  unit = Math.max(narrow.matches ? 76 : 104, Math.min(132, room / width, tall / height));
  offset = Math.max(0, (room - unit * width) / 2);
  graph.style.setProperty("--unit", `${unit}px`);
  graph.style.width = `${unit * width}px`;
  graph.style.height = `${unit * height}px`;
  graph.setAttribute("aria-label", `${question(state.view)} Arrow keys move, enter keeps only what explains a node.`);
  const strokes = draw("svg", { class: "arrows", width: unit * width, height: unit * height, "aria-hidden": "true" });
  arrows = state.view.edges.map(drawArrow);
  strokes.append(...arrows.map((arrow) => arrow.line), ...arrows.map((arrow) => arrow.text));
  nodes.clear();
  const names = state.view.rows.flat().map(drawLayerName);
  for (const key of state.view.rows.flat(2)) nodes.set(key, drawNode(key));
  graph.replaceChildren(strokes, ...names, ...nodes.values());
}

function drawArrow(edge) {
  const [x0, y0, x1, y1] = [x(edge.line[0]), y(edge.line[1]), x(edge.line[2]), y(edge.line[3])];
  const length = Math.hypot(x1 - x0, y1 - y0), wide = 1 + 4 * edge.strength, head = 6 + 2 * wide;
  const [dx, dy] = [(x1 - x0) / length, (y1 - y0) / length];
  const [bx, by] = [x1 - head * dx, y1 - head * dy];
  const line = draw("line", { x1: x0, y1: y0, x2: bx, y2: by, "stroke-width": wide });
  const half = head / 2;
  const tip = `M${x1} ${y1}L${bx - half * dy} ${by + half * dx}L${bx + half * dy} ${by - half * dx}Z`;
  const group = draw("g", { class: edge.against ? "edge against" : "edge", "stroke-opacity": 0.4 + 0.6 * edge.strength, "fill-opacity": 0.4 + 0.6 * edge.strength },
    line, draw("path", { d: tip }));
  const text = draw("text", { class: "edge" });
  if (edge.label) {
    text.setAttribute("x", x(edge.label[0]));
    text.setAttribute("y", y(edge.label[1]));
    text.textContent = edge.short;
  }
  return { edge, line: group, text };
}

function drawLayerName(keys) {
  const node = state.view.nodes[keys[0]], first = state.view.rows.some((row) => row[0] === keys);
  const count = node.n_locations / state.view.n_images;
  const text = isDecision(node) ? "decision" : `${node.layer} \u00b7 ${plural(count, "location")}${state.view.n_images > 1 ? " an image" : ""}`;
  const name = make("div", { className: "layer", textContent: text });
  const beside = first && offset > 120;  // pixels: room for a name to the left of the row
  name.classList.toggle("beside", beside);
  name.style.left = `${first ? 8 - offset : x(node.box[0])}px`;
  name.style.top = `${y(node.box[1] + node.box[3]) - (beside ? 0 : 20)}px`;
  if (beside) name.style.width = `${offset + x(node.box[0]) - 16}px`;
  return name;
}

function drawNode(key) {
  const node = state.view.nodes[key], decision = isDecision(node);
  const button = make("button", { type: "button", className: "node", tabIndex: key === state.view.root ? 0 : -1 },
    decision ? mosaic() : patches(key, 2), caption(key));
  button.dataset.key = key;
  button.classList.toggle("decision", decision);
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", describe(key));
  const [left, bottom, width, height] = node.box;
  place(button, x(left), y(bottom + height), unit * width, unit * height);
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && look(key));
  button.addEventListener("focus", () => { rove(key); look(key); });
  button.addEventListener("click", () => choose(state.chosen === key ? null : key, key));
  return button;
}

function mosaic() {
  const pictures = state.view.pictures.length ? state.view.pictures : [state.image.picture].filter(Boolean);
  return make("span", { className: "mosaic" }, ...pictures.map((src) => make("img", { src, alt: "" })));
}

function caption(key) {
  const lines = state.view.nodes[key].card.map((textContent) => make("span", { textContent }));
  return make("span", { className: "caption" }, make("b", { textContent: title(key) }), ...lines);
}

function describe(key) {
  const node = state.view.nodes[key], facts = node.panel.join(" ");
  if (isDecision(node)) return `Decision ${node.class_name}. ${facts}`;
  const heads = above(key).map((edge) => `${title(edge.head)}, ${edge.told}`);
  return `Word ${title(key)} of layer ${node.layer}. ${facts}` + (heads.length ? ` Explains ${heads.join("; ")}.` : "");
}

// ---- looking at a node, choosing one

function look(key) {
  state.active = key;
  drawPanel();
  highlight();
}

function rove(key) {
  for (const [other, button] of nodes) button.tabIndex = other === key ? 0 : -1;
}

function choose(key, looked) {
  state.chosen = key;
  document.body.classList.toggle("open", looked !== null);
  look(looked ?? state.view.root);
  nodes.get(looked)?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function highlight() {
  const kept = state.chosen === null ? null : explaining(state.chosen);
  const beside = new Set([state.active, ...above(state.active).map((edge) => edge.head), ...below(state.active).map((edge) => edge.tail)]);
  const quiet = kept === null && state.active !== state.view.root;
  for (const [key, button] of nodes) {
    button.classList.toggle("gone", kept !== null && !kept.has(key));
    button.classList.toggle("faint", quiet && !beside.has(key));
    button.classList.toggle("active", key === state.active);
    button.setAttribute("aria-pressed", String(key === state.chosen));
  }
  for (const { edge, line, text } of arrows) {
    for (const part of [line, text]) {
      part.classList.toggle("gone", kept !== null && !(kept.has(edge.head) && kept.has(edge.tail)));
      part.classList.toggle("faint", quiet && edge.head !== state.active && edge.tail !== state.active);
    }
  }
  at("all").hidden = kept === null;
  document.querySelector("[role=status]").textContent = kept === null
    ? "The decision is on top, below it the visual words that speak for it, layer by layer. Point at a word, or tap it."
    : `Only ${title(state.chosen)} and what explains it: ${plural(kept.size - 1, "word")}.`;
}

// ---- the panel

function drawPanel() {
  drawQuery();
  const key = state.active, node = state.view.nodes[key];
  at("facts").replaceChildren(...(isDecision(node) ? aboutDecision(node) : aboutWord(key, node)),
    ...neighbours("Explains", above(key), "head"), ...neighbours("Explained by", below(key), "tail"));
  at("panel").scrollTop = 0;
}

function drawQuery() {
  const node = state.view.nodes[state.active], runs = state.image.places[state.active] ?? [];
  const box = make("div"), layer = data.layers[node.layer];
  if (state.image.picture) box.append(make("img", { src: state.image.picture, alt: imageName(state.image) }));
  let text = imageName(state.image);
  if (layer) {
    const [height, width] = [layer.rows.length - 1, layer.columns.length - 1];
    const cells = [];
    for (let i = 0; i < runs.length; i += 2) for (let j = runs[i]; j < runs[i] + runs[i + 1]; j++) cells.push(j);
    const tint = tinted("row" in node ? [node.row * width + node.column] : cells, layer);
    if (!state.image.picture) box.style.aspectRatio = `${width} / ${height}`;
    box.append(draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" }, ...tint));
    text = `Image ${state.image.number}, tinted at the ${plural(cells.length, "location")} of ${title(state.active)}`;
    if (!cells.length) text = `Image ${state.image.number} does not show ${title(state.active)}`;
  }
  at("query").replaceChildren(box, make("figcaption", { textContent: text }));
}

/** The locations as an area, and its border: where a location's neighbour is not one of them. */
function tinted(cells, { rows, columns }) {
  const width = columns.length - 1, inside = new Set(cells), areas = [], sides = [];
  for (const cell of cells) {
    const [i, j] = [Math.floor(cell / width), cell % width];
    const [left, right, top, bottom] = [columns[j], columns[j + 1], rows[i], rows[i + 1]];
    areas.push(`M${left} ${top}H${right}V${bottom}H${left}z`);
    if (!inside.has(cell - width)) sides.push(`M${left} ${top}H${right}`);
    if (!inside.has(cell + width)) sides.push(`M${left} ${bottom}H${right}`);
    if (j === 0 || !inside.has(cell - 1)) sides.push(`M${left} ${top}V${bottom}`);
    if (j === width - 1 || !inside.has(cell + 1)) sides.push(`M${right} ${top}V${bottom}`);
  }
  return [draw("path", { d: areas.join(""), class: "area" }), draw("path", { d: sides.join(""), class: "border" })];
}

const paragraphs = (texts, className = "") => texts.map((textContent) => make("p", { className, textContent }));

function aboutDecision(node) {
  const view = state.view, over = view.n_images > 1 ? [`Over ${scope(view)}.`] : [];
  return [make("h2", { textContent: question(view) }), ...paragraphs([...node.panel, ...over]), ...paragraphs(node.warnings, "warning")];
}

function aboutWord(key, node) {
  const word = data.words[key];
  const facts = [make("h2", { textContent: title(key) }), ...paragraphs([`Word ${node.word} of layer ${node.layer}`], "soft"),
    ...paragraphs(node.panel), make("h3", { textContent: "Most typical patches" }), patches(key, 3)];
  return word.classes ? [...facts, ...statistics(word)] : facts;
}

function statistics(word) {
  const rows = word.classes.flatMap(([name, share]) => [
    make("dt", { textContent: name, title: name }),
    make("dd", {}, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("rect", { width: 100 * share, height: 10 }))),
    make("dd", { textContent: percent(share) }),
  ]);
  const more = word.n_classes - word.classes.length;
  return [
    make("h3", { textContent: "Where it occurs in the images that it was learnt from" }),
    make("dl", { className: "bars" }, ...rows),
    make("p", { className: "soft", textContent: (more > 0 ? `and ${plural(more, "other class").replace("classs", "classes")}; ` : "")
      + `purity ${percent(word.classes[0]?.[1] ?? 0)}; ${percent(word.share)} of all locations` }),
  ];
}

function neighbours(heading, edges, end) {
  if (!edges.length) return [];
  const sorted = [...edges].sort((a, b) => b.rank - a.rank);
  const items = sorted.map((edge) => {
    const key = edge[end];
    const button = make("button", { type: "button" }, isDecision(state.view.nodes[key]) ? mosaic() : patches(key, 1),
      make("span", {}, make("b", { textContent: title(key) }), make("br"), edge.told));
    button.addEventListener("click", () => goto(key));
    return make("li", {}, button);
  });
  return [make("h3", { textContent: heading }), make("ul", { className: "near" }, ...items)];
}

function goto(key) {
  if (state.chosen !== null && !explaining(state.chosen).has(key)) state.chosen = null;
  nodes.get(key).focus();
  nodes.get(key).scrollIntoView({ block: "nearest", inline: "nearest" });
}

// ---- keys

const middle = (key) => state.view.nodes[key].box[0] + state.view.nodes[key].box[2] / 2;

function step(key, arrow) {
  const rows = state.view.rows.map((row) => row.flat());
  const row = rows.findIndex((keys) => keys.includes(key)), column = rows[row].indexOf(key);
  if (arrow === "ArrowLeft") return rows[row][column - 1];
  if (arrow === "ArrowRight") return rows[row][column + 1];
  const other = rows[row + (arrow === "ArrowUp" ? -1 : 1)];
  return other?.reduce((best, next) => (Math.abs(middle(next) - middle(key)) < Math.abs(middle(best) - middle(key)) ? next : best));
}

at("graph").addEventListener("keydown", (event) => {
  if (!event.key.startsWith("Arrow") || !event.target.dataset.key) return;
  event.preventDefault();
  const next = step(event.target.dataset.key, event.key);
  if (next) nodes.get(next).focus();
});

document.addEventListener("keydown", (event) => event.key === "Escape" && showAll());

function showAll() {
  const focused = document.activeElement.dataset.key;
  choose(null, null);
  if (focused) look(focused);
}

at("all").addEventListener("click", showAll);
at("close").addEventListener("click", showAll);
at("graph").addEventListener("pointerleave", () => look(document.activeElement.dataset.key ?? state.chosen ?? state.view.root));

// ---- all together

function show(image, view) {
  Object.assign(state, { image, view, active: view.root, chosen: null });
  at("question").textContent = document.title = question(view);
  at("about").textContent = view.n_images > 1 ? `Over ${scope(view)}; beside it image ${image.number}` : imageName(image);
  at("remark").textContent = view.remark;
  at("remark").hidden = !view.remark;
  document.body.classList.remove("open");
  document.body.dataset.evidence = view.evidence;
  drawControls();
  drawGraph();
  look(view.root);
}

addEventListener("resize", () => { drawGraph(); highlight(); });
drawImages();
show(state.image, state.view);
