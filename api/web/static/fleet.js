// Workers as they are now: a heartbeat is worth nothing on a page that stands still.
import { duration, getJson, make, size, stateMark } from "./words.js";

const EVERY_MS = 5000;

function show(row, worker) {
  const cell = (name) => row.querySelector(`.${name}`);
  cell("cell-state").replaceChildren(stateMark(worker.state));
  if (worker.device_memory_bytes) {
    cell("device").textContent = `${size(worker.device_used_bytes)} of ${size(worker.device_memory_bytes)}`;
  }
  cell("host").textContent = `${size(worker.host_used_bytes)} of ${size(worker.host_memory_bytes)}`;
  cell("works").replaceChildren(
    ...(worker.job
      ? [
          make("a", { href: `/jobs/${encodeURIComponent(worker.job)}` }, worker.unit ?? "a unit"),
          make("span", { class: "fine" }, `for ${duration(worker.unit_seconds)}`),
        ]
      : [make("span", { class: "faint" }, "nothing")]),
  );
  cell("done").textContent = worker.units_done;
  cell("broke").textContent = worker.units_failed;
  cell("beat").textContent = `${duration(worker.heartbeat_age_seconds)} ago`;
}

function gone(row) {
  row.querySelector(".cell-state").replaceChildren(stateMark("silent"));
  row.querySelector(".beat").textContent = "gone";
}

async function look() {
  const found = await getJson("/v1/workers");
  const known = new Map(found.data.map((worker) => [worker.id, worker]));
  for (const row of document.querySelectorAll("tr[data-worker]")) {
    const worker = known.get(row.dataset.worker);
    if (worker) show(row, worker);
    else gone(row);
  }
}

async function goOn() {
  if (!document.hidden) {
    await look().catch(() => {
      for (const cell of document.querySelectorAll(".beat")) cell.textContent = "not known: no answer";
    });
  }
  setTimeout(goOn, EVERY_MS);
}
if (document.querySelector("tr[data-worker]")) setTimeout(goOn, EVERY_MS);
