"use strict";
// Everything about one category: numbers, images, balance over time, curves.

const KINDS = { tp: "Best true positives", fp: "Worst false positives", missed: "Missed objects" };
const RECALLS = Array.from({ length: 101 }, (_, i) => i / 100);

/** Rows of `width` float32 numbers from base64, NaN as null: row -> array. */
function unpack(text, width) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  const plain = (v) => (Number.isFinite(v) ? v : null);
  return {
    row: (r) => Array.from(values.subarray(r * width, (r + 1) * width), plain),
    column: (c) => Array.from({ length: values.length / width }, (_, r) => plain(values[r * width + c])),
  };
}

class CategoryPage {
  constructor(data) {
    this.runs = data.runs;
    this.errorKinds = data.error_kinds;
    this.places = data.runs.map((run) => positionsIn(data.runs[0], run));
    this.dialog = document.getElementById("category");
    this.body = document.getElementById("category-body");
    document.getElementById("close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    for (const [id, step] of [["previous", -1], ["next", 1]])
      document.getElementById(id).addEventListener("click", () => this.show(this.table.neighbour(this.shown, step)));
  }

  /** Of every run: images by label. Read when first needed: they are most of the page. */
  get pictures() {
    const all = JSON.parse(document.getElementById("pictures").textContent);
    const byLabel = all.map((entries) => {
      const made = new Map();
      for (const entry of entries) made.set(entry.label, [...(made.get(entry.label) || []), entry]);
      return made;
    });
    Object.defineProperty(this, "pictures", { value: byLabel });
    return byLabel;
  }

  show(c) {
    this.shown = c;
    const { name, group, id } = this.runs[0].categories;
    document.getElementById("category-name").textContent = `${name[c]}`;
    const kind = [GROUPS[group[c]], `id ${id[c]}`].filter(Boolean).join(", ");
    const pictures = this.runs.map((run, k) => this.picturesOf(run, k, this.places[k][c]));
    const side = element("div", "paired", ...pictures);
    side.style.setProperty("--runs", this.runs.length);
    this.body.replaceChildren(element("p", "note", kind), this.numbers(c), side, this.charts(c));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  /** A small tile for every number, with a line for every run. */
  numbers(c) {
    const kinds = this.errorKinds.map((key) => [key, key, COUNT, `Errors at the best threshold: ${ERRORS[key]}`]);
    const found = ["hits", "found", COUNT, "True positives from the best threshold on"];
    const tiles = [...COLUMNS, ["weight", "weight", DECIMALS(2), "Weighting factor, from g"], found, ...kinds]
      .filter(([key]) => this.runs.some((run) => run.categories[key]))
      .map(([key, title, format, help]) => {
        const values = this.runs.map((run, k) => {
          const value = run.categories[key]?.[this.places[k][c]] ?? null;
          const line = element("div", "value", this.runs.length > 1 ? dot(k % 6) : "", format(value));
          line.title = run.name;
          return line;
        });
        const tile = element("div", "tile", element("div", "metric", title), ...values);
        tile.title = help;
        return tile;
      });
    return element("div", "numbers", ...tiles);
  }

  charts(c) {
    const box = element("div", "charts apart");
    const add = (title, xLabel, yLabel, range, seriesOf, note) => {
      const series = this.runs.flatMap((run, k) => (this.places[k][c] < 0 ? [] : seriesOf(run, k, this.places[k][c])));
      const chart = { key: title, title, x_label: xLabel, y_label: yLabel, series, note, rows: [], y_range: range };
      if (series.some((s) => s.y.some((v) => v !== null))) box.append(chartFigure(chart));
    };
    const line = (name, color, x, y) => ({ name, color, x, y, kind: "line" });
    const top = (run) => run.charts.find((chart) => chart.key === "balance");
    const log = this.runs.some((run) => top(run)?.y_log);
    add("Balance g over epochs", "epoch", "g", log ? null : [0, 1.02], (run, k, at) => {
      if (!run.balance) return [];
      const g = unpack(run.balance.ratio, run.categories.name.length).column(at);
      const own = line(run.name, String(k % 6), run.balance.epochs, g);
      const group = top(run)?.series.find((s) => s.color === run.categories.group[at]);
      return group && k === 0 ? [own, line(`median of ${group.name}`, group.color, group.x, group.y)] : [own];
    });
    for (const [key, title, xLabel, yLabel] of [
      ["precision", "Precision and recall", "recall", "precision"],
      ["f1", "F1 and score threshold", "score threshold", "F1"],
    ])
      add(title, xLabel, yLabel, [0, 1.02], (run, k, at) =>
        run.curves ? [line(run.name, String(k % 6), RECALLS, unpack(run.curves[key], 101).row(at))] : [],
      );
    return box;
  }

  picturesOf(run, k, at) {
    const box = element("div", "kinds");
    const entries = this.pictures[k].get(at) || [];
    for (const [kind, title] of Object.entries(KINDS)) {
      const chosen = entries.filter((entry) => entry.kind === kind);
      if (!chosen.length) continue;
      const of = this.runs.length > 1 ? `${title}, ${run.name}` : title;
      box.append(element("div", "", element("h3", "", of), element("div", "pictures", ...chosen.map((entry) => this.picture(entry, run)))));
    }
    return box;
  }

  picture(entry, run, before = []) {
    const image = document.createElement("img");
    image.src = `data:image/jpeg;base64,${entry.data}`;
    const other = entry.other === null ? "" : `: is ${run.categories.name[entry.other]}`;
    const error = entry.error ? `${ERRORS[entry.error]}${other}` : "";
    const parts = [...before, entry.score === null ? "" : `score ${entry.score < 0.01 ? SCORE(entry.score) : entry.score.toFixed(2)}`, error, `image ${entry.image}`];
    const text = parts.filter(Boolean).join(" · ");
    image.alt = text;
    return element("figure", "", image, element("figcaption", "", text));
  }
}

/** Images of rare objects that one run has found and another one missed, from found_by_one.py. */
function foundByOne(page) {
  const box = document.querySelector("#found-by-one .pictures");
  for (const { found, missed, label, file } of data.found_by_one) {
    const entry = (page.pictures[found].get(label) || []).find((each) => each.file === file);
    if (!entry) continue; // left out of a page that would be too large
    const run = runs[found];
    box.append(page.picture(entry, run, [run.categories.name[label], `found by ${run.name}, missed by ${runs[missed].name}`]));
    box.parentElement.hidden = false;
  }
}
