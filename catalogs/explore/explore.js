// The page of `mgd explore`: what is chosen stands in the address, every number comes from the server, and every text
// of a pool's is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const PAGE = Math.random().toString(36).slice(2);
const CHUNK = 100; // samples of one question
const EDGE = 2; // rows of tiles that are made beyond those seen
const MOST_PICKED = 50000;
const SIZES = [64, 128, 256, 512, 1024];
const START = { where: "", search: "", brushes: {}, order: "uid", descending: false, seed: 0, charts: null, size: 128 };
const state = { ...START };
const columns = new Map();
const charts = new Map();
const picks = { all: false, uids: new Set(), last: null };
let run = null, shown = 0, turn = 0, chunks = new Map(), focused = 0;

// ---- asking

class Superseded extends Error {}

async function ask(path, values = {}, init = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams({ ...values, page: PAGE })}`, init);
  const told = await answer.json();
  if (told.superseded) throw new Superseded();
  if (!answer.ok) throw new Error(told.error ?? `the server said ${answer.status}`);
  return told;
}

const choice = () => ({
  where: state.where, search: state.search, brushes: state.brushes,
  order: state.order, descending: state.descending, seed: state.seed,
});
const asked = (more = {}) => ({ choice: JSON.stringify(choice()), ...more });

function trouble(error) {
  if (error instanceof Superseded) return;
  $("trouble").textContent = error.message.startsWith("Failed to fetch") || error instanceof TypeError
    ? "The server does not answer: is `mgd explore` still running?" : error.message;
}

// ---- text, numbers, elements

const whole = (value) => value.toLocaleString("en-GB");
const seen = (text) => String(text).replaceAll("\0", "␀");

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return seen(typeof value === "object" ? JSON.stringify(value) : value);
  if (Number.isInteger(value)) return whole(value).replace("-", "−");
  const size = Math.abs(value);
  return (size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(2)).replaceAll("-", "−");
}

function make(name, given = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside.filter((one) => one !== null));
  return made;
}

function shape(name, given) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  return made;
}

// ---- the address

function remember() {
  const kept = Object.fromEntries(Object.entries(state).filter(([k, v]) => JSON.stringify(v) !== JSON.stringify(START[k])));
  const words = Object.keys(kept).length ? `#${encodeURIComponent(JSON.stringify(kept))}` : "";
  if (words !== location.hash) history.replaceState(null, "", location.pathname + words);
}

function recall() {
  Object.assign(state, structuredClone(START));
  try {
    const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
    for (const key of Object.keys(START)) if (key in kept) state[key] = kept[key];
    if (typeof state.brushes !== "object" || state.brushes === null) state.brushes = {};
  } catch {
    $("trouble").textContent = "What stands in the address behind # cannot be read; the page begins anew.";
  }
}

// ---- everything anew

async function refresh({ order = false } = {}) {
  remember();
  const mine = order ? turn : ++turn; // charts that are on their way stay wanted in another order
  $("trouble").textContent = "";
  if (!order) forget();
  chunks = new Map();
  try {
    if (!order) {
      $("count").classList.add("waiting");
      const told = await ask("/api/count", asked());
      if (mine !== turn) return;
      shown = told.shown;
      $("count").replaceChildren(make("b", {}, whole(shown)), ` of ${whole(told.of)} samples shown`);
      $("query").textContent = told.sql;
      document.body.dataset.shown = shown;
      drawPicks();
    }
    lay(true);
    if (!order) await Promise.all([...charts.keys()].map((key) => chart(key, mine)));
    if (mine === turn) document.body.dataset.turn = mine;
  } catch (error) {
    if (mine === turn) trouble(error);
  }
}

// ---- charts

function defaultCharts() {
  const there = [...columns.values()].filter((one) => one.isMeasure && one.kind !== "other");
  const label = (name) => there.find((one) => one.label === name)?.key;
  const likely = ["g_sum", "count", "outcome", "truth_clean", "style", "caption length"].map(label);
  const scores = there.filter((one) => one.kind === "number" && /score|loss/i.test(one.label)).slice(0, 2).map((one) => one.key);
  return [...new Set([...likely, ...scores])].filter(Boolean);
}

function layCharts() {
  state.charts ??= defaultCharts();
  const wanted = [...new Set([...state.charts, ...Object.keys(state.brushes)])].filter((key) => columns.has(key));
  for (const key of charts.keys()) if (!wanted.includes(key)) { charts.get(key).box.remove(); charts.delete(key); }
  for (const key of wanted) {
    if (charts.has(key)) continue;
    const column = columns.get(key);
    const title = make("h2", { title: column.doc }, make("span", {}, seen(column.label)),
      make("button", { type: "button", onclick: () => brushed(key, null), hidden: true }, "clear"),
      make("button", { type: "button", "aria-label": `Close ${column.label}`, onclick: () => closeChart(key) }, "×"));
    const plot = make("div", {}, make("p", { className: "told" }, "counting …"));
    const box = make("section", { className: "chart", "aria-label": column.label }, title, plot);
    $("charts").append(box);
    charts.set(key, { box, plot, column, clear: title.querySelector("button") });
  }
  const rest = [...columns.values()].filter((one) => one.kind !== "other" && !charts.has(one.key));
  $("add").replaceChildren(make("option", { value: "" }, "a column …"), ...rest.map((one) => make("option", { value: one.key, title: one.doc }, seen(one.label))));
}

function closeChart(key) {
  state.charts = state.charts.filter((one) => one !== key);
  const had = key in state.brushes;
  delete state.brushes[key];
  layCharts();
  had ? refresh() : remember();
}

async function chart(key, mine) {
  try {
    const told = await ask("/api/chart", asked({ key }));
    const one = charts.get(key);
    if (mine !== turn || !one) return;
    one.clear.hidden = !(key in state.brushes);
    if (told.many) one.plot.replaceChildren(make("p", { className: "told" }, "Too many values for bars: ask in the filter line."));
    else if (told.edges) drawNumbers(one, told);
    else drawWords(one, told);
  } catch (error) {
    if (mine === turn) trouble(error);
  }
}

function brushed(key, brush) {
  if (brush === null) delete state.brushes[key];
  else state.brushes[key] = brush;
  refresh();
}

const WIDE = 260, HIGH = 60;

function drawNumbers(one, told) {
  const { key } = told, n = told.all.length, edges = told.edges;
  const brush = state.brushes[key] ?? null;
  if (!edges.length) return one.plot.replaceChildren(make("p", { className: "told" }, "No sample has a value."));
  if (one.drawing) return; // what is drawn at the moment is not drawn over
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${one.column.label}: ${whole(told.shown.reduce((a, b) => a + b, 0))} samples with a value, from ${figure(edges[0])} to ${figure(edges.at(-1))}` });
  const most = Math.max(1, ...told.all), bar = WIDE / n;
  const height = (value) => (value ? Math.max(1, (HIGH - 2) * Math.sqrt(value / most)) : 0);
  for (const [name, values] of [["every", told.all], ["now", told.shown]])
    values.forEach((value, b) => value && svg.append(shape("rect", { class: name, x: b * bar + 0.3, width: Math.max(0.5, bar - 0.6), y: HIGH - height(value), height: height(value) })));
  const veil = shape("rect", { class: "brush", y: 0, height: HIGH, width: 0, visibility: "hidden" });
  svg.append(veil);
  const place = (value, or) => {
    if (value === null || value === undefined) return or;
    const b = edges.findIndex((edge) => edge >= value);
    if (b < 0) return n - 1;
    const before = edges[b - 1] ?? value - 1;
    return (b + 1 - (edges[b] - value) / (edges[b] - before || 1));
  };
  const veiled = (a, b) => { veil.setAttribute("x", a * bar); veil.setAttribute("width", Math.max(0, (b - a) * bar)); veil.setAttribute("visibility", "visible"); };
  if (brush && !brush.none) veiled(Math.max(0, place(brush.low, 0)), Math.min(n, place(brush.high, n)));
  let from = null, to = null;
  const at = (event) => { const box = svg.getBoundingClientRect(); return Math.min(n - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * n))); };
  const bounds = () => [Math.min(from, to), Math.max(from, to) + 1];
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); one.drawing = true; from = to = at(event); veiled(...bounds()); });
  svg.addEventListener("pointermove", (event) => { if (from !== null) { to = at(event); veiled(...bounds()); } });
  svg.addEventListener("pointerup", () => {
    if (from === null) return;
    const [a, b] = bounds();
    from = null; one.drawing = false;
    brushed(key, { low: a === 0 ? null : edges[a - 1], high: b === n ? null : edges[b - 1] });
  });
  svg.addEventListener("pointercancel", () => { from = null; one.drawing = false; });
  const end = (name, value, hint) => make("input", { type: "text", inputMode: "decimal", "aria-label": `${one.column.label} ${name}`, value: value ?? "", placeholder: hint,
    onchange: (event) => {
      const text = event.target.value.trim().replace("−", "-");
      const number = text === "" ? null : Number(text);
      if (Number.isNaN(number)) { $("trouble").textContent = `${event.target.value} is no number`; return; }
      const now = { low: null, high: null, ...(state.brushes[key]?.none ? {} : state.brushes[key]), [name === "from" ? "low" : "high"]: number };
      brushed(key, now.low === null && now.high === null ? null : now);
    } });
  const ends = make("div", { className: "ends" }, end("from", brush?.low, figure(edges[0])), make("span", {}, "≤ … <"), end("below", brush?.high, figure(edges.at(-1))));
  one.plot.replaceChildren(svg, ends);
  if (told.none[0]) one.plot.append(noneButton(key, told.none, { none: true }, Boolean(brush?.none)));
}

function noneButton(key, [all, now], brush, pressed) {
  return make("button", { type: "button", className: "none", "aria-pressed": pressed, onclick: () => brushed(key, pressed ? null : brush) }, `without a value: ${whole(now)} of ${whole(all)}`);
}

function drawWords(one, told) {
  const { key } = told, brush = state.brushes[key] ?? { words: [], none: false };
  const most = Math.max(1, ...told.all);
  const toggled = (word) => {
    const words = brush.words.includes(word) ? brush.words.filter((other) => other !== word) : [...brush.words, word];
    brushed(key, words.length || brush.none ? { words, none: brush.none } : null);
  };
  const bars = told.words.map((word, b) => {
    const [all, now] = [make("i"), make("i")];
    all.style.width = `${100 * told.all[b] / most}%`;
    now.style.width = `${100 * told.shown[b] / most}%`;
    return make("button", { type: "button", className: "word", "aria-pressed": brush.words.includes(word), title: seen(word), onclick: () => toggled(word) },
      all, now, make("span", {}, seen(word) || "(empty)"), make("span", {}, whole(told.shown[b])));
  });
  const others = told.others[0] ? [make("p", { className: "told" }, `others: ${whole(told.others[1])} of ${whole(told.others[0])}`)] : [];
  one.plot.replaceChildren(...bars, ...others);
  if (told.none[0]) {
    const pressed = brush.none;
    const next = pressed && !brush.words.length ? null : { words: brush.words, none: !pressed };
    one.plot.append(make("button", { type: "button", className: "none", "aria-pressed": pressed, onclick: () => brushed(key, next) }, `without a value: ${whole(told.none[1])} of ${whole(told.none[0])}`));
  }
}

// ---- the grid

const geometry = () => {
  const width = Math.max(80, $("grid").clientWidth - 6), tile = state.size + 10;
  const across = Math.max(1, Math.floor(width / (tile + 6)));
  const high = state.size + 10 + (run?.kind === "texts" ? 20 : 16 * 2 + 20);
  const places = Math.min(shown, run?.deepest ?? 0);
  return { across, tile, step: tile + 6, high, places };
};

function lay(fromTop = false) {
  const grid = $("grid"), sheet = $("sheet"), { across, tile, step, high, places } = geometry();
  sheet.style.height = `${Math.ceil(places / across) * (high + 6)}px`;
  if (fromTop) { grid.scrollTop = 0; focused = 0; sheet.replaceChildren(); }
  const first = Math.max(0, Math.floor(grid.scrollTop / (high + 6)) - EDGE) * across;
  const last = Math.min(places, (Math.ceil((grid.scrollTop + grid.clientHeight) / (high + 6)) + EDGE) * across);
  const there = new Map([...sheet.children].map((one) => [Number(one.dataset.place), one]));
  for (const [place, one] of there) if (place < first || place >= last) { one.remove(); there.delete(place); }
  for (let place = first; place < last; place++) {
    const row = rowAt(place);
    let one = there.get(place);
    if (row && (!one || one.dataset.uid !== row.uid)) {
      one?.remove();
      one = tileOf(row, place);
      sheet.append(one);
    }
    if (one) Object.assign(one.style, { left: `${(place % across) * step}px`, top: `${Math.floor(place / across) * (high + 6) + 3}px`, width: `${tile}px`, height: `${high}px` });
  }
  const more = places < shown && last >= places;
  document.body.dataset.end = more;
}

function rowAt(place) {
  const number = Math.floor(place / CHUNK), chunk = chunks.get(number);
  if (chunk === undefined) load(number);
  return chunk?.[place % CHUNK];
}

async function load(number, mine = chunks) {
  mine.set(number, null);
  try {
    // Each chunk is a kind of question of its own: two that are wanted together do not supersede each other.
    const rows = await ask("/api/rows", { ...asked({ start: number * CHUNK, size: CHUNK }), page: `${PAGE}${number % 8}` });
    if (mine !== chunks) return;
    mine.set(number, rows);
    lay();
  } catch (error) {
    if (error instanceof Superseded) mine.delete(number);
    if (mine === chunks) trouble(error);
  }
}

const nearest = (size) => SIZES.find((one) => one >= size * Math.min(2, devicePixelRatio)) ?? SIZES.at(-1);

function picture(row, size) {
  if (row.width === null) return make("p", { className: "cap words", dir: "auto" }, seen(row.text));
  const made = make("img", { alt: "", loading: "lazy", decoding: "async", src: `/picture/${row.uid}?size=${nearest(size)}` });
  if (Math.max(row.width, row.height) <= 96) made.className = "crisp";
  made.addEventListener("error", () => made.replaceWith(make("span", { className: "told" }, "no picture")));
  return made;
}

function truthOf(row) {
  if (row.truth_clean === undefined || row.truth_clean === null) return null;
  if (row.truth_clean) return make("span", { className: "right", title: "the caption is right" }, " ✓");
  return make("span", { className: "wrong", title: "what the caption should be" }, ` ✗ ${seen(row.truth_text ?? "")}`);
}

function tileOf(row, place) {
  const pic = make("div", { className: "pic" }, picture(row, state.size));
  pic.style.height = pic.style.width = `${state.size}px`;
  const caption = row.width === null ? null : make("div", { className: "cap", dir: "auto" }, seen(row.text) || "(no caption)");
  const figures = make("div", { className: "fig" }, `g ${figure(row.g_sum)} ×${figure(row.count)}`, truthOf(row));
  return make("div", {
    className: "tile", role: "option", tabIndex: place === focused ? 0 : -1, title: seen(row.text),
    "aria-label": `${seen(row.text).slice(0, 100)}; g ${figure(row.g_sum)}, count ${figure(row.count)}`,
    "aria-selected": isPicked(row.uid), "data-place": place, "data-uid": row.uid,
    onclick: (event) => (event.shiftKey ? pickTo(place) : pick(row.uid, place)), ondblclick: () => story(row.uid),
  }, pic, caption, figures);
}

function move(place) {
  const { across, high, places } = geometry(), grid = $("grid");
  focused = Math.max(0, Math.min(places - 1, place));
  const top = Math.floor(focused / across) * (high + 6);
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + high > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + high + 6 - grid.clientHeight;
  lay();
  for (const one of $("sheet").children) one.tabIndex = Number(one.dataset.place) === focused ? 0 : -1;
  $("sheet").querySelector(`[data-place="${focused}"]`)?.focus({ preventScroll: true });
}

function gridKeys(event) {
  const { across } = geometry(), at = $("sheet").querySelector(`[data-place="${focused}"]`);
  const to = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: across * 4, PageUp: -across * 4 }[event.key];
  if (to && event.shiftKey) picks.last ??= focused;
  if (to) move(focused + to);
  else if (event.key === "Home") move(0);
  else if (event.key === "End") move(Infinity);
  else if (event.key === " " && at) event.shiftKey ? pickTo(focused) : pick(at.dataset.uid, focused);
  else if (event.key === "Enter" && at) story(at.dataset.uid);
  else if (event.key === "a" && (event.ctrlKey || event.metaKey)) pickAll();
  else return;
  if (to && event.shiftKey) pickTo(focused);
  event.preventDefault();
}

// ---- picks and exports

const isPicked = (uid) => picks.all || picks.uids.has(uid);
const forget = () => { picks.all = false; picks.uids.clear(); picks.last = null; };

function drawPicks() {
  for (const one of $("sheet").children) one.setAttribute("aria-selected", isPicked(one.dataset.uid));
  const number = picks.uids.size;
  $("picked").textContent = picks.all ? `all ${whole(shown)} shown are picked` : number ? `${whole(number)} picked` : "nothing picked: exports take all that is shown";
  $("none").disabled = !(picks.all || number);
}

function pick(uid, place) {
  if (picks.all) forget();
  picks.uids.has(uid) ? picks.uids.delete(uid) : picks.uids.add(uid);
  picks.last = focused = place;
  drawPicks();
}

async function pickTo(place) {
  if (picks.all) return;
  const [from, to] = [Math.min(picks.last ?? place, place), Math.max(picks.last ?? place, place)];
  if (to - from >= MOST_PICKED) return trouble(new Error(`more than ${whole(MOST_PICKED)} cannot be picked one by one: filter, and pick all`));
  const mine = chunks;
  try {
    for (let number = Math.floor(from / CHUNK); number <= Math.floor(to / CHUNK); number++) {
      const rows = mine.get(number) ?? await ask("/api/rows", { ...asked({ start: number * CHUNK, size: CHUNK }), page: `${PAGE}pick` });
      if (mine !== chunks) return;
      rows.forEach((row, i) => { const at = number * CHUNK + i; if (at >= from && at <= to) picks.uids.add(row.uid); });
    }
  } catch (error) { trouble(error); }
  drawPicks();
}

function pickAll() { forget(); picks.all = true; drawPicks(); }

async function carryOff(event) {
  event.preventDefault();
  const button = $("export").querySelector("button"), box = $("exported");
  const picked = !picks.all && picks.uids.size ? [...picks.uids] : null;
  button.disabled = true;
  box.hidden = false;
  box.textContent = "writing …";
  try {
    const body = JSON.stringify({ choice: choice(), picked, format: $("format").value, name: $("name").value });
    const told = await ask("/api/export", {}, { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const lines = told.commands.map((line) => make("pre", {}, line));
    box.replaceChildren(`${whole(told.samples)} samples in ${told.path}. The same again:`, ...lines);
    box.dataset.samples = told.samples;
  } catch (error) {
    box.textContent = error.message;
  }
  button.disabled = false;
}

// ---- a sample's story

async function story(uid) {
  const box = $("story");
  try {
    const told = await ask(`/api/story/${uid}`);
    const value = Object.fromEntries(told.values.map((one) => [one.name, one.value]));
    const row = { ...value, uid, text: told.text };
    const beyond = told.length > told.text.length ? make("p", { className: "told" }, `the first ${whole(told.text.length)} of ${whole(told.length)} characters`) : null;
    const table = make("table", {}, ...told.values.map((one) => make("tr", { title: one.doc }, make("th", {}, seen(one.name)), make("td", { dir: "auto" }, figure(one.value)))));
    const alike = told.alike.map((other) => {
      const tile = make("button", { type: "button", "aria-label": `another of this caption, ${other.uid}`, onclick: () => story(other.uid) }, picture(other, 64), `×${figure(other.count)}`);
      tile.querySelector("img")?.setAttribute("width", 64);
      return tile;
    });
    box.replaceChildren(
      make("button", { type: "button", className: "close", onclick: () => box.close() }, "Close"),
      make("div", { className: "top" },
        make("div", {}, row.width === null ? "" : picture(row, 512)),
        make("div", {}, make("p", { className: "text", dir: "auto" }, seen(told.text) || "(no caption)"), beyond, truthOf(row), make("p", {}, make("code", {}, uid)), paths(told.rounds))),
      ...(alike.length ? [make("h2", {}, "The same caption"), make("div", { className: "alike" }, ...alike)] : []),
      make("h2", {}, "All that is known"), table);
    if (!box.open) box.showModal();
    box.scrollTop = 0;
  } catch (error) { trouble(error); }
}

function paths(rounds) {
  const wide = 420, high = 96, step = wide / Math.max(1, rounds.length);
  const svg = shape("svg", { class: "paths", viewBox: `0 -8 ${wide} ${high + 24}`, role: "img", "aria-label": rounds.map((r) => `round ${r.round}: g ${figure(r.g)}, count ${figure(r.count)}`).join("; ") });
  const most = Math.max(...rounds.map((r) => Math.abs(r.g ?? 0) + (r.g_error ?? 0)), 1e-300), copies = Math.max(1, ...rounds.map((r) => r.count ?? 0));
  const y = (g) => high / 2 - (g / most) * (high / 2 - 4), x = (i) => (i + 0.5) * step;
  const write = (words, at, down, anchor = "middle") => { const text = shape("text", { x: at, y: down, "text-anchor": anchor }); text.textContent = words; svg.append(text); };
  rounds.forEach((r, i) => {
    const tall = (high - 4) * (r.count ?? 0) / copies;
    svg.append(shape("rect", { class: "bar", x: x(i) - step * 0.36, width: step * 0.72, y: high - tall, height: tall }));
    write(`${r.round}: ×${r.count ?? "–"}`, x(i), high + 13);
  });
  svg.append(shape("line", { class: "zero", x1: 0, x2: wide, y1: y(0), y2: y(0) }));
  const known = rounds.map((r, i) => [r, i]).filter(([r]) => r.g !== null);
  svg.append(shape("polyline", { class: "g", points: known.map(([r, i]) => `${x(i)},${y(r.g)}`).join(" ") }));
  for (const [r, i] of known) {
    if (r.g_error) svg.append(shape("line", { class: "spread", x1: x(i), x2: x(i), y1: y(r.g - r.g_error), y2: y(r.g + r.g_error) }));
    svg.append(shape("circle", { cx: x(i), cy: y(r.g), r: 3.2 }));
  }
  write(`line: g, |g| at most ${figure(most)}; bars: count`, 0, 2, "start");
  return svg;
}

// ---- two rounds side by side

const MOVES = { entered: "a.count = 0 AND b.count > 0", left: "a.count > 0 AND b.count = 0",
  raised: "a.count > 0 AND b.count > a.count", lowered: "b.count > 0 AND b.count < a.count", same: "a.count = b.count" };

async function drawMoves() {
  const [a, b] = [$("from").value, $("to").value];
  if (a === "" || !$("moves-box").open) return;
  try {
    const told = await ask("/api/moves", { a, b });
    $("moves").replaceChildren(...Object.entries(MOVES).map(([name, holds]) => make("button", { type: "button", onclick: () => {
      state.where = $("where").value = `uid IN (SELECT a.uid FROM counts AS a JOIN counts AS b USING (uid) WHERE a.round = ${a} AND b.round = ${b} AND ${holds})`;
      refresh();
    } }, make("span", {}, name), make("b", {}, whole(told[name])))));
  } catch (error) { trouble(error); }
}

// ---- completion of the filter line

let offered = [], chosen = 0;
const word = () => $("where").value.slice(0, $("where").selectionStart).match(/"?([\p{L}_][\p{L}\p{N}_]*)$/u);
const written = (label) => (/^[a-z_][a-z0-9_]*$/.test(label) && label !== "copy" ? label : `"${label.replaceAll('"', '""')}"`);

function complete() {
  const typed = word()?.[1].toLowerCase() ?? "";
  const own = [...columns.values()].filter((one) => one.key.startsWith("o:"));
  offered = typed.length < 1 ? [] : own.filter((one) => one.label.toLowerCase().includes(typed) && one.label.toLowerCase() !== typed)
    .sort((a, b) => Number(b.label.toLowerCase().startsWith(typed)) - Number(a.label.toLowerCase().startsWith(typed))).slice(0, 12);
  chosen = 0;
  drawOffered();
}

function drawOffered() {
  const box = $("completions");
  box.hidden = !offered.length;
  $("where").setAttribute("aria-expanded", String(!box.hidden));
  $("where").setAttribute("aria-activedescendant", offered.length ? `offer-${chosen}` : "");
  box.replaceChildren(...offered.map((one, i) => make("li", { id: `offer-${i}`, role: "option", "aria-selected": i === chosen,
    onmousedown: (event) => { event.preventDefault(); accept(i); } }, make("code", {}, seen(one.label)), make("span", { className: "told" }, `${one.type} · ${seen(one.doc)}`))));
}

function accept(i) {
  const line = $("where"), at = line.selectionStart, start = at - (word()?.[0].length ?? 0), name = written(offered[i].label);
  line.value = line.value.slice(0, start) + name + line.value.slice(at);
  line.setSelectionRange(start + name.length, start + name.length);
  offered = [];
  drawOffered();
}

function lineKeys(event) {
  if (!offered.length) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") chosen = (chosen + (event.key === "ArrowDown" ? 1 : offered.length - 1)) % offered.length;
  else if (event.key === "Tab" && !event.shiftKey) { accept(chosen); event.preventDefault(); return; }
  else if (event.key === "Escape") offered = [];
  else return;
  event.preventDefault();
  drawOffered();
}

// ---- beginning

function fill() {
  $("where").value = state.where;
  $("search").value = state.search;
  $("descending").checked = state.descending;
  $("size").value = state.size;
  const options = [["uid", "uid"], ["random", "random"], ...[...columns.values()].filter((one) => one.kind !== "other").map((one) => [one.key, one.label])];
  $("order").replaceChildren(...options.map(([value, label]) => make("option", { value }, seen(label))));
  $("order").value = state.order;
}

function listen() {
  $("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    offered = [];
    drawOffered();
    state.where = $("where").value;
    state.search = $("search").value;
    refresh();
  });
  $("clear").addEventListener("click", () => { Object.assign(state, { where: "", search: "", brushes: {} }); fill(); refresh(); });
  $("where").addEventListener("input", complete);
  $("where").addEventListener("keydown", lineKeys);
  $("where").addEventListener("blur", () => { offered = []; drawOffered(); });
  $("order").addEventListener("change", () => { state.order = $("order").value; refresh({ order: true }); });
  $("descending").addEventListener("change", () => { state.descending = $("descending").checked; refresh({ order: true }); });
  $("shuffle").addEventListener("click", () => { state.order = $("order").value = "random"; state.seed = Math.floor(Math.random() * 1e9); refresh({ order: true }); });
  $("size").addEventListener("input", () => { state.size = Number($("size").value); remember(); $("sheet").replaceChildren(); lay(); });
  $("add").addEventListener("change", () => {
    const key = $("add").value;
    if (key) { state.charts.push(key); layCharts(); remember(); chart(key, turn); }
  });
  $("renew").addEventListener("click", renew);
  $("all").addEventListener("click", pickAll);
  $("none").addEventListener("click", () => { forget(); drawPicks(); });
  $("export").addEventListener("submit", carryOff);
  $("grid").addEventListener("scroll", () => requestAnimationFrame(() => lay()));
  $("grid").addEventListener("keydown", gridKeys);
  $("grid").addEventListener("focus", () => move(focused));
  $("sheet").addEventListener("focusin", (event) => { const tile = event.target.closest(".tile"); if (tile) focused = Number(tile.dataset.place); });
  for (const id of ["from", "to"]) $(id).addEventListener("change", drawMoves);
  $("moves-box").addEventListener("toggle", drawMoves);
  new ResizeObserver(() => lay()).observe($("grid"));
  addEventListener("hashchange", () => { recall(); fill(); layCharts(); refresh(); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName)) { $("where").focus(); event.preventDefault(); }
  });
}

async function begin() {
  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token is in a cookie now
  try {
    know(await ask("/api/run"));
    recall();
    fill();
    layCharts();
    listen();
    await refresh();
    setInterval(follow, 15000);
  } catch (error) { trouble(error); }
}

function know(told) {
  run = told;
  columns.clear();
  for (const one of run.columns) columns.set(one.key, one);
  $("run").textContent = run.run;
  document.title = `${run.run} · mgd explore`;
  const rounds = [...columns.values()].filter((one) => one.key.startsWith("count:")).map((one) => one.key.slice(6));
  for (const [id, at] of [["from", 0], ["to", -1]]) {
    $(id).replaceChildren(...rounds.map((round) => make("option", { value: round }, `round ${round}`)));
    if (rounds.length) $(id).value = rounds.at(at);
  }
  $("moves-box").hidden = rounds.length < 2;
}

async function follow() {
  try { $("newer").hidden = !(await ask("/api/run")).stale; } catch { /* what is asked next tells */ }
}

async function renew() {
  try {
    know(await ask("/api/renew"));
    $("newer").hidden = true;
    fill();
    layCharts();
    await refresh();
  } catch (error) { trouble(error); }
}

begin();
