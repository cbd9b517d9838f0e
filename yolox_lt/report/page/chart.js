"use strict";
// Charts as SVG from the same plain values that the PNG images are drawn from (chart.py).

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 250;
const MARGIN = { left: 58, right: 10, top: 8, bottom: 36 };

/** An HTML element with a class, texts and children; texts never become markup. */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null));
  return made;
}

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const colorOf = (key) => `var(--c-${key})`;

/** A number in at most three significant digits, whole ones in full with separators. */
function short(value) {
  if (value === null || !Number.isFinite(value)) return "-";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size < 0.0001) return value.toExponential(1).replace(".0", "");
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3)));
}

/** {at: value -> pixel, ticks: values} of an axis over pixels `from` to `to`. */
function axisScale(values, range, log, from, to, count) {
  const known = values.filter((v) => v !== null && (!log || v > 0)).map((v) => (log ? Math.log10(v) : v));
  let low = range ? range[0] : known.reduce((a, b) => Math.min(a, b), Infinity);
  let high = range ? range[1] : known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!range) {
    const pad = (high - low || Math.abs(high) || 1) * 0.04;
    low -= pad;
    high += pad;
  }
  const whole = !range && !log && known.every(Number.isInteger);
  const at = (v) => (log && v <= 0 ? NaN : from + (((log ? Math.log10(v) : v) - low) / (high - low)) * (to - from));
  return { at, ticks: log ? logTicks(low, high) : ticksBetween(low, high, count, whole) };
}

/** Round values from low to high, about `count` of them; whole numbers only if `whole`. */
function ticksBetween(low, high, count, whole) {
  const raw = Math.max((high - low) / count, whole ? 1 : 0);
  const base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * base).find((s) => s >= raw * 0.9);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const within = high - low < 1.5 ? [1, 2, 5] : [1];
  for (let e = Math.floor(low); e <= high; e++)
    for (const f of within) if (Math.log10(f) + e >= low && Math.log10(f) + e <= high) ticks.push(Number(`${f}e${e}`));
  return ticks.length > 1 ? ticks : ticksBetween(10 ** low, 10 ** high, 4, false);
}

/** A figure with title, legend, drawing and note; `names` label items, `onItem` is told a clicked one. */
function chartFigure(chart, options = {}) {
  const caption = element("figcaption", "", chart.title);
  if (options.of) caption.append(element("span", "of", `  ${options.of}`));
  const figure = element("figure", "chart", caption);
  figure.dataset.key = chart.key;
  const several = chart.series.length > 1;
  if (several) figure.append(legendOf(chart.series));
  if (chart.rows.length) {
    figure.append(sharesOf(chart));
  } else {
    const area = element("div");
    figure.append(area);
    let width = 0;
    new ResizeObserver(() => {
      if (area.clientWidth === width || !area.clientWidth) return;
      width = area.clientWidth;
      area.replaceChildren(drawing(chart, width, options, figure));
    }).observe(area);
  }
  if (chart.note) figure.append(element("p", "note", chart.note));
  return figure;
}

function dot(color) {
  const made = element("span", "dot");
  made.style.background = colorOf(color);
  return made;
}

function legendOf(series) {
  return element("div", "legend", ...series.map((s) => element("span", "", dot(s.color), s.name)));
}

function sharesOf(chart) {
  const rows = element("div", "shares");
  chart.rows.forEach((name, row) => {
    const bar = element("div", "bar");
    for (const series of chart.series) {
      const share = series.y[row] || 0;
      const part = element("span", "", share >= 0.06 ? String(Math.round(100 * share)) : "");
      part.style.cssText = `width:${100 * share}%;background:${colorOf(series.color)}`;
      part.title = `${series.name} (${ERRORS[series.name]}): ${(100 * share).toFixed(1)} %`;
      bar.append(part);
    }
    rows.append(element("span", "label", name), bar);
  });
  return rows;
}

function drawing(chart, width, options, figure) {
  const right = width - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const all = (...names) => chart.series.flatMap((s) => names.flatMap((name) => s[name] || []));
  const x = axisScale(all("x"), null, chart.x_log, MARGIN.left, right, Math.max(width / 70, 2));
  const y = axisScale(all("y", "low", "high"), options.yRange || chart.y_range, chart.y_log, bottom, MARGIN.top, 5);
  const svg = shape("svg", { height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": chart.title });
  for (const v of y.ticks) {
    svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y.at(v), y2: y.at(v) }));
    svg.append(shape("text", { x: MARGIN.left - 6, y: y.at(v) + 4, "text-anchor": "end" }, short(v)));
  }
  for (const v of x.ticks) svg.append(shape("text", { x: x.at(v), y: bottom + 16, "text-anchor": "middle" }, short(v)));
  svg.append(shape("text", { x: (MARGIN.left + right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, chart.x_label));
  const middle = (MARGIN.top + bottom) / 2;
  const turned = { x: 9, y: middle, "text-anchor": "middle", transform: `rotate(-90 9 ${middle})` };
  svg.append(shape("text", turned, chart.y_label));
  const points = [];
  for (const series of chart.series) drawSeries(svg, series, x, y, points);
  attachTip(svg, points, chart, options, figure);
  return svg;
}

function drawSeries(svg, series, x, y, points) {
  const at = [];
  series.x.forEach((value, i) => {
    if (value === null || series.y[i] === null) return at.push(null);
    const point = { px: x.at(value), py: y.at(series.y[i]), series, i };
    at.push(Number.isFinite(point.px) && Number.isFinite(point.py) ? point : null);
  });
  const known = at.filter((p) => p !== null);
  points.push(...known);
  const color = colorOf(series.color);
  if (series.kind === "points" || known.length <= 12) {
    const many = known.length > 150;
    const group = shape("g", { class: series.kind !== "points" ? "" : many ? "dots many" : "dots", fill: color });
    for (const p of known) group.append(shape("circle", { cx: p.px.toFixed(1), cy: p.py.toFixed(1), r: many ? 2.2 : 3.5 }));
    svg.append(group);
  }
  if (series.kind === "points") return;
  if (series.low && known.length > 1) {
    const edge = (name) => series.x.map((v, i) => [x.at(v), y.at(series[name][i])].map((p) => p.toFixed(1)).join(" "));
    const outline = [...edge("low"), ...edge("high").reverse()].join(" L ");
    svg.append(shape("path", { class: "band", d: `M ${outline} Z`, fill: color }));
  }
  let path = "";
  at.forEach((p, i) => {
    if (p) path += `${i && at[i - 1] ? "L" : "M"}${p.px.toFixed(1)} ${p.py.toFixed(1)}`;
  });
  svg.append(shape("path", { class: "line", d: path, stroke: color }));
}

/** Show the values of the point next to the pointer. */
function attachTip(svg, points, chart, options, figure) {
  const tip = element("div", "tip");
  tip.hidden = true;
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = null;
    let least = 30 ** 2;
    for (const p of points) {
      const distance = (p.px - px) ** 2 + (p.py - py) ** 2;
      if (distance < least) [best, least] = [p, distance];
    }
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const p = nearest(event);
    tip.hidden = p === null;
    if (p === null) return tip.remove();
    const { series, i } = p;
    const item = series.items && options.names ? `${options.names[series.items[i]]}: ` : `${series.name}: `;
    tip.textContent = `${item}${short(series.y[i])} at ${chart.x_label.split(",")[0]} ${short(series.x[i])}`;
    figure.append(tip);
    const box = figure.getBoundingClientRect();
    const left = event.clientX - box.left + 12;
    tip.style.left = `${Math.max(Math.min(left, box.width - tip.offsetWidth - 4), 0)}px`;
    tip.style.top = `${event.clientY - box.top + 14}px`;
  });
  svg.addEventListener("pointerleave", () => tip.remove());
  svg.addEventListener("click", (event) => {
    const p = nearest(event);
    if (p && p.series.items && options.onItem) options.onItem(p.series.items[p.i]);
  });
}
