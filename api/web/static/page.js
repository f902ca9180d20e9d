// What every page does: relative times, copy buttons, colours, words while a form is sent.
import { ago } from "./words.js";

function tellTimes() {
  for (const time of document.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    if (time.classList.contains("clock")) continue;
    if (/( ago|^in .*|^now)$/.test(time.textContent)) time.textContent = ago((Date.now() - moment) / 1000);
    time.title = `${moment.toLocaleString()} (${time.dateTime})`;
  }
}
tellTimes();
setInterval(() => document.hidden || tellTimes(), 10_000);

const said = document.getElementById("said");
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const block = button.parentElement.querySelector("pre");
    const text = button.dataset.text ?? block.textContent;
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = button.textContent = "Copied";
    } catch {
      // Without https browsers keep the clipboard shut: select it, so that Ctrl-C takes it.
      const range = document.createRange();
      range.selectNodeContents(block ?? button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      said.textContent = button.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => (button.textContent = "Copy"), 3000);
  });
}

const theme = document.getElementById("theme");
theme.value = document.documentElement.dataset.theme ?? "auto";
theme.addEventListener("change", () => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem("fda-theme", theme.value);
  } catch {
    // It holds for this page then.
  }
});

// One open question at a time; Escape closes it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const open of document.querySelectorAll("details.confirm[open], details.menu[open]")) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.confirm[open], details.menu[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
});

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    const waits = event.submitter?.dataset.waits;
    const place = form.querySelector("#waits");
    if (waits && place) place.textContent = waits;
  });
}
