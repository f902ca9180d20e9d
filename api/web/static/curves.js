// Curves of a job: alignment while anchors are constructed, loss while layers are adapted.
// Drawn as SVG, so that colours follow the page and a table says the same in figures.
import { draw, figure, getJson, make } from "./words.js";

const WIDTH = 760;
const HEIGHT = 250;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 34;

/** Steps and values of every curve at the same places, as a band and a mean. */
export function summary(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const rows = [];
  for (const step of steps) {
    const values = curves.map((curve) => valueAt(curve, step)).filter((value) => value !== null);
    if (values.length) {
      const total = values.reduce((sum, value) => sum + value, 0);
      rows.push({ step, least: Math.min(...values), most: Math.max(...values), mean: total / values.length });
    }
  }
  return rows;
}

/** The value at a step, between its neighbours on a line; null outside the curve. */
export function valueAt(curve, step) {
  const { steps, values } = curve;
  if (!steps.length || step < steps[0] || step > steps[steps.length - 1]) return null;
  let low = 0;
  let high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  if (steps[high] === steps[low]) return values[low];
  const share = (step - steps[low]) / (steps[high] - steps[low]);
  return values[low] + share * (values[high] - values[low]);
}

/** Round numbers on an axis, as far apart as `finest` at least: there is no step 1.5. */
export function ticks(least, most, count = 6, finest = 0) {
  if (!(most > least)) return [least];
  const raw = Math.max((most - least) / count, finest);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const found = [];
  for (let n = Math.ceil(least / step); n * step <= most + step / 1e6; n += 1) found.push(n * step);
  return found;
}

function chart(curves, chosen, quantity, logarithmic) {
  const rows = summary(curves);
  const usable = (value) => !logarithmic || value > 0;
  const scaled = (value) => (logarithmic ? Math.log10(value) : value);
  const values = rows.flatMap((row) => [row.least, row.most]).filter(usable).map(scaled);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const pad = (most - least || Math.abs(most) || 1) * 0.04;
  const [bottom, top] = [least - pad, most + pad];
  const end = rows[rows.length - 1].step;
  const begin = rows[0].step;
  const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * (step - begin)) / (end - begin || 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (scaled(value) - bottom) / (top - bottom));
  const point = (step, value) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`;
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const levels = logarithmic ? ticks(bottom, top).map((power) => 10 ** power) : ticks(bottom, top);
  for (const level of levels) {
    svg.append(draw("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level) }));
    svg.append(draw("text", { x: LEFT - 6, y: y(level) + 4, "text-anchor": "end" }, figure(level, 3)));
  }
  for (const step of ticks(begin, end, 6, 1)) {
    svg.append(draw("text", { x: x(step), y: HEIGHT - 16, "text-anchor": "middle" }, String(step)));
  }
  svg.append(draw("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 2, "text-anchor": "middle" }, "step"));
  if (curves.length > 1) {
    const shown = rows.filter((row) => usable(row.least));
    const over = shown.map((row) => point(row.step, row.most));
    const under = shown.map((row) => point(row.step, row.least)).reverse();
    svg.append(draw("path", { class: "band", d: `M${[...over, ...under].join("L")}Z` }));
    svg.append(draw("path", { class: "mean", d: `M${shown.map((row) => point(row.step, row.mean)).join("L")}` }));
  }
  if (chosen) {
    const points = chosen.steps.map((step, n) => [step, chosen.values[n]]).filter(([, value]) => usable(value));
    if (points.length === 1) svg.append(draw("circle", { class: "dot", cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
    svg.append(draw("path", { class: "line", d: `M${points.map(([step, value]) => point(step, value)).join("L")}` }));
  }
  const final = rows[rows.length - 1];
  svg.append(draw("title", {}, `${quantity} over steps: mean from ${figure(rows[0].mean)} to ${figure(final.mean)}, between ${figure(final.least)} and ${figure(final.most)} at the end`));
  return hovered(svg, rows, chosen, x, begin, end);
}

// Under the pointer: a hair line, and the values there in words below the chart.
function hovered(svg, rows, chosen, x, begin, end) {
  const readout = make("p", { class: "fine", "aria-hidden": "true" }, "Point at the chart for values.");
  const hair = draw("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(hair);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const wanted = begin + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (end - begin);
    const near = rows.reduce((best, row) => (Math.abs(row.step - wanted) < Math.abs(best.step - wanted) ? row : best));
    for (const name of ["x1", "x2"]) hair.setAttribute(name, x(near.step));
    hair.setAttribute("visibility", "visible");
    const own = chosen && valueAt(chosen, near.step);
    readout.textContent = `step ${near.step}: ${own === null || own === undefined ? "" : `this one ${figure(own)}, `}mean ${figure(near.mean)}, from ${figure(near.least)} to ${figure(near.most)}`;
  });
  svg.addEventListener("pointerleave", () => hair.setAttribute("visibility", "hidden"));
  return [svg, readout];
}

function legend(one) {
  const line = (kind) => draw("svg", { viewBox: "0 0 26 11", "aria-hidden": "true" }, draw(kind === "band" ? "rect" : "path", kind === "band" ? { class: "band", width: 26, height: 11 } : { class: kind, d: "M0 6h26" }));
  const wrap = (kind, words) => {
    const drawing = line(kind);
    drawing.classList.add("chart");
    return make("span", {}, drawing, words);
  };
  return make("div", { class: "key" }, wrap("line", one), wrap("mean", "mean of all"), wrap("band", "from lowest to highest"));
}

function select(label, options, value, change) {
  const box = make("select", { "aria-label": label });
  for (const [key, words] of options) box.append(make("option", { value: key }, words));
  box.value = value;
  box.addEventListener("change", () => change(box.value));
  return make("label", { class: "inline" }, `${label} `, box);
}

function table(head, rows) {
  const header = make("tr", {}, ...head.map((words, n) => make("th", n > 1 ? { scope: "col", class: "number" } : { scope: "col" }, words)));
  const body = rows.map((row) => make("tr", {}, ...row.map((value, n) => make("td", n > 1 ? { class: "number" } : {}, value))));
  return make("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Figures of the curves" },
    make("table", {}, make("thead", {}, header), make("tbody", {}, ...body)));
}

function figureOf(kind, title, items, curveOf, names, state, again) {
  const chosen = items.find((item) => names(item) === state[kind]) ?? items[0];
  const box = make("figure", {}, make("figcaption", {}, title));
  const controls = make("div", { class: "row" });
  controls.append(select(kind === "construct" ? "Layer and expert" : "Layer", items.map((item) => [names(item), names(item)]), names(chosen), (value) => {
    state[kind] = value;
    again();
  }));
  if (kind === "adapt") {
    controls.append(select("Scale", [["linear", "linear"], ["log", "logarithmic"]], state.scale, (value) => {
      state.scale = value;
      again();
    }));
  }
  box.append(controls, legend(names(chosen)));
  box.append(...chart(items.map(curveOf), curveOf(chosen), title, kind === "adapt" && state.scale === "log"));
  return box;
}

function render(area, found, state) {
  const again = () => render(area, found, state);
  const open = area.querySelector("details")?.open ?? false;
  const construction = found.construction.filter((item) => item.alignment.steps.length);
  const adaptation = found.adaptation.filter((item) => item.loss.steps.length);
  area.replaceChildren();
  if (construction.length) {
    area.append(figureOf("construct", "Alignment while anchors are constructed (1 is perfect)", construction, (item) => item.alignment, (item) => `layer ${item.layer}, ${item.expert}`, state, again));
  }
  if (adaptation.length) {
    area.append(figureOf("adapt", "Loss while layers are adapted", adaptation, (item) => item.loss, (item) => `layer ${item.layer}`, state, again));
  }
  if (!construction.length && !adaptation.length) {
    area.append(make("p", { class: "faint" }, found.source === "output" ? `${found.method} has no optimiser, so there are no curves.` : "No unit with a curve is done yet; curves appear as units end."));
    return;
  }
  const rows = [
    ...construction.map((item) => ["construct", `layer ${item.layer}, ${item.expert}`, String(item.steps_run), figure(item.alignment_start), figure(item.alignment_best)]),
    ...adaptation.map((item) => ["adapt", `layer ${item.layer}`, String(item.epochs), figure(item.loss.values[0]), figure(item.loss.values[item.loss.values.length - 1])]),
  ];
  const details = make("details", {}, make("summary", {}, "As a table"), table(["Stage", "Of", "Steps", "Start", "End or best"], rows));
  details.open = open;
  area.append(details);
}

/** Show a job's curves and return what asks for them again, at most every five seconds. */
export function showCurves(area, id) {
  const state = { construct: null, adapt: null, scale: "linear" };
  let due = null;
  async function load() {
    due = null;
    try {
      const found = await getJson(`/v1/jobs/${id}/metrics?points=200`);
      if (!area.contains(document.activeElement) || document.activeElement === document.body) render(area, found, state);
      else due = setTimeout(load, 5000);
    } catch (problem) {
      const told = problem.problem;
      area.replaceChildren(make("div", { class: "problem" }, make("h3", {}, problem.message), make("p", {}, told?.hint ?? "Reload the page."), make("p", { class: "fine" }, "Code ", make("code", {}, told?.code ?? "network"))));
    }
  }
  area.replaceChildren(make("p", { class: "faint" }, "Reads what the job's finished units measured…"));
  load();
  return () => (due ??= setTimeout(load, 5000));
}
