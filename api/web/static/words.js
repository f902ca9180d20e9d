// Figures and moments as people read them, the same as the server's `words.py`; and parts of pages.

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** @param {number} seconds positive: in the past */
export function ago(seconds) {
  const length = Math.abs(seconds);
  if (length < 1) return "now";
  const words =
    length >= 86400 ? `${Math.floor(length / 86400)} d`
    : length >= 3600 ? `${Math.floor(length / 3600)} h`
    : length >= 60 ? `${Math.floor(length / 60)} min`
    : `${Math.floor(length)} s`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

/** @param {number | null | undefined} ratio */
export function percent(ratio) {
  if (ratio === null || ratio === undefined) return "–";
  return ratio >= 1 ? "100 %" : `${Math.min(99, Math.floor(100 * ratio))} %`;
}

/** Four digits at most. @param {number | null | undefined} value */
export function figure(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  return String(Number(value.toPrecision(digits)));
}

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** @param {number | null | undefined} count */
export function size(count) {
  if (count === null || count === undefined) return "–";
  let step = 0;
  while (count >= 999.5 && step < UNITS.length - 1) {
    count /= 1000;
    step += 1;
  }
  return `${count.toFixed(step === 0 || count >= 99.5 ? 0 : 1)} ${UNITS[step]}`;
}

/** Make an element. Text is only ever set as text: nothing of a job's can become markup. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an element of a drawing. */
export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function icon(name) {
  return draw("svg", { class: "icon", "aria-hidden": "true" }, draw("use", { href: `/web/icons.svg#${name}` }));
}

export function stateMark(name) {
  return make("span", { class: `state state-${name}` }, icon(name), name);
}

/** What a job does now, as one line. */
export function doing(progress, stage, layers) {
  const parts = [];
  if (progress.layer !== null && progress.layer !== undefined) {
    parts.push(`layer ${progress.layer}${layers ? ` of ${layers}` : ""}`);
  } else if (progress.units_total) {
    parts.push(`unit ${progress.units_done} of ${progress.units_total}`);
  }
  if (stage) parts.push(stage);
  if (progress.expert) parts.push(progress.expert);
  if (progress.steps) parts.push(`step ${progress.step} of ${progress.steps}`);
  return parts.join(" · ");
}

/** Get JSON with the page's session. Leads to signing in once the session is over. */
export async function getJson(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail ?? answer.statusText), { problem: body });
  return body;
}
