"use strict";
(() => {
  const all = (query, inside = document) => [...inside.querySelectorAll(query)];
  const one = (query, inside = document) => inside.querySelector(query);
  const MOST = 8, LINE = 14, LETTER = 7.1;
  const dataset = one("#scope-d"), bits = one("#scope-b"), chips = one("#chips"), count = one("#count");
  const chosen = new Map(all("li", chips).map((item, place) => [item.dataset.m, place]));
  const names = new Map(all(".board tbody tr").map((row) => [row.dataset.m, one(".n", row).textContent]));
  document.documentElement.classList.add("js");

  // Dataset and code length: hide the parts of others.
  const scoped = all("[data-d]"), cards = all(".card");
  function scope() {
    const available = new Set(all(`[data-d="${dataset.value}"] .board tbody tr`).map((row) => row.dataset.b));
    for (const option of bits.options) option.disabled = option.value !== "" && !available.has(option.value);
    if (bits.selectedOptions[0].disabled) bits.value = [...available][Math.floor(available.size / 2)] ?? "";
    for (const part of scoped) {
      const otherBits = part.dataset.b !== undefined && bits.value !== "" && part.dataset.b !== bits.value;
      const otherDataset = part.dataset.d !== undefined && part.dataset.d !== dataset.value;
      part.classList.toggle("out", otherDataset || otherBits);
    }
    // The summary shows every dataset: at the selected code length, or at all of its own if it lacks that.
    const withBits = new Set(cards.filter((card) => card.dataset.b === bits.value).map((card) => card.dataset.of));
    for (const card of cards) card.classList.toggle("out", withBits.has(card.dataset.of) && card.dataset.b !== bits.value);
    filter();
  }

  // The leaderboard's filters.
  const find = one("#find"), kind = one("#kind"), supervision = one("#supervision"), controls = one("#controls");
  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const table of all(".board")) {
      const current = table.closest("[data-d]").dataset.d === dataset.value;
      for (const row of all("tbody tr", table)) {
        const text = one("th", row).textContent.toLowerCase();
        const matches = (bits.value === "" || row.dataset.b === bits.value)
          && words.every((word) => text.includes(word))
          && (!kind.value || row.dataset.kind === kind.value)
          && (!supervision.value || row.dataset.sup === supervision.value)
          && (controls.checked || !row.classList.contains("apart"));
        row.classList.toggle("out", !matches);
        if (current) { total += 1; shown += matches; }
      }
    }
    count.textContent = `${shown} of ${total} rows`;
  }

  // Sort by a column: numbers in descending order first, text in ascending order; cells without a value last.
  function sort(header) {
    const table = header.closest("table"), column = header.cellIndex, numeric = header.classList.contains("num");
    const first = numeric && column > 1 ? "descending" : "ascending";
    const current = header.getAttribute("aria-sort");
    const next = current === "none" ? first : current === "ascending" ? "descending" : "ascending";
    for (const other of all("th[aria-sort]", table)) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const keyed = all("tbody tr", table).map((row) => [row.cells[column].dataset.v, row]);
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    one("tbody", table).append(...keyed.map(([, row]) => row));
  }

  // Separate the labels of highlighted series, as hashzoo.report.svg.separate does.
  function spread(chart) {
    const labels = all(".s.on .l", chart).map((text) => {
      const width = LETTER * text.textContent.length, x = Number(text.getAttribute("x"));
      const end = text.getAttribute("text-anchor") === "end";
      return { text, y: Number(text.dataset.y), from: end ? x - width : x, to: end ? x : x + width };
    }).sort((a, b) => a.y - b.y);
    const low = 28, high = chart.viewBox.baseVal.height - 46;
    const overlap = (a, b) => a.from < b.to && b.from < a.to;
    labels.forEach((label, i) => {
      label.at = Math.max(label.y, low, ...labels.slice(0, i).filter((o) => overlap(o, label)).map((o) => o.at + LINE));
    });
    for (let i = labels.length - 1; i >= 0; i -= 1) {
      const below = labels.slice(i + 1).filter((o) => overlap(o, labels[i])).map((o) => o.at - LINE);
      labels[i].at = Math.min(labels[i].at, high, ...below);
      labels[i].text.setAttribute("y", labels[i].at + 4);
    }
  }

  // Highlight the selected methods, each in its colour.
  const marked = all(".s[data-m], .one[data-m], .board tr[data-m]");
  function highlight() {
    for (const part of marked) {
      const place = chosen.get(part.dataset.m);
      for (let i = 0; i < MOST; i += 1) part.classList.toggle(`c${i}`, place === i);
      part.classList.toggle("on", place !== undefined);
      if (part.classList.contains("one")) {
        part.classList.toggle("out", place === undefined);
        for (const inner of all("svg g[class^=c]", part)) inner.setAttribute("class", `c${place ?? 7}`);
      }
      const box = one(".pick input", part);
      if (box) { box.checked = place !== undefined; box.disabled = place === undefined && chosen.size >= MOST; }
    }
    all("svg.chart").filter((chart) => one(".l", chart)).forEach(spread);
    chips.replaceChildren(...[...chosen].map(([number, place]) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      const label = document.createElement("span"), button = document.createElement("button");
      item.className = `on c${place}`;
      item.dataset.m = number;
      swatch.className = "swatch";
      label.className = "n";
      label.textContent = names.get(number) ?? "";
      button.type = "button";
      button.textContent = "×";
      button.setAttribute("aria-label", `Stop highlighting ${label.textContent}`);
      button.addEventListener("click", () => { toggle(number); (one("button", chips) ?? dataset).focus(); });
      item.append(swatch, label, button);
      return item;
    }));
  }
  function toggle(number) {
    if (!chosen.delete(number) && chosen.size < MOST) {
      const taken = new Set(chosen.values());
      chosen.set(number, [...Array(MOST).keys()].find((place) => !taken.has(place)));
    }
    highlight();
  }

  for (const header of all(".board th[aria-sort]")) one("button", header).addEventListener("click", () => sort(header));
  for (const row of all(".board tbody tr")) one(".pick input", row).addEventListener("change", () => toggle(row.dataset.m));
  for (const control of [dataset, bits]) control.addEventListener("change", scope);
  for (const control of [find, kind, supervision, controls]) control.addEventListener("input", filter);
  one(".scope").addEventListener("submit", (event) => event.preventDefault());
  highlight();
  scope();
})();
