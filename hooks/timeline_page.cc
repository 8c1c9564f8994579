#include "millrace/hooks/timeline_page.h"

namespace millrace {

const char* const kTimelineHead = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace timeline</title>
<style>
:root { color-scheme: light dark; --bg: #fbfbfa; --fg: #22262a; --dim: #6b7278; --line: #dfe2e4; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #16191c; --fg: #e4e7e9; --dim: #929aa1; --line: #2d3338; }
}
body { margin: 0; padding: 20px 24px; background: var(--bg); color: var(--fg);
  font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 17px; margin: 0 0 2px; }
p { margin: 0 0 10px; color: var(--dim); }
canvas { width: 100%; display: block; cursor: grab; touch-action: none; }
#legend span { margin-right: 16px; white-space: nowrap; }
#legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px;
  vertical-align: -1px; }
#tip { position: fixed; pointer-events: none; display: none; background: var(--fg);
  color: var(--bg); padding: 6px 9px; border-radius: 5px; font-size: 13px; max-width: 420px; }
</style>
</head>
<body>
<h1 id="title"></h1>
<p id="summary"></p>
<canvas id="view"></canvas>
<p id="legend"></p>
<p>Wheel: zoom. Drag: move. Double click: everything.</p>
<div id="tip"></div>
<script>
const D = )html";

const char* const kTimelineTail = R"html(;
const KINDS = ["step", "validation", "save: training waits", "gate: the optimizer waits",
  "beside training", "skipped, replaced or discarded", "failed"];
const COLORS = ["#7fa7d6", "#9f8fd0", "#d9534f", "#e8963a", "#4fa58a", "#c2a21a", "#b3261e"];
const LABEL = 78, ROW = 30, AXIS = 28, PAD = 6;
const canvas = document.getElementById("view"), pen = canvas.getContext("2d");
const tip = document.getElementById("tip");
const spans = D.spans.map(s => ({ row: s[0], kind: s[1], at: s[2], length: s[3],
  name: s[1] === 0 ? "step " + s[4] : s[4], bytes: s[5] || 0, mode: s[6] || "",
  error: s[7] || "" }));
const begin = spans.reduce((m, s) => Math.min(m, s.at), Infinity);
const end = spans.reduce((m, s) => Math.max(m, s.at + s.length), begin + 1);
const byRow = D.rows.map((_, i) => spans.filter(s => s.row === i + 1));
byRow.forEach(row => row.sort((a, b) => a.kind - b.kind || a.at - b.at));
let from = begin, to = end, width = 0;

function time(us) {
  if (us >= 1e6) return (us / 1e6).toFixed(us < 1e7 ? 2 : 1) + " s";
  if (us >= 1e3) return (us / 1e3).toFixed(us < 1e4 ? 2 : 1) + " ms";
  return us.toFixed(0) + " \u00b5s";
}
function x(us) { return LABEL + (us - from) / (to - from) * (width - LABEL); }
function style(name) { return getComputedStyle(document.body).getPropertyValue(name).trim(); }

function axis() {
  const rough = (to - from) / Math.max(2, (width - LABEL) / 110);
  const unit = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map(f => f * unit).find(f => f >= rough);
  pen.textAlign = "center";
  for (let t = Math.ceil((from - begin) / step) * step; t <= to - begin; t += step) {
    const at = x(begin + t);
    pen.strokeStyle = style("--line");
    pen.beginPath(); pen.moveTo(at, AXIS - 4); pen.lineTo(at, AXIS + ROW * D.rows.length);
    pen.stroke();
    pen.fillStyle = style("--dim");
    if (at > LABEL + 20 && at < width - 20) pen.fillText(time(t), at, 14);
  }
}

function draw() {
  const scale = devicePixelRatio || 1, height = AXIS + ROW * D.rows.length + 4;
  width = canvas.clientWidth;
  canvas.width = width * scale; canvas.height = height * scale;
  canvas.style.height = height + "px";
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  axis();
  byRow.forEach((row, i) => {
    const top = AXIS + i * ROW;
    pen.save(); pen.beginPath(); pen.rect(LABEL, 0, width - LABEL, height); pen.clip();
    let filled = -1, color = -1;
    for (const s of row) {
      if (s.at + s.length < from || s.at > to) continue;
      const left = x(s.at), right = Math.max(left + 1, x(s.at + s.length));
      if (s.kind === color && right <= filled) continue;  // nothing new in this pixel
      pen.fillStyle = COLORS[s.kind];
      const inset = s.kind === 3 ? 8 : 0;
      const gap = right - left > 4 ? 1 : 0;
      pen.fillRect(left, top + PAD / 2 + inset, right - left - gap, ROW - PAD - inset);
      if (right - left > 70 && s.kind !== 5) {
        pen.fillStyle = "#fff"; pen.textAlign = "left";
        pen.save(); pen.beginPath(); pen.rect(left, top, right - left - 4, ROW); pen.clip();
        pen.fillText(s.name, left + 5, top + ROW / 2 + 4); pen.restore();
      }
      filled = Math.ceil(right); color = s.kind;
    }
    pen.restore();
    pen.fillStyle = style("--fg"); pen.textAlign = "left";
    pen.fillText(D.rows[i], 0, top + ROW / 2 + 4);
  });
}

function found(event) {
  const box = canvas.getBoundingClientRect();
  const px = event.clientX - box.left, i = Math.floor((event.clientY - box.top - AXIS) / ROW);
  if (px < LABEL || !byRow[i]) return null;
  let hit = null;
  for (const s of byRow[i]) {
    if (x(s.at) - 1 <= px && px <= Math.max(x(s.at) + 2, x(s.at + s.length))) hit = s;
  }
  return hit;
}

let drag = null;
canvas.addEventListener("pointermove", event => {
  if (drag) {
    const move = (drag.x - event.clientX) / (width - LABEL) * (drag.to - drag.from);
    from = drag.from + move; to = drag.to + move; draw();
  }
  const s = drag ? null : found(event);
  tip.style.display = s ? "block" : "none";
  if (!s) return;
  const parts = [s.name, time(s.length), "at " + time(s.at - begin)];
  if (s.bytes) parts.push((s.bytes / 1048576).toFixed(1) + " MiB");
  if (s.mode) parts.push(s.mode);
  if (s.error) parts.push(s.error);
  tip.textContent = parts.join(" \u00b7 ");
  tip.style.left = Math.min(event.clientX + 14, innerWidth - 300) + "px";
  tip.style.top = event.clientY + 18 + "px";
});
canvas.addEventListener("pointerdown", event => {
  drag = { x: event.clientX, from, to }; canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; });
canvas.addEventListener("dblclick", () => { from = begin; to = end; draw(); });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const share = (event.clientX - canvas.getBoundingClientRect().left - LABEL) / (width - LABEL);
  const at = from + share * (to - from), factor = Math.exp(event.deltaY * 0.0015);
  const span = Math.min(Math.max((to - from) * factor, 20), (end - begin) * 1.2);
  from = at - share * span; to = from + span; draw();
}, { passive: false });
addEventListener("resize", draw);

document.getElementById("title").textContent = D.name;
const saves = spans.filter(s => s.kind === 2), waits = spans.filter(s => s.kind === 3);
const taken = saves.concat(waits).reduce((sum, s) => sum + s.length, 0);
const steps = spans.filter(s => s.kind === 0).length;
document.getElementById("summary").textContent =
  steps + " steps and " + saves.length + " checkpoints in " + time(end - begin) +
  "; saving took " + time(taken) + " of the train thread (" +
  (100 * taken / (end - begin)).toFixed(2) + " %).";
document.getElementById("legend").innerHTML = KINDS.map((kind, i) =>
  spans.some(s => s.kind === i)
    ? '<span><i style="background:' + COLORS[i] + '"></i>' + kind + "</span>" : "").join("");
draw();
</script>
</body>
</html>
)html";

}  // namespace millrace
