// A job's page while it runs: one stream of events, the log beside it, and the curves.
import { duration, doing, getJson, icon, make, percent, stateMark } from "./words.js";
import { showCurves } from "./curves.js";

const OVER = new Set(["succeeded", "failed", "cancelled", "expired"]);
const MOST_EVENTS = 200;
const page = document.getElementById("job");
const id = page.dataset.job;
const at = (name) => document.getElementById(name);
let last = Number(page.dataset.last);
let over = page.dataset.over === "yes";
let stage = null;
let source = null;
let saidAt = 0;

function cells(unit) {
  return page.querySelectorAll(`.unit[data-unit="${CSS.escape(unit)}"]`);
}

function showUnit(unit, state, value) {
  for (const cell of cells(unit)) {
    if (state) {
      cell.className = `unit unit-${state}`;
      cell.querySelector("svg").replaceWith(icon(`unit-${state}`));
      cell.querySelector(".word").textContent = state;
    }
    if (value !== null && value !== undefined) cell.querySelector(".value").textContent = value.toPrecision(3);
  }
}

function showProgress(progress) {
  page.querySelector(".headline progress").value = progress.ratio;
  at("ratio").textContent = percent(progress.ratio);
  at("doing").textContent = doing(progress, stage, page.dataset.layers);
  at("left").textContent =
    progress.seconds_left === null || progress.seconds_left === undefined
      ? ""
      : ` · about ${duration(progress.seconds_left)} left, by ${progress.reckoned_by}`;
  at("waits").hidden = true;
  if (Date.now() - saidAt > 10_000) {
    saidAt = Date.now();
    at("said").textContent = `${percent(progress.ratio)} done. ${at("doing").textContent}`;
  }
}

function addEvent(event) {
  const time = new Date(event.at);
  const data = event.data;
  const about = event.type === "progress" ? percent(data.ratio) : `${data.unit ?? ""} ${data.state ?? ""} ${data.reason ?? ""}`;
  const rows = at("events");
  rows.prepend(
    make("tr", {},
      make("td", { class: "number" }, String(event.id)),
      make("td", {}, make("time", { datetime: event.at, title: time.toLocaleString(), class: "clock" }, time.toISOString().slice(11, 19))),
      make("td", {}, event.type),
      make("td", {}, about.trim()),
    ),
  );
  while (rows.children.length > MOST_EVENTS) rows.lastElementChild.remove();
}

// What an event does not say, the list of units does; asked for at most every two seconds.
let unitsDue = null;
function unitsSoon() {
  unitsDue ??= setTimeout(async () => {
    unitsDue = null;
    let cursor = null;
    do {
      const found = await getJson(`/v1/jobs/${id}/units?limit=100${cursor ? `&cursor=${cursor}` : ""}`);
      for (const unit of found.data) showUnit(unit.id, unit.state, unit.alignment ?? unit.loss);
      cursor = found.next_cursor;
    } while (cursor);
  }, 2000);
}

const curvesSoon = showCurves(at("curve-area"), id);

function take(event) {
  last = event.id;
  addEvent(event);
  const data = event.data;
  if (event.type === "job.state") {
    // A page that began before the plan has no table, and one that is over shows other parts.
    if (OVER.has(data.state) || data.state === "running" || data.state === "queued") location.reload();
    at("state").replaceChildren(stateMark(data.state));
    at("said").textContent = `The job is ${data.state}.`;
    if (data.state === "cancelling") {
      at("waits").hidden = false;
      at("waits").textContent = "Waits for its workers to stop.";
      at("cancel")?.remove();
    }
    if (data.state === "publishing") stage = "publish";
  } else if (event.type === "unit.state") {
    if (data.state === "running") stage = data.kind;
    showUnit(data.unit, data.state, null);
    if (data.state === "done") {
      unitsSoon();
      curvesSoon();
    }
  } else if (event.type === "progress") {
    showProgress(data);
    unitsSoon();
  }
}

function listen() {
  if (over || source || document.hidden) return;
  source = new EventSource(`/v1/jobs/${id}/events?after=${last}`);
  for (const type of ["job.state", "unit.state", "progress", "warning"]) {
    source.addEventListener(type, (message) => take(JSON.parse(message.data)));
  }
}

// A hidden page keeps no connection: a browser has six for a host.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else listen();
});
addEventListener("pagehide", () => source?.close());

const lines = at("lines");
const rank = { debug: 0, info: 1, warning: 2, error: 3 };

function narrow() {
  const least = rank[at("level").value] ?? 0;
  for (const line of lines.children) line.hidden = (rank[line.dataset.level] ?? 1) < least;
}
function toEnd() {
  if (at("follow").checked) lines.scrollTop = lines.scrollHeight;
}
at("level").addEventListener("change", () => (narrow(), toEnd()));
at("follow").addEventListener("change", toEnd);

async function readLog() {
  const found = await getJson(`/v1/jobs/${id}/logs?after=${lines.dataset.after}&limit=100`);
  for (const line of found.data) {
    const time = new Date(line.at);
    lines.append(
      make("div", { class: `line level-${line.level}`, "data-level": line.level },
        make("time", { datetime: line.at, title: time.toLocaleString(), class: "clock" }, time.toISOString().slice(11, 19)), " ",
        make("span", { class: "level" }, line.level), " ",
        line.unit ? make("span", { class: "faint" }, line.unit) : "", " ",
        make("span", { class: "text" }, line.text)),
    );
    lines.dataset.after = line.id;
  }
  if (found.data.length) {
    at("no-lines").hidden = true;
    narrow();
    toEnd();
  }
  return found.has_more;
}

async function followLog() {
  let more = false;
  try {
    if (!document.hidden && at("follow").checked) more = await readLog();
  } catch {
    // The next look may find it; the page shows what there was.
  }
  if (!over) setTimeout(followLog, more ? 0 : 2000);
}

const created = new Date(page.dataset.created);
if (!over) {
  setInterval(() => (at("elapsed").textContent = duration((Date.now() - created) / 1000)), 1000);
  setTimeout(followLog, 2000);
}
toEnd();
listen();
