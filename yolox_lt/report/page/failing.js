"use strict";
// The first section: which categories fail, and why, from the values of failing.py.

/** `open` is told the category of a clicked name, null without a table of categories. */
function failingCategories(open) {
  const section = document.getElementById("failing");
  const box = section.querySelector(".columns");
  runs.forEach((run, k) => {
    if (!run.categories.name) return;
    section.hidden = false;
    const head = runs.length > 1 ? element("h3", "", dot(k % 6), run.name) : null;
    const line = element("p", "line", run.failing.line);
    box.append(element("div", "failing", head, line, run.failing.rows.length ? failingTable(run, k, open) : null));
  });
  const rules = section.querySelector("dl");
  for (const [cause, rule] of Object.entries(data.cause_rules)) rules.append(element("dt", "", cause), element("dd", "", rule));
}

function failingTable(run, k, open) {
  const places = positionsIn(run, runs[0]);
  const titles = ["category", "group", "AP", "most likely cause, and what was measured"];
  const rows = run.failing.rows.map((row) => {
    const name = element(open && places[row.label] >= 0 ? "button" : "span", "", run.categories.name[row.label]);
    if (name.tagName === "BUTTON") name.addEventListener("click", () => open(places[row.label]));
    const group = run.categories.group[row.label];
    const kind = element("td", "", ...(group ? [dot(group), GROUPS[group]] : ["-"]));
    const why = element("td", "", element("strong", "", row.cause), ` ${row.text}`);
    return element("tr", "", element("td", "", name), kind, element("td", "", PERCENT(row.AP)), why);
  });
  const head = element("tr", "", ...titles.map((title) => element("th", "", title)));
  return element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...rows)));
}
