"use strict";
// Hover labels for cells, bars and curves, and tables that sort. The page is whole without it.
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  let lit = null;

  const hide = () => {
    tip.hidden = true;
    if (lit) lit.classList.remove("lit");
    lit = null;
  };

  const show = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const above = event.clientY - box.height - 12;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${above > 4 ? above : event.clientY + 18}px`;
  };

  const axis = (text) => {
    const [begin, end, low, high, kind] = text.split(" ");
    return { begin: +begin, end: +end, low: +low, high: +high, log: kind === "log" };
  };

  const valueAt = ({ begin, end, low, high, log }, pixel) => {
    const share = (pixel - begin) / (end - begin);
    return log ? low * (high / low) ** share : low + share * (high - low);
  };

  const heightAt = (line, x) => {
    const points = line.points;
    for (let i = 1; i < points.length; i += 1) {
      const a = points[i - 1];
      const b = points[i];
      if (a.x <= x && x <= b.x) return b.x > a.x ? a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x) : b.y;
    }
    return null;
  };

  const nearest = (chart, x, y) => {
    let best = null;
    for (const line of chart.querySelectorAll("polyline[data-tip]")) {
      const at = heightAt(line, x);
      const far = at === null ? Infinity : Math.abs(at - y);
      if (far < 28 && (!best || far < best.far)) best = { line, at, far };
    }
    return best;
  };

  const short = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

  const readCurve = (chart, event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      chart.getScreenCTM().inverse(),
    );
    const found = nearest(chart, place.x, place.y);
    hide();
    if (!found) return;
    lit = found.line;
    lit.classList.add("lit");
    const at = valueAt(axis(chart.dataset.x), place.x);
    const value = valueAt(axis(chart.dataset.y), found.at);
    show(`${lit.dataset.tip} · ${chart.dataset.xName} ${Math.round(at)}: ${short(value)}`, event);
  };

  document.addEventListener("pointermove", (event) => {
    const chart = event.target.closest?.("svg.lines");
    if (chart) return readCurve(chart, event);
    const marked = event.target.closest?.("[data-tip]");
    hide();
    if (marked) show(marked.dataset.tip, event);
  });
  document.addEventListener("pointerleave", hide);
  document.addEventListener("scroll", hide, { passive: true });

  const numeric = (text) => {
    const value = Number.parseFloat(text.replaceAll(",", "").replace("\u2212", "-"));
    return Number.isNaN(value) ? -Infinity : value;
  };

  const sort = (head, column) => {
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [row.cells[column].textContent, row]);
    const words = rows.some(([text]) => text && text !== "n/a" && numeric(text) === -Infinity);
    const order = words
      ? (a, b) => a[0].localeCompare(b[0], undefined, { numeric: true })
      : (a, b) => numeric(a[0]) - numeric(b[0]);
    rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
    body.append(...rows.map(([, row]) => row));
  };

  for (const head of document.querySelectorAll("details thead th")) {
    const column = head.cellIndex;
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(head, column);
    });
  }
})();
