"use strict";
// Puts the page together from the values that page_data.py wrote into it.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const byId = (id) => document.getElementById(id);

function start() {
  byId("title").textContent = data.title;
  chooseTheme();
  notices();
  tiles();
  facts();
  groups();
  const first = runs[0].categories;
  let open = null;
  if (first.name && first.name.length) {
    byId("categories").hidden = false;
    const page = new CategoryPage(data);
    open = (c) => page.show(c);
    page.table = new CategoryTable(runs, open);
    foundByOne(page);
  }
  failingCategories(open);
  charts(open);
  confusions(open);
  afterTraining();
  epochs();
  settings();
  contents();
}

function chooseTheme() {
  const choice = byId("theme");
  const apply = (theme) => (theme ? (document.documentElement.dataset.theme = theme) : delete document.documentElement.dataset.theme);
  try {
    choice.value = localStorage.getItem("theme") || "";
  } catch {
    // A browser may keep no storage for files: the choice then lasts as long as the page.
  }
  apply(choice.value);
  choice.addEventListener("change", () => {
    apply(choice.value);
    try {
      localStorage.setItem("theme", choice.value);
    } catch {
      // As above.
    }
  });
}

function notices() {
  const lines = [...data.missing, ...runs.flatMap((run) => run.notices)];
  if (data.pictures_left_out) lines.push(`${COUNT(data.pictures_left_out)} images are not in this page, which would be too large or whose files are gone.`);
  byId("notices").append(...lines.map((line) => element("p", "notice", line)));
}

function tiles() {
  const known = (name) => runs.some((run) => (run.best[name] ?? null) !== null);
  const names = Object.keys(runs[0].best).filter((name) => name !== "epoch" && known(name));
  const made = names.map((name) => {
    const tile = element("div", runs.length > 1 ? "tile several" : "tile", element("div", "metric", name));
    tile.dataset.metric = name;
    runs.forEach((run, k) => {
      const value = run.best[name] ?? null;
      const line = element("div", "value", runs.length > 1 ? dot(k % 6) : "", PERCENT(value));
      line.title = run.name;
      const first = runs[0].best[name];
      if (k > 0 && value !== null && first !== null) {
        const difference = element("small", "", ` ${signed(first - value)}`);
        difference.title = minus(run);
        line.append(difference);
      }
      tile.append(line);
    });
    return tile;
  });
  byId("tiles").append(...made);
  const small = runs.length > 1 ? ` Small: ${runs.length === 2 ? minus(runs[1]) : `${runs[0].name} minus the run of the line`}.` : "";
  if (made.length) byId("tiles").after(element("p", "note", `In percent, at the epoch of best.pth.${small}`));
  if (!made.length) byId("tiles").append(element("p", "note", "No epoch has been evaluated."));
}

function facts() {
  runs.forEach((run, k) => {
    const list = element("dl");
    const add = (name, value) => list.append(element("dt", "", name), element("dd", "", value));
    if (run.best.epoch !== undefined) add("best epoch", String(run.best.epoch));
    add("protocol", run.protocol || "not recorded");
    for (const [name, value] of run.facts) add(name, value);
    const head = element("h3", "", runs.length > 1 ? dot(k % 6) : "", run.name);
    byId("facts").append(element("div", "card", head, list));
  });
}

/** What each frequency group came to: the first answer to which categories fail, and why. */
function groups() {
  const columns = [
    ["AP", "AP", PERCENT, "Mean over the scored categories"],
    ["AR", "AR", PERCENT, "Mean over the scored categories"],
    ["F1", "best F1", PERCENT, "Mean of the best F1 at IoU 0.5"],
    ["threshold", "threshold", SCORE, "Median of the score thresholds of best F1"],
    ["categories", "categories", COUNT, "Categories of the group"],
    ["scored", "scored", COUNT, "Categories with boxes in the evaluated set"],
    ["train_images", "train images", ROUNDED, "Training images, median"],
    ["draws", "draws an epoch", ROUNDED, "Expected training images with a category in one epoch, median"],
    ["g", "g", DECIMALS(3), "Median balance: 1 is balanced"],
    ["gamma", "γ", DECIMALS(2), "Median focusing factor"],
  ];
  runs.forEach((run, k) => {
    if (!run.groups.length) return;
    byId("groups").hidden = false;
    const shown = columns.filter(([key]) => run.groups.some((row) => row[key] !== null));
    const titles = shown.map(([, title, , help]) => {
      const head = element("th", "", title);
      head.title = help;
      return head;
    });
    const head = element("tr", "", element("th", "", "group"), ...titles, element("th", "", "most frequent error"));
    const rows = run.groups.map((row) => {
      const name = element("td", "", dot(row.group || "all"), GROUPS[row.group] || "all");
      const worst = row.worst ? `${ERRORS[row.worst[0]]} (${Math.round(100 * row.worst[1])} %)` : "-";
      return element("tr", "", name, ...shown.map(([key, , format]) => element("td", "", format(row[key]))), element("td", "", worst));
    });
    const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
    const title = runs.length > 1 ? [element("h3", "", dot(k % 6), run.name)] : [];
    byId("groups").append(...title, element("div", "scroll", table));
  });
  if (!byId("groups").hidden)
    byId("groups").append(element("p", "note", "AP, AR and F1 are means in percent, the other numbers medians over the categories of a group."));
}

/** Charts after figures of the paper lie behind a heading of their own, drawn when it is opened. */
function charts(open) {
  const ofPaper = (key) => data.paper_charts.includes(key);
  const drawn = (found) => found.map((chart) => chartFigure(chart, { names: runs[0].categories.name, onItem: open }));
  const paper = byId("paper").querySelector("details");
  if (data.comparison.length) {
    byId("comparison").hidden = false;
    byId("comparison").querySelector(".charts").append(...drawn(data.comparison.filter((chart) => !ofPaper(chart.key))));
    paper.append(element("div", "charts apart", ...drawn(data.comparison.filter((chart) => ofPaper(chart.key)))));
  }
  const keys = [...new Set(runs.flatMap((run) => run.charts.map((chart) => chart.key)))];
  for (const [section, box, wanted] of [
    [byId("charts"), byId("charts"), keys.filter((key) => !ofPaper(key))],
    [byId("paper"), paper, keys.filter(ofPaper)],
  ]) {
    if (runs.length > 1) box.append(...wanted.map((key) => pairedCharts(key, open)));
    else box.append(element("div", "charts", ...drawn(runs[0].charts.filter((chart) => wanted.includes(chart.key)))));
    section.hidden = !wanted.length;
  }
}

/** The charts of one kind of all runs in one row, on equal vertical axes. */
function pairedCharts(key, open) {
  const found = runs.map((run) => run.charts.find((chart) => chart.key === key));
  const range = commonRange(found.filter(Boolean));
  const row = element("div", "charts paired apart");
  row.style.setProperty("--runs", runs.length);
  found.forEach((chart, k) => {
    const options = { names: runs[k].categories.name, of: runs[k].name, yRange: range };
    if (k === 0) options.onItem = open; // a label belongs to the list of its own run
    row.append(chart ? chartFigure(chart, options) : element("p", "note", `${runs[k].name}: nothing recorded.`));
  });
  return row;
}

function commonRange(found) {
  if (found.some((chart) => chart.y_log || chart.rows.length)) return null;
  if (found.every((chart) => chart.y_range)) return found[0].y_range;
  const values = found.flatMap((chart) => chart.series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])])).filter((v) => v !== null);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  return [low - pad, high + pad];
}

function confusions(open) {
  runs.forEach((run, k) => {
    if (!run.confusion.length) return;
    byId("confusion").hidden = false;
    const nameOf = (c) => {
      if (k > 0 || !open) return run.categories.name[c];
      const button = element("button", "", run.categories.name[c]);
      button.addEventListener("click", () => open(c));
      return button;
    };
    const head = element("tr", "", ...["object", "detected as", "times"].map((title) => element("th", "", title)));
    const rows = run.confusion.map(([is, taken, count]) =>
      element("tr", "", element("td", "", nameOf(is)), element("td", "", nameOf(taken)), element("td", "", COUNT(count))),
    );
    const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
    const box = element("div", "", element("div", "scroll tall", table));
    if (runs.length > 1) box.prepend(element("h3", "", run.name));
    byId("confusion").querySelector(".columns").append(box);
  });
}

function epochs() {
  runs.forEach((run) => {
    const names = Object.keys(run.epochs);
    if (!names.length) return;
    byId("epochs").hidden = false;
    const head = element("tr", "", ...names.map((name) => element("th", "", name)));
    const rows = run.epochs[names[0]].map((_, i) =>
      element("tr", "", ...names.map((name) => element("td", "", /^A[PR]/.test(name) ? PERCENT(run.epochs[name][i]) : short(run.epochs[name][i])))),
    );
    const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
    const box = element("div", "scroll tall", table);
    byId("epochs").append(...(runs.length > 1 ? [element("h3", "", run.name)] : []), box);
  });
}

function settings() {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  if (!keys.length) return;
  byId("settings").hidden = false;
  const head = element("tr", "", element("th", "", "setting"), ...runs.map((run) => element("th", "", run.name)));
  const rows = keys.map((key) => {
    const values = runs.map((run) => run.settings[key] ?? "-");
    const differs = values.some((value) => value !== values[0]);
    return element("tr", differs ? "differs" : "", element("td", "", key), ...values.map((v) => element("td", "", v)));
  });
  const table = byId("settings").querySelector("table");
  table.append(element("thead", "", head), element("tbody", "", ...rows));
  const label = byId("differing");
  label.hidden = runs.length < 2;
  label.querySelector("input").addEventListener("change", (event) => {
    for (const row of rows) row.hidden = event.target.checked && !row.classList.contains("differs");
  });
}

function contents() {
  for (const section of document.querySelectorAll("main > section:not([hidden])")) {
    const link = element("a", "", section.dataset.short || section.querySelector("h2").textContent);
    link.href = `#${section.id}`;
    const folded = section.querySelector("details:has(h2)");
    if (folded) link.addEventListener("click", () => (folded.open = true));
    byId("contents").append(link);
  }
}

start();
