"use strict";
// The table of all categories: sorted and filtered without building its rows again.

const PERCENT = (v) => (v === null ? "-" : (100 * v).toFixed(1));
const DECIMALS = (digits) => (v) => (v === null ? "-" : v.toFixed(digits));
/** Three decimals, or two digits of what three decimals would show as nothing. */
const SCORE = (v) => (v === null ? "-" : v && Math.abs(v) < 0.001 ? v.toExponential(1) : v.toFixed(3));
const COUNT = (v) => (v === null ? "-" : v.toLocaleString("en-US"));
const ROUNDED = (v) => (v === null ? "-" : v >= 100 ? COUNT(Math.round(v)) : String(Number(v.toPrecision(3))));
const ERRORS = {
  classification: "wrong category",
  localisation: "wrong place",
  both: "wrong category and place",
  duplicate: "found twice",
  background: "nothing there",
  missed: "missed",
};
const GROUPS = { r: "rare", c: "common", f: "frequent" };

// column of the data, heading, format, what it is
const COLUMNS = [
  ["train_images", "train images", COUNT, "Training images with the category"],
  ["draws", "draws an epoch", ROUNDED, "Expected training images with the category in one epoch, partners of mosaic and mixup included"],
  ["boxes", "boxes", COUNT, "Objects to be found in the evaluated set"],
  ["detections", "detected", COUNT, "Detections that took part in the evaluation"],
  ["AP", "AP", PERCENT, "Average precision, IoU 0.50:0.95"],
  ["AP_best", "AP best", PERCENT, "AP of the best evaluation"],
  ["AP50", "AP50", PERCENT, "Average precision at IoU 0.5"],
  ["AP75", "AP75", PERCENT, "Average precision at IoU 0.75"],
  ["AR", "AR", PERCENT, "Recall, mean over IoU 0.50:0.95"],
  ["F1", "F1", PERCENT, "Best F1 at IoU 0.5"],
  ["threshold", "threshold", SCORE, "Score threshold of the best F1"],
  ["margin", "margin", SCORE, "Mean score of true positives less that of false positives"],
  ["g", "g", DECIMALS(3), "Balance: positive to negative gradients so far"],
  ["gamma", "γ", DECIMALS(2), "Focusing factor, from g"],
  ["counts", "regions", COUNT, "Training regions of the category so far, as Seesaw counts them"],
];

const keyOf = (run, c) => `${run.categories.id[c]} ${run.categories.name[c]}`;

/** Position of every category of `first` in `other`, -1 where it has none. */
function positionsIn(first, other) {
  const places = new Map((other.categories.name || []).map((_, c) => [keyOf(other, c), c]));
  return first.categories.name.map((_, c) => places.get(keyOf(first, c)) ?? -1);
}

class CategoryTable {
  /** `open` is told the category of a clicked row. */
  constructor(runs, open) {
    this.runs = runs;
    this.open = open;
    this.names = runs[0].categories.name;
    this.groups = runs[0].categories.group;
    this.columns = this.chooseColumns();
    this.table = document.getElementById("table");
    this.table.style.setProperty("--columns", this.columns.length - 1);
    this.rows = this.names.map((_, c) => this.makeRow(c));
    this.order = this.names.map((_, c) => c);
    this.makeHead();
    this.makeFilters();
    const first = this.columns.findIndex((column) => column.key === "train_images");
    this.sort(first >= 0 ? first : 0, first >= 0);
    this.filter();
  }

  chooseColumns() {
    const [first, ...others] = this.runs;
    const columns = [{ key: "name", title: "category", values: this.names, format: String, help: "Name" }];
    if (this.groups.some((g) => g)) {
      const values = this.groups.map((g) => "fcr".indexOf(g)); // sorts by frequency
      const help = "rare: up to 10 training images, common: up to 100, frequent: more";
      columns.push({ key: "group", title: "group", values, format: (v) => GROUPS["fcr"[v]] || "-", help });
    }
    for (const [key, title, format, help] of COLUMNS)
      if (first.categories[key]) columns.push({ key, title, values: first.categories[key], format, help });
    const after = columns.findIndex((column) => column.key === "AP") + 1;
    for (const run of [...others].reverse()) {
      if (!run.categories.AP || !first.categories.AP) continue;
      const values = positionsIn(first, run).map((c) => (c < 0 ? null : run.categories.AP[c]));
      const base = first.categories.AP;
      const change = values.map((v, c) => (v === null || base[c] === null ? null : base[c] - v));
      const [own, less] = [`AP of ${run.name}`, `AP of ${minus(run)}`];
      columns.splice(
        after,
        0,
        { key: `AP ${run.name}`, title: `AP ${run.name}`, values, format: PERCENT, help: own },
        { key: `change ${run.name}`, title: minus(run), values: change, format: signed, help: less, sign: true },
      );
    }
    return columns;
  }

  makeRow(c) {
    const row = document.createElement("tr");
    this.columns.forEach((column, k) => {
      const value = column.values[c];
      const text = column.format(value);
      const cell = element("td", column.sign && value ? (value > 0 ? "up" : "down") : "");
      if (k === 0) {
        const button = element("button", "", text);
        button.title = text;
        cell.append(button);
      } else cell.textContent = text;
      row.append(cell);
    });
    row.addEventListener("click", () => this.open(c));
    return row;
  }

  makeHead() {
    const head = document.createElement("tr");
    this.columns.forEach((column, k) => {
      const button = element("button", "", column.title);
      button.title = column.help;
      button.addEventListener("click", () => this.sort(k, this.by === k ? !this.falling : k > 0));
      head.append(element("th", "", button));
    });
    this.table.tHead.replaceChildren(head);
  }

  makeFilters() {
    const groups = document.getElementById("group");
    const known = Object.keys(GROUPS).filter((g) => this.groups.includes(g));
    const choices = [["", "all groups"], ...known.map((g) => [g, GROUPS[g]])];
    groups.append(...choices.map(([value, text]) => new Option(text, value)));
    groups.hidden = !known.length;
    groups.addEventListener("change", () => this.filter());
    document.getElementById("search").addEventListener("input", () => this.filter());
  }

  /** Sort by column k; values that are not there come last in either direction, equal ones keep their order. */
  sort(k, falling) {
    const { values } = this.columns[k];
    const sign = falling ? -1 : 1;
    const text = typeof values[0] === "string";
    const collator = new Intl.Collator("en");
    this.order.sort((a, b) => {
      const [u, v] = [values[a], values[b]];
      if (u === null || v === null) return (u === null) - (v === null);
      return sign * (text ? collator.compare(u, v) : u - v);
    });
    [this.by, this.falling] = [k, falling];
    this.table.tBodies[0].replaceChildren(...this.order.map((c) => this.rows[c]));
    [...this.table.tHead.rows[0].cells].forEach((cell, i) =>
      i === k ? cell.setAttribute("aria-sort", falling ? "descending" : "ascending") : cell.removeAttribute("aria-sort"),
    );
  }

  filter() {
    const words = document.getElementById("search").value.trim().toLowerCase();
    const group = document.getElementById("group").value;
    const ids = this.runs[0].categories.id;
    this.shown = (c) =>
      (!group || this.groups[c] === group) &&
      (!words || this.names[c].toLowerCase().includes(words) || String(ids[c]) === words);
    let count = 0;
    this.rows.forEach((row, c) => {
      row.hidden = !this.shown(c);
      count += !row.hidden;
    });
    document.getElementById("count").textContent = `${COUNT(count)} of ${COUNT(this.names.length)}`;
  }

  /** The category that follows c in the table as it is sorted and filtered; itself at the end. */
  neighbour(c, step) {
    const visible = this.order.filter((other) => this.shown(other));
    return visible[visible.indexOf(c) + step] ?? c;
  }
}

/** What every difference between runs is: the first run minus the other. */
function minus(run) {
  return `${data.runs[0].name} minus ${run.name}`;
}

function signed(value) {
  return value === null ? "-" : (value > 0 ? "+" : "") + (100 * value).toFixed(1);
}
