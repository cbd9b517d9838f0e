"use strict";

const byId = (id) => document.getElementById(id);
const canvas = byId("picture");
let model = { names: [], overlap: 0.65, max_bytes: 0, conf: null };
let rows = []; // one for each category: { item, box, number, name }
let picture = null; // ImageBitmap, or null where the browser cannot show the file
let answer = null; // the server's: { width, height, milliseconds, detections }
let latest = 0; // number of the last upload; answers to earlier ones come too late

// The colours of the library's own images: hues a golden angle apart.
function color(label) {
  const hue = (label * 0.6180339887498949) % 1, saturation = 0.75, value = 0.95 - 0.3 * (Math.floor(label / 8) % 2);
  const channel = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

async function start() {
  byId("drop").classList.add("empty");
  model = await (await fetch("model")).json();
  const list = document.createDocumentFragment();
  rows = model.names.map((name, label) => {
    const item = document.createElement("li"), line = document.createElement("label");
    const box = document.createElement("input"), chip = document.createElement("span");
    const text = document.createElement("span"), number = document.createElement("span");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", show);
    chip.className = "chip";
    chip.style.background = `rgb(${color(label)})`;
    text.className = "name";
    text.textContent = name;
    number.className = "number";
    line.append(box, chip, text, number);
    item.append(line);
    item.className = "absent";
    list.append(item);
    return { item, box, number, name: name.toLowerCase() };
  });
  byId("categories").append(list);
  byId("own").hidden = model.conf === null;
  byId("auto").checked = model.conf !== null;
  show();
}

async function send(file) {
  const number = ++latest;
  if (file.size > model.max_bytes) {
    say(`the file has ${(file.size / 2 ** 20).toFixed(1)} MB; give an image of at most ${model.max_bytes / 2 ** 20} MB`, true);
    return;
  }
  say("looking ...");
  const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "image/unknown" };
  const shown = createImageBitmap(file).catch(() => null);
  let content;
  try {
    const response = await fetch("detect", { method: "POST", headers, body: file });
    content = await response.json();
  } catch {
    content = { error: "no answer; is the server still running?" };
  }
  if (number !== latest) return;
  if (content.error) {
    say(content.error, true);
    return;
  }
  picture = await shown;
  answer = content;
  byId("drop").classList.remove("empty");
  sortCategories();
  show();
}

// Those found come first, by their best score.
function sortCategories() {
  const best = new Map();
  for (const d of answer.detections) best.set(d.label, Math.max(best.get(d.label) ?? 0, d.score));
  const order = rows.map((_, label) => label).sort((a, b) => (best.get(b) ?? -1) - (best.get(a) ?? -1) || a - b);
  byId("categories").append(...order.map((label) => rows[label].item));
  rows.forEach((row, label) => row.item.classList.toggle("absent", !best.has(label)));
}

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared || 1);
}

// The detections to show, best first: as the server sends them.
function chosen() {
  const same = Number(byId("threshold").value), auto = byId("auto").checked, single = byId("single").checked, kept = [];
  for (const d of answer.detections) {
    if (d.score < (auto ? model.conf[d.label] : same) || !rows[d.label].box.checked) continue;
    if (single && kept.some((k) => overlap(k.box, d.box) > model.overlap)) continue;
    kept.push(d);
  }
  return kept;
}

function show() {
  byId("value").textContent = Number(byId("threshold").value).toFixed(2);
  const on = rows.filter((row) => row.box.checked).length;
  byId("count").textContent = `Categories: ${on} of ${rows.length}`;
  if (!answer) return;
  const shown = chosen(), counts = new Map();
  for (const d of shown) counts.set(d.label, (counts.get(d.label) ?? 0) + 1);
  rows.forEach((row, label) => { row.number.textContent = counts.get(label) ?? ""; });
  say(`${shown.length} of ${answer.detections.length} detections, ${answer.width} x ${answer.height} pixels, ` +
    `${Math.round(answer.milliseconds)} ms` + (picture ? "" : "; this browser cannot show the file"));
  draw(shown);
}

function draw(shown) {
  // Small images are enlarged, so that names can be read.
  const scale = Math.max(Math.min(1600 / Math.max(answer.width, answer.height), 4), 0.1);
  canvas.hidden = false;
  canvas.width = Math.round(answer.width * scale);
  canvas.height = Math.round(answer.height * scale);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const unit = canvas.width / Math.max(canvas.clientWidth, 1), height = 18 * unit; // canvas pixels of a screen pixel
  pen.lineWidth = 2 * unit;
  pen.font = `${13 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  // The best comes last and stays on top.
  for (const d of [...shown].reverse()) {
    const [x1, y1, x2, y2] = d.box.map((v) => v * scale), paint = color(d.label);
    pen.strokeStyle = pen.fillStyle = `rgb(${paint})`;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${d.name} ${Math.round(100 * d.score)}`, width = pen.measureText(text).width + 8 * unit;
    const left = Math.max(0, Math.min(x1, canvas.width - width)), top = y1 >= height ? y1 - height : y1;
    pen.fillRect(left, top, width, height);
    pen.fillStyle = paint[0] + paint[1] + paint[2] > 380 ? "#000" : "#fff";
    pen.fillText(text, left + 4 * unit, top + height / 2);
  }
}

function mark(checked) {
  for (const row of rows) if (!row.item.hidden) row.box.checked = checked;
  show();
}

byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) send(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) send(event.clipboardData.files[0]);
});
byId("threshold").addEventListener("input", () => { byId("auto").checked = false; show(); });
byId("auto").addEventListener("change", show);
byId("single").addEventListener("change", show);
byId("all").addEventListener("click", () => mark(true));
byId("none").addEventListener("click", () => mark(false));
byId("search").addEventListener("input", (event) => {
  const text = event.target.value.trim().toLowerCase();
  for (const row of rows) row.item.hidden = !row.name.includes(text);
});
window.addEventListener("resize", show);
start().catch(() => say("no answer; is the server still running?", true));
