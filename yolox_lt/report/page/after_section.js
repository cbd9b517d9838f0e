"use strict";
// The section on calibration and thresholds, from the values of after_section.py.

/** A table of texts; `marked`: number of a row to mark, -1 for none. */
function plainTable(titles, rows, marked = -1) {
  const head = element("tr", "", ...titles.map((title) => element("th", "", title)));
  const body = rows.map((row, i) => element("tr", i === marked ? "chosen" : "", ...row.map((text) => element("td", "", text))));
  return element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...body)));
}

function scanPart(scan) {
  const names = ["AP", "APr", "APc", "APf"];
  const titles = ["tau", ...names, ...names.map((name) => `${name} fixed`), ...Object.values(GROUPS).map((name) => `places, ${name}`)];
  const rows = scan.strength.map((tau, i) => [
    tau === null ? "none" : String(tau),
    ...[...scan.held_out[i], ...scan.fixed[i], ...scan.places[i]].map(PERCENT),
  ]);
  const note = `In percent. AP: at most ${COUNT(scan.cap)} detections an image, and without that limit (fixed), on the half of the images ` +
    "that the strength was not chosen on; places: shares of the detections shown, by group. Marked: the strength in the file.";
  const figures = element("div", "charts apart", ...scan.charts.map((chart) => chartFigure(chart, {})));
  return [element("h3", "", `${scan.checkpoint}: ${scan.method}`), plainTable(titles, rows, scan.chosen), element("p", "note", note), figures];
}

function thresholdPart(found) {
  const titles = ["from which score on", "group", "categories", "score, mean", "precision", "recall", "F1"];
  const rows = found.rows.map((row) => [
    row.rule, GROUPS[row.group] || "all", COUNT(row.categories), SCORE(row.conf), PERCENT(row.precision), PERCENT(row.recall), PERCENT(row.F1),
  ]);
  const note = "Means over the categories, in percent, at IoU 0.5, on the images that the thresholds were chosen on.";
  return [element("h3", "", `${found.checkpoint}: thresholds of the categories`), plainTable(titles, rows), element("p", "note", note)];
}

function afterTraining() {
  const section = document.getElementById("after");
  runs.forEach((run, k) => {
    const parts = [...run.after.scans.flatMap(scanPart), ...run.after.thresholds.flatMap(thresholdPart)];
    if (!parts.length) return;
    section.hidden = false;
    section.append(...(runs.length > 1 ? [element("p", "", dot(k % 6), run.name)] : []), ...parts);
  });
}
