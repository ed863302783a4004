"use strict";
// What all explorers share: elements, knobs, one kind of plot, draggable points, theme.
// An explorer is data (defaults, knobs, presets) and two functions: compute(state), which
// is pure and returns plain numbers, and draw(state, result), which shows them.

// Elements ------------------------------------------------------------------------------

const find = (id) => document.getElementById(id);
const html = (tag, attributes, ...children) =>
  dress(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function dress(node, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A number as text, with a true minus and without a negative zero.
function text(value, digits = 3) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "–";
  return (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−");
}
const whole = (value) => String(value + 0).replace("-", "−");
const significant = (value) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))).replace("-", "−")
    : value.toExponential(1).replace("e+", "e").replaceAll("-", "−");
};

const powerOfTen = (value) => {
  const digits = String(Math.round(Math.log10(value))).replace("-", "⁻");
  return digits === "0" ? "1" : "10" + digits.replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
};

// Rows of texts; the first row and the first column are headings.
function table(target, rows) {
  const [head, ...body] = rows;
  const cells = (row, kind) => row.map((cell, at) =>
    kind === "th" ? html("th", { scope: "col" }, cell)
      : at === 0 ? html("th", { scope: "row" }, cell) : html("td", {}, cell));
  target.replaceChildren(
    html("thead", {}, html("tr", {}, ...cells(head, "th"))),
    html("tbody", {}, ...body.map((row) => html("tr", {}, ...cells(row, "td")))));
}

// Arithmetic ----------------------------------------------------------------------------

const range = (n) => Array.from({ length: n }, (_, at) => at);
const sum = (values) => values.reduce((total, value) => total + value, 0);

// |X[f]|^2 of the discrete Fourier transform of real values, f = 0 ... n / 2.
function power(values) {
  const n = values.length;
  return range(Math.floor(n / 2) + 1).map((f) => {
    let re = 0, im = 0;
    for (let t = 0; t < n; t++) {
      const angle = (2 * Math.PI * ((f * t) % n)) / n;  // the remainder keeps it accurate
      re += values[t] * Math.cos(angle);
      im -= values[t] * Math.sin(angle);
    }
    return re * re + im * im;
  });
}

// Eigenvalues and eigenvectors (columns) of a symmetric matrix: Jacobi's rotations, each
// of which makes one entry off the diagonal zero.
function eigen(matrix) {
  const n = matrix.length, a = matrix.map((row) => [...row]);
  const v = range(n).map((i) => range(n).map((j) => Number(i === j)));
  const rotate = (m, i, j, k, l, s, tau) => {
    const [g, h] = [m[i][j], m[k][l]];
    m[i][j] = g - s * (h + g * tau);
    m[k][l] = h + s * (g - h * tau);
  };
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += a[p][q] ** 2;
    if (off < 1e-300) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
      if (a[p][q] === 0) continue;
      const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
      const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.hypot(theta, 1));
      const c = 1 / Math.hypot(t, 1), s = t * c, tau = s / (1 + c), h = t * a[p][q];
      a[p][p] -= h;
      a[q][q] += h;
      a[p][q] = 0;
      for (let j = 0; j < p; j++) rotate(a, j, p, j, q, s, tau);
      for (let j = p + 1; j < q; j++) rotate(a, p, j, j, q, s, tau);
      for (let j = q + 1; j < n; j++) rotate(a, p, j, q, j, s, tau);
      for (let j = 0; j < n; j++) rotate(v, j, p, j, q, s, tau);
    }
  }
  return { values: range(n).map((i) => a[i][i]), vectors: v };
}

// Knobs ---------------------------------------------------------------------------------
// A knob is a row of data: key of the state, label, symbol, and either min, max, step for a
// slider, values for a slider over a list, or options [[value, text], ...] for a choice.
// show(value) is its text, when(state) says whether it has an effect.

function addKnob(parent, row, state, changed) {
  const name = row.symbol ? [row.label + " ", html("var", {}, row.symbol)] : [row.label];
  const shown = html("b", { "aria-hidden": "true" });
  const input = row.options ? html("select") : html("input", { type: "range" });
  input.id = `knob-${row.key}`;
  if (row.options) {
    input.append(...row.options.map(([value, label]) => html("option", { value }, label)));
  } else if (row.values) {
    dress(input, { min: 0, max: row.values.length - 1, step: 1 });
  } else {
    dress(input, { min: row.min, max: row.max, step: row.step ?? 1 });
  }
  input.addEventListener("input", () => {
    const value = row.options ? input.value
      : row.values ? row.values[Number(input.value)] : Number(input.value);
    changed({ [row.key]: value });
  });
  const box = html("div", { class: "knob" },
    html("label", { for: input.id }, ...name), ...(row.options ? [] : [shown]), input);
  parent.append(box);
  return () => {
    const value = state[row.key], on = row.when ? row.when(state) : true;
    input.value = row.values ? row.values.indexOf(value) : value;
    input.disabled = !on;
    box.classList.toggle("off", !on);
    shown.textContent = on ? (row.show ?? whole)(value) : "–";
    if (!row.options) input.setAttribute("aria-valuetext", shown.textContent);
  };
}

// Start an explorer: knobs into #knobs, presets into #presets, then draw at every change.
function run({ defaults, compute, draw, knobs = [], presets = [], extra = () => {} }) {
  const state = structuredClone(defaults);
  const refresh = () => {
    syncs.forEach((sync) => sync());
    draw(state, compute(state));
    fit();
  };
  const set = (changes) => {
    Object.assign(state, structuredClone(changes));
    refresh();
  };
  const syncs = knobs.map((row) => addKnob(find("knobs"), row, state, set));
  const button = (label, changes) => {
    const node = html("button", { type: "button" }, label);
    node.addEventListener("click", () => set(changes));
    find("presets").append(node);
  };
  presets.forEach(([label, changes]) => button(label, changes));
  button("Reset", defaults);
  window.explorer = { defaults, compute, state, set };
  extra(state, set);
  let width = 0;
  new ResizeObserver(() => {
    if (width !== document.body.clientWidth) {
      width = document.body.clientWidth;
      refresh();
    }
  }).observe(document.body);
  refresh();
}

// Plots ---------------------------------------------------------------------------------

const nice = (low, high, most) => {
  const rough = (high - low) / most || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - first + 1).map((at) => (first + at) * step);
};

// Draw {label, xlabel, ylabel, x: [low, high], y: [low, high], log, counts, series, marks}
// into a <figure>; log: a logarithmic y, counts: a y of whole numbers. A series is {name, kind: "line" | "bars" | "dots", x, y, tone}, a mark a
// vertical line {x, name}.
function plot(target, { label, xlabel, ylabel, x, y, log, counts, series, marks = [] }) {
  const width = Math.max(200, target.clientWidth), height = 200;
  const named = series.filter((row) => row.name);  // the legend needs a line of its own
  const left = 52, right = width - 14, low = height - 38, top = named.length ? 40 : 22;
  const up = log ? Math.log10 : (value) => value;
  const px = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
  const py = (value) => {
    const at = (up(log ? Math.max(value, 1e-300) : value) - up(y[0])) / (up(y[1]) - up(y[0]));
    return low - at * (low - top);
  };
  const parts = [];
  const ticks = log
    ? nice(up(y[0]), up(y[1]), 4).filter(Number.isInteger).map((e) => 10 ** e)
    : nice(y[0], y[1], 4).filter((value) => !counts || Number.isInteger(value));
  for (const value of ticks) {
    parts.push(svg("path", { class: "grid", d: `M${left} ${py(value)}H${right}` }),
      svg("text", { x: left - 5, y: py(value) + 4, "text-anchor": "end" }, log ? powerOfTen(value) : significant(value)));
  }
  for (const value of nice(x[0], x[1], width / 70)) {
    parts.push(svg("path", { class: "axis", d: `M${px(value)} ${low}v4` }),
      svg("text", { x: px(value), y: low + 17, "text-anchor": "middle" }, significant(value)));
  }
  parts.push(svg("path", { class: "axis", d: `M${left} ${top}V${low}H${right}` }),
    svg("text", { x: right, y: height - 4, "text-anchor": "end", class: "faint" }, xlabel),
    svg("text", { x: 0, y: 12, class: "faint" }, ylabel));
  // a frame of its own cuts off what lies beyond the axes
  const box = [left - 5, top - 5, right - left + 10, low - top + 7];
  parts.push(svg("svg", { x: box[0], y: box[1], width: box[2], height: box[3], viewBox: box.join(" ") },
    ...series.flatMap((row) => curve(row, px, py, (right - left) / (x[1] - x[0])))));
  for (const { x: at, name } of marks) {
    if (at < x[0] || at > x[1]) continue;
    const end = px(at) > (left + right) / 2;
    parts.push(svg("path", { class: "line green", d: `M${px(at)} ${top}V${low}` }),
      svg("text", { x: px(at) + (end ? -4 : 4), y: top + 11, class: "mark", "text-anchor": end ? "end" : "start" }, name));
  }
  let place = left;
  for (const { name, tone = "blue" } of named) {
    parts.push(svg("path", { class: `line ${tone}`, d: `M${place} 26h20` }),
      svg("text", { x: place + 25, y: 30 }, name));
    place += 40 + 6.6 * name.length;
  }
  target.querySelector("svg")?.remove();
  target.prepend(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`,
    role: "img", "aria-label": label }, ...parts));
}

function curve({ kind, x, y, tone = "blue", hot = [] }, px, py, unit) {
  if (kind === "line") {
    const d = x.map((at, i) => `${i ? "L" : "M"}${px(at).toFixed(1)} ${py(y[i]).toFixed(1)}`);
    return [svg("path", { class: `line ${tone}`, d: d.join("") })];
  }
  if (kind === "dots") {
    return x.map((at, i) => svg("circle", { class: "dot", cx: px(at), cy: py(y[i]), r: 3.5 }));
  }
  const wide = Math.max(1, Math.min(22, 0.7 * unit));
  return x.map((at, i) => svg("rect", { class: hot[i] ? "bar hot" : "bar",
    x: px(at) - wide / 2, y: Math.min(py(0), py(y[i])), width: wide,
    height: Math.max(0.01, Math.abs(py(y[i]) - py(0))) }));
}

// A point to drag, or to move with the arrow keys (Shift: ten steps). drag(x, y) gets the
// place in the pixels of the svg, nudge(dx, dy) the steps, y upwards.
function handle(layer, name, { drag, nudge }) {
  const node = svg("g", { class: "handle", tabindex: 0, role: "slider", "aria-label": name },
    svg("circle", { class: "hit", r: 15 }), svg("circle", { class: "knot", r: 8 }));
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  node.addEventListener("keydown", (event) => {
    const arrow = arrows[event.key];
    if (!arrow) return;
    event.preventDefault();
    nudge(...arrow.map((step) => step * (event.shiftKey ? 10 : 1)));
  });
  const follow = (event) => {
    const box = layer.ownerSVGElement.getBoundingClientRect();
    drag(event.clientX - box.left, event.clientY - box.top);
  };
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    node.focus();
    event.preventDefault();
  });
  node.addEventListener("pointermove", (event) => {
    if (node.hasPointerCapture(event.pointerId)) follow(event);
  });
  layer.append(node);
  return node;
}

// The page around -----------------------------------------------------------------------

// In a frame, be as tall as the content; elsewhere, or from another site, do nothing.
function fit() {
  try {
    const frame = window.frameElement;
    if (frame) frame.style.height = `${Math.ceil(document.body.getBoundingClientRect().height) + 2}px`;
  } catch { /* the page around is of another origin */ }
}

// Light or dark as the page around says: the book, JupyterLab, Colab, VS Code.
function pageTheme(page) {
  const { documentElement: root, body } = page;
  if (["light", "dark"].includes(root.dataset.theme)) return root.dataset.theme;
  if (body?.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
  if (["light", "dark"].includes(root.getAttribute("theme"))) return root.getAttribute("theme");
  if (body?.classList.contains("vscode-dark")) return "dark";
  if (body?.classList.contains("vscode-light")) return "light";
  return "";
}

try {
  const page = window.parent.document;
  if (window.parent !== window) {
    const take = () => { document.documentElement.dataset.theme = pageTheme(page); };
    for (const node of [page.documentElement, page.body]) {
      new MutationObserver(take).observe(node, { attributes: true });
    }
    take();
  }
} catch { /* the page around is of another origin: the system's setting decides */ }
new ResizeObserver(fit).observe(document.body);
