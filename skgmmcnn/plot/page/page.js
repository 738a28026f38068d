"use strict";

// Names of classes may be long: texts hold their numbers between two marks, and are shown with the beginnings of names.
const text = document.getElementById("data").textContent, { classes } = JSON.parse(text);
const named = (value) => value.replace(/\ue000(\d+)\ue001/g, (mark, number) => {
  const name = classes[number] ?? mark;
  return mark === value ? name : quoted(cut(name));
});
const cut = (name) => (name.length > 32 ? `${name.slice(0, 30)}\u2026` : name);
const quoted = (name) => `\u201c${name}\u201d`;
const data = JSON.parse(text, (_, value) => typeof value === "string" ? named(value).replace(/ %/g, "\u00a0%") : value);
const state = { image: data.images[0], view: data.views[data.images[0].views[0]], active: null, chosen: null };
const at = (id) => document.getElementById(id);

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
  return isDecision(node) ? node.class_name : (data.words[key].name ?? `word ${node.word}`);
}

function question(view) {
  const node = view.nodes[view.root];
  if (!isDecision(node)) return `What is ${data.words[view.root].name ?? view.root} made of?`;
  if (view.contrast_name) return `Why ${quoted(node.class_name)} rather than ${quoted(view.contrast_name)}?`;
  return node.count ? `Why ${quoted(node.class_name)}?` : `What speaks for ${quoted(node.class_name)}?`;
}

function scope(view) {
  if (view.n_images === 1) return "this image";
  const node = view.nodes[view.root];
  const called = isDecision(node) && node.count === view.n_images ? ` decided ${quoted(node.class_name)}` : "";
  return `all ${view.n_images} images${called}`;
}

function imageName(image) {
  const label = image.label === null ? "" : `, true label ${quoted(image.label)}`;
  return `${image.name}: the network says ${quoted(image.decision)}${label}`;
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

// ---- the graph: laid out by the style, then arrows are drawn between what stands where

const nodes = new Map();
const narrow = matchMedia("(max-width: 760px)");
const ROOM = 7;  // pixels for a letter on an arrow
let arrows = [];

function drawGraph() {
  nodes.clear();
  const rows = state.view.rows.map((groups) => make("div", { className: "row" }, ...groups.map(drawGroup)));
  at("graph").setAttribute("aria-label", `${question(state.view)} Arrow keys move, enter keeps only what explains a node.`);
  at("graph").replaceChildren(draw("svg", { class: "arrows", "aria-hidden": "true" }), ...rows);
  drawArrows();
}

function drawGroup(keys) {
  const node = state.view.nodes[keys[0]], count = node.n_locations / state.view.n_images;
  const places = isDecision(node) ? "" : `${plural(count, "location")}${state.view.n_images > 1 ? " an image" : ""}`;
  const group = make("div", { className: "group" },
    make("h2", { className: "layer", textContent: node.layer }, make("span", { textContent: places })),
    make("div", { className: "cards" }, ...keys.map(drawNode)));
  group.style.flexGrow = keys.length;
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", isDecision(node) ? "Decision" : `Layer ${node.layer}`);
  return group;
}

function drawNode(key) {
  const node = state.view.nodes[key], decision = isDecision(node);
  const button = make("button", { type: "button", className: "node", tabIndex: key === state.view.root ? 0 : -1 },
    make("span", { className: decision ? "inside decided" : "inside" }, looks(key), caption(key)));
  button.dataset.key = key;
  button.classList.toggle("decision", decision);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && hover(key));
  button.addEventListener("focus", () => { rove(key); look(key); });
  button.addEventListener("click", () => choose(state.chosen === key ? null : key, key));
  nodes.set(key, button);
  button.setAttribute("aria-label", describe(key));
  return button;
}

function looks(key) {
  if (isDecision(state.view.nodes[key])) return mosaic();
  return make("span", { className: "looks" }, patches(key, 2), state.image.picture ? lit([key]) : null);
}

function mosaic() {
  const pictures = state.view.pictures.length ? state.view.pictures : [state.image.picture].filter(Boolean);
  return make("span", { className: "mosaic" }, ...pictures.map((src) => make("img", { src, alt: "" })));
}

function caption(key) {
  const node = state.view.nodes[key], label = isDecision(node) && state.view.n_images === 1 ? state.image.label : null;
  const lines = label === null ? node.lines : [...node.lines, `true label ${quoted(cut(label))}`];
  return make("span", {}, make("b", { className: "long", textContent: title(key) }), node.bar ? bar(...node.bar) : null,
    ...lines.map((textContent) => make("span", { className: "line long", textContent })));
}

function bar(textContent, length) {
  const rect = draw("rect", { width: 100 * Math.abs(length), height: 10, class: length < 0 ? "against" : "for" });
  const svg = draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, rect);
  return make("span", { className: "bar" }, svg, make("span", { textContent }));
}

function describe(key) {
  const node = state.view.nodes[key], facts = node.panel.join(" ");
  if (isDecision(node)) return `Decision ${node.class_name}. ${facts}`;
  const heads = above(key).map((edge) => `${title(edge.head)}, ${edge.text}`);
  return `${title(key)}, layer ${node.layer}. ${facts}` + (heads.length ? ` Explains ${heads.join("; ")}.` : "");
}

/** The boxes of elements, in the graph, which may be drawn smaller than it is. */
function boxes(elements) {
  const { left, top, width } = at("graph").getBoundingClientRect(), scale = at("graph").offsetWidth / width;
  return elements.map((element) => {
    const box = element.getBoundingClientRect();
    const [x, y] = [scale * (box.left - left), scale * (box.top - top)];
    return { left: x, right: x + scale * box.width, top: y, bottom: y + scale * box.height };
  });
}

/** The least width of the graph: of nodes with their gaps, and of the names of layers where these stand beside. */
function leastWidth() {
  const [node, name] = narrow.matches ? [84, 0] : [116, 116];
  return Math.max(...state.view.rows.map((groups) => name * groups.length + node * groups.flat().length)) + 28;
}

function drawArrows() {
  at("graph").style.minWidth = `${leastWidth()}px`;
  const keys = [...nodes.keys()], around = boxes([...nodes.values()]);
  const box = Object.fromEntries(keys.map((key, i) => [key, around[i]]));
  const taken = [...around, ...boxes([...document.querySelectorAll(".layer")])];
  const strongest = [...state.view.edges].sort((a, b) => b.strength - a.strength);
  arrows = strongest.map((edge) => drawArrow(edge, ends(edge, box), taken));
  document.querySelector(".arrows").replaceChildren(...arrows.map((arrow) => arrow.line), ...arrows.map((arrow) => arrow.text));
}

/** Where an edge begins and ends: edges spread along a node in the order of their other ends. */
function ends({ tail, head }, box) {
  const at = (key) => (box[key].left + box[key].right) / 2;
  const spread = (key, others, other) => {
    const order = others.sort((a, b) => at(a) - at(b));
    return box[key].left + (box[key].right - box[key].left) * (0.2 + (0.6 * (order.indexOf(other) + 0.5)) / order.length);
  };
  return [spread(tail, above(tail).map((edge) => edge.head), head), box[tail].top,
    spread(head, below(head).map((edge) => edge.tail), tail), box[head].bottom];
}

function drawArrow(edge, [x0, y0, x1, y1], taken) {
  const length = Math.hypot(x1 - x0, y1 - y0), wide = 1 + 4 * edge.strength, head = 6 + 2 * wide, half = head / 2;
  const [dx, dy] = [(x1 - x0) / length, (y1 - y0) / length];
  const [bx, by] = [x1 - head * dx, y1 - head * dy];
  const tip = `M${x1} ${y1}L${bx - half * dy} ${by + half * dx}L${bx + half * dy} ${by - half * dx}Z`;
  const opacity = 0.4 + 0.6 * edge.strength;
  const line = draw("g", { class: edge.against ? "edge against" : "edge", "stroke-opacity": opacity, "fill-opacity": opacity },
    draw("line", { x1: x0, y1: y0, x2: bx, y2: by, "stroke-width": wide }), draw("path", { d: tip }));
  return { edge, line, text: drawLabel(edge.short, (share) => [x0 + share * (x1 - x0), y0 + share * (y1 - y0)], taken) };
}

/** What stands on an arrow, at the first place along it that is free; nothing where none is. */
function drawLabel(textContent, along, taken) {
  const label = draw("g", { class: "edge" });
  if (!textContent) return label;
  const half = (ROOM * textContent.length) / 2 + 2;
  for (const [x, y] of [0.5, 0.4, 0.6, 0.3, 0.7, 0.25, 0.75].map(along)) {
    const place = { left: x - half, right: x + half, top: y - 8, bottom: y + 8 };
    if (place.left < 0 || taken.some((other) => overlap(place, other))) continue;
    taken.push(place);
    label.append(draw("rect", { x: x - half, y: y - 8, width: 2 * half, height: 16 }), draw("text", { x, y }, textContent));
    break;
  }
  return label;
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// ---- looking at a node, choosing one

function look(key) {
  state.active = key;
  drawPanel();
  highlight();
}

/** Look at what the mouse is over, but not while a name is being written. */
function hover(key) {
  if (!at("facts").contains(document.activeElement)) look(key);
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
  const { active, image, view } = state, node = view.nodes[active];
  const keys = isDecision(node) ? below(active).map((edge) => edge.tail) : [active];
  const count = isDecision(node) ? 0 : cellsOf([active]).length;
  const what = isDecision(node) ? "where it shows the words below the decision"
    : count ? `at the ${plural(count, "location")} of ${title(active)}` : "";
  const textContent = what ? `${image.name}, lit ${what}` : `${image.name} does not show ${title(active)}`;
  at("query").replaceChildren(lit(keys), make("figcaption", { textContent }));
}

/** The locations of the image that show some of the words of one layer, or the one that is explained. */
function cellsOf(keys) {
  const node = state.view.nodes[keys[0]];
  if (node && "row" in node) return [node.row * (data.layers[node.layer].columns.length - 1) + node.column];
  const cells = [];
  for (const key of keys) {
    const runs = state.image.places[key] ?? [];
    for (let i = 0; i < runs.length; i += 2) for (let j = runs[i]; j < runs[i] + runs[i + 1]; j++) cells.push(j);
  }
  return cells;
}

/** The image, darkened but where it shows these words of one layer; as it is for words of several. */
function lit(keys) {
  const box = make("span", { className: "lit" }), { picture } = state.image;
  if (picture) box.append(make("img", { src: picture, alt: imageName(state.image) }));
  const nodes = keys.map((key) => state.view.nodes[key]);
  if (!keys.length || nodes.some((node) => node.layer !== nodes[0].layer)) return box;
  const layer = data.layers[nodes[0].layer], cells = cellsOf(keys);
  if (!picture) box.style.aspectRatio = `${layer.columns.length - 1} / ${layer.rows.length - 1}`;
  const [areas] = outlined(cells, layer);
  const borders = ["border", "border against"].map((className, against) => [className,
    outlined(cellsOf(keys.filter((_, i) => Number(nodes[i].bar?.[1] < 0) === against)), layer)[1]]);
  box.append(draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("path", { d: `M0 0H1V1H0z${areas}`, class: "rest" }),
    ...borders.map(([, d]) => draw("path", { d, class: "halo" })),
    ...borders.map(([className, d]) => draw("path", { d, class: className }))));
  return box;
}

/** The locations as areas, and their border: where a location's neighbour is not one of them. */
function outlined(cells, { rows, columns }) {
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
  return [areas.join(""), sides.join("")];
}

const paragraphs = (texts, className = "") => texts.map((textContent) => make("p", { className, textContent }));

function aboutDecision(node) {
  const view = state.view, over = view.n_images > 1 ? [`Over ${scope(view)}.`] : [];
  return [make("h2", { textContent: question(view) }), ...paragraphs([...node.panel, ...over])];
}

function aboutWord(key, node) {
  const word = data.words[key];
  const facts = [make("h2", { textContent: title(key) }), ...paragraphs([`Word ${node.word} of layer ${node.layer}`], "soft"),
    naming(key), ...paragraphs(node.panel), make("h3", { textContent: "Most typical patches" }), patches(key, 3)];
  return word.classes ? [...facts, ...statistics(word)] : facts;
}

// ---- names that a person gives to words

let unsaved = false;

function naming(key) {
  const input = make("input", { value: data.words[key].name ?? "", placeholder: "what it shows" });
  input.addEventListener("input", () => rename(key, input.value.trim()));
  input.addEventListener("keydown", (event) => event.key === "Enter" && nodes.get(key).focus());
  return make("label", {}, "Name", input);
}

function rename(key, name) {
  data.words[key].name = name || undefined;
  unsaved = true;
  at("names").hidden = false;
  nodes.get(key).querySelector("b").textContent = document.querySelector("#facts h2").textContent = title(key);
  for (const [other, button] of nodes) button.setAttribute("aria-label", describe(other));
}

at("download").addEventListener("click", () => {
  const names = Object.entries(data.words).filter(([, word]) => word.name).map(([key, word]) => [key, word.name]);
  const href = `data:application/json,${encodeURIComponent(JSON.stringify(Object.fromEntries(names), null, 1))}`;
  make("a", { href, download: "word_names.json" }).click();
  unsaved = false;
});

addEventListener("beforeunload", (event) => unsaved && event.preventDefault());

function statistics(word) {
  const rows = word.classes.flatMap(([name, share]) => [
    make("dt", { textContent: name, title: name }),
    make("dd", {}, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("rect", { width: 100 * share, height: 10 }))),
    make("dd", { textContent: percent(share) }),
  ]);
  const more = word.n_classes - word.classes.length;
  return [
    make("h3", { textContent: "Classes of the fitted images that show it" }),
    make("dl", { className: "bars" }, ...rows),
    make("p", { className: "soft", textContent: (more > 0 ? `and ${more} other class${more === 1 ? "" : "es"}; ` : "")
      + `${percent(word.share)} of all locations show it` }),
  ];
}

function neighbours(heading, edges, end) {
  if (!edges.length) return [];
  const sorted = [...edges].sort((a, b) => b.rank - a.rank);
  const items = sorted.map((edge) => {
    const key = edge[end];
    const button = make("button", { type: "button" }, isDecision(state.view.nodes[key]) ? mosaic() : patches(key, 1),
      make("span", {}, make("b", { textContent: title(key) }), make("br"), edge.text));
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

const middle = (key) => nodes.get(key).offsetLeft + nodes.get(key).offsetWidth / 2;

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
at("graph").addEventListener("pointerleave", () => hover(document.activeElement.dataset.key ?? state.chosen ?? state.view.root));

// ---- all together

function show(image, view) {
  Object.assign(state, { image, view, active: view.root, chosen: null });
  at("question").textContent = document.title = question(view);
  const over = view.n_images > 1 ? `Over ${scope(view)}. Shown: ` : "";
  at("about").textContent = over + imageName(image);
  at("remark").textContent = view.remarks.join(" ");
  at("remark").hidden = !view.remarks.length;
  document.body.classList.remove("open");
  at("evidence").replaceChildren(...data.help[view.evidence].map((textContent) => make("li", { textContent })));
  drawControls();
  drawGraph();
  look(view.root);
}

function redraw() {
  drawArrows();
  highlight();
}

/** Lay the graph out for one sheet of paper, or for the screen again. */
function print(onPaper) {
  const graph = at("graph");
  document.body.classList.toggle("print", onPaper);
  graph.style.zoom = "";
  redraw();
  if (onPaper) graph.style.zoom = Math.min(1, 700 / graph.offsetWidth, 900 / graph.offsetHeight);
}

new ResizeObserver(redraw).observe(at("graph"));
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
drawImages();
show(state.image, state.view);
