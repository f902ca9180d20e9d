// Rows of jobs change in place while one looks; none is added or moved under the pointer.
import { duration, doing, getJson, make, percent, stateMark } from "./words.js";

const EVERY_MS = 2000;
const MOST_GONE = 10;
const OVER = new Set(["succeeded", "failed", "cancelled", "expired"]);
const table = document.querySelector("table.live");
const news = document.querySelector(".news");

function show(row, job) {
  if (row.dataset.version === String(job.version)) return;
  row.dataset.version = job.version;
  row.dataset.state = job.state;
  row.querySelector(".cell-state").replaceChildren(stateMark(job.state));
  const bar = row.querySelector("progress");
  bar.value = job.progress.ratio;
  bar.textContent = row.querySelector(".ratio").textContent = percent(job.progress.ratio);
  const left = job.progress.seconds_left;
  const told = row.querySelector(".doing");
  if (told) told.replaceChildren(job.error ? make("code", {}, job.error.code) : left === null ? "" : `${duration(left)} left`);
  const working = row.querySelector(".working");
  if (working) working.textContent = doing(job.progress, job.stage, job.plan?.layers);
  const leftCell = row.querySelector("td.left");
  if (leftCell) leftCell.textContent = OVER.has(job.state) ? "over" : left === null ? "not known yet" : duration(left);
}

async function look() {
  const rows = new Map([...table.querySelectorAll("tr[data-job]")].map((row) => [row.dataset.job, row]));
  const page = await getJson(table.dataset.list);
  let more = 0;
  for (const job of page.data) {
    const row = rows.get(job.id);
    if (row) {
      show(row, job);
      rows.delete(job.id);
    } else if (table.dataset.first !== "no" && news) {
      const newest = table.querySelector("tr[data-job]");
      if (!newest || job.id > newest.dataset.job) more += 1;
    }
  }
  await lookAtGone(rows);
  if (news) {
    news.hidden = !more;
    if (more) news.replaceChildren(make("a", { href: location.href }, `${more} new ${more === 1 ? "job" : "jobs"}: show`));
  }
}

// A row whose job left the list is no longer what was asked for: say what it is.
async function lookAtGone(rows) {
  const gone = [...rows].filter(([, row]) => !OVER.has(row.dataset.state));
  for (const [id, row] of gone.slice(0, MOST_GONE)) show(row, await getJson(`/v1/jobs/${id}`));
}

async function goOn() {
  if (!document.hidden) {
    try {
      await look();
    } catch (problem) {
      if (news) {
        news.hidden = false;
        news.textContent = `Cannot be brought up to date: ${problem.message}. Trying again.`;
      }
    }
  }
  setTimeout(goOn, EVERY_MS);
}
if (table) setTimeout(goOn, EVERY_MS);
