"use strict";
// Filter, sort, mosaic, ratings; the map of levels; values per level. Everything comes from the page itself.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("image-list");
  if (!list) return;
  for (const element of document.querySelectorAll("[data-js]")) element.hidden = false;
  const $ = (id) => document.getElementById(id);
  const images = data.images;
  const count = images.image.length;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const name = (i) => images.participant[i] + (images.session[i] ? " " + images.session[i] : "");

  // ---- table ------------------------------------------------------------------------------------------------
  const body = list.querySelector("tbody");
  const rows = [...body.rows].map((row) => ({
    row, i: Number(row.dataset.i), status: row.dataset.status, count: Number(row.dataset.count),
    text: row.textContent.toLowerCase(), flagged: row.querySelector(".tag") !== null,
  }));
  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = $("status").value, flagged = $("flagged").checked;
    let shown = 0;
    for (const r of rows) {
      const keep = (!status || r.status === status) && (!flagged || r.flagged) && words.every((w) => r.text.includes(w));
      r.row.hidden = !keep;
      shown += keep;
    }
    $("shown").textContent = shown === count ? count + " images" : shown + " of " + count + " images";
  }
  $("search").addEventListener("input", filter);
  $("status").addEventListener("change", filter);
  $("flagged").addEventListener("change", filter);
  const order = new Intl.Collator("en", { numeric: true });
  for (const head of list.querySelectorAll("th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", key = head.dataset.key;
      for (const other of list.querySelectorAll("th[data-key]")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = key === "count" ? (a, b) => a.count - b.count
        : key === "status" ? (a, b) => order.compare(a.status, b.status)
        : (a, b) => order.compare(images[key][a.i], images[key][b.i]);
      rows.sort((a, b) => (up ? 1 : -1) * value(a, b) || a.i - b.i);
      body.append(...rows.map((r) => r.row));
    });
  }
  function mosaic(on) {
    list.classList.toggle("mosaic", on);
    $("mosaic").setAttribute("aria-pressed", String(on));
  }
  $("mosaic").addEventListener("click", () => mosaic(!list.classList.contains("mosaic")));
  if (innerWidth <= 640) mosaic(true);

  // ---- ratings ----------------------------------------------------------------------------------------------
  const store = "totalspineseg_bids ratings " + data.dataset;
  let ratings = { ...data.ratings };
  try { ratings = { ...ratings, ...JSON.parse(localStorage.getItem(store) || "{}") }; } catch { /* private window */ }
  const choice = document.createElement("select");
  choice.className = "rating";
  for (const value of ["", "good", "doubtful", "bad"]) choice.add(new Option(value || "–", value));
  for (const { row, i } of rows) {
    const select = choice.cloneNode(true);
    select.value = select.dataset.value = ratings[images.image[i]] || "";
    select.setAttribute("aria-label", "Rating of " + images.image[i]);
    select.addEventListener("change", () => {
      select.dataset.value = ratings[images.image[i]] = select.value;
      try { localStorage.setItem(store, JSON.stringify(ratings)); } catch { /* private window */ }
    });
    row.querySelector(".rate").append(select);
  }
  $("download").addEventListener("click", () => {
    const clean = (text) => String(text).replace(/[\t\r\n]/g, " ") || "n/a";
    const lines = ["participant\tsession\timage\trating"];
    for (let i = 0; i < count; i++) {
      const rating = ratings[images.image[i]];
      if (rating) lines.push([images.participant[i], images.session[i], images.image[i], rating].map(clean).join("\t"));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/tab-separated-values" }));
    link.download = "ratings.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  filter();

  // ---- tip --------------------------------------------------------------------------------------------------
  const tip = $("tip");
  function showTip(event, lines, picture) {
    tip.replaceChildren();
    for (const line of lines) tip.append(Object.assign(document.createElement("div"), { textContent: line }));
    if (picture) tip.append(Object.assign(document.createElement("img"), { src: picture, alt: "" }));
    tip.style.display = "block";
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const y = event.clientY + 14 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 14;
    tip.style.left = Math.max(4, x) + "px";
    tip.style.top = Math.max(4, y) + "px";
  }
  const hideTip = () => { tip.style.display = "none"; };
  function canvasOf(id, width, height) {
    const canvas = $(id), ratio = Math.min(3, devicePixelRatio || 1);
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    return pen;
  }
  const place = (event) => { const box = event.target.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

  // ---- levels seen ------------------------------------------------------------------------------------------
  const heat = { kind: data.vertebrae.length || !data.discs.length ? "vertebrae" : "discs" };
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  // One blue from pale to full: readable without colour vision, too.
  const shade = (c) => { const t = (c + 0.5) / 10; return dark() ? `hsl(212 70% ${22 + 46 * t}%)` : `hsl(212 ${45 + 20 * t}% ${86 - 48 * t}%)`; };
  function drawHeat() {
    const levels = data[heat.kind], offset = heat.kind === "vertebrae" ? 0 : data.vertebrae.length;
    const row = count <= 60 ? 18 : count <= 300 ? 8 : 4;
    const names = row >= 12, left = names ? Math.min(170, 12 + 7 * Math.max(4, ...images.participant.map((_, i) => name(i).length))) : 14;
    const room = $("heat").closest(".heat").clientWidth - left - 10;
    const cell = Math.max(heat.kind === "discs" ? 15 : 14, Math.min(44, room / Math.max(1, levels.length)));
    const head = heat.kind === "discs" ? 62 : 26;
    Object.assign(heat, { levels, offset, row, left, cell, head });
    const pen = canvasOf("heat", Math.max(left + cell * levels.length + 10, 200), head + row * count + 6);
    pen.fillStyle = css("--muted");
    levels.forEach((level, k) => {
      pen.save();
      pen.translate(left + cell * (k + 0.5), head - 6);
      if (heat.kind === "discs") pen.rotate(-Math.PI / 2); else pen.textAlign = "center";
      if (heat.kind === "discs") pen.textBaseline = "middle";
      if (cell < 21 && heat.kind !== "discs") pen.font = "9px system-ui, sans-serif";
      pen.fillText(level, 0, 0);
      pen.restore();
    });
    pen.textBaseline = "middle";
    for (let i = 0; i < count; i++) {
      const y = head + row * i, gap = row > 6 ? 1 : 0;
      if (names) { pen.fillStyle = css("--muted"); pen.fillText(name(i).slice(0, 24), 6, y + row / 2); }
      for (let k = 0; k < levels.length; k++) {
        const mark = data.seen[i][offset + k], x = left + cell * k;
        if (mark === ".") { pen.fillStyle = css("--soft"); pen.fillRect(x, y, cell - 1, row - gap); continue; }
        pen.fillStyle = mark === "p" ? css("--soft") : shade(Number(mark));
        pen.fillRect(x, y, cell - 1, row - gap);
        if (mark === "p") { pen.fillStyle = shade(6); pen.beginPath(); pen.moveTo(x, y + row - gap); pen.lineTo(x + cell - 1, y); pen.lineTo(x + cell - 1, y + row - gap); pen.fill(); }
      }
    }
    const legend = $("heat-legend");
    legend.replaceChildren();
    for (const [color, text] of [[css("--soft"), "not in view"], [shade(2), "seen, doubtful"], [shade(9), "seen, sure"]]) {
      const item = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = color;
      item.append(swatch, text);
      legend.append(item);
    }
    const half = document.createElement("span"), swatch = document.createElement("i");
    swatch.style.background = `linear-gradient(135deg, ${css("--soft")} 50%, ${shade(6)} 50%)`;
    half.append(swatch, "cut by the field of view");
    legend.append(half);
  }
  function heatAt(event) {
    const [x, y] = place(event), i = Math.floor((y - heat.head) / heat.row), k = Math.floor((x - heat.left) / heat.cell);
    return i >= 0 && i < count ? { i, k } : null;
  }
  $("heat").addEventListener("mousemove", (event) => {
    const at = heatAt(event);
    if (!at) { hideTip(); return; }
    const lines = [name(at.i), images.image[at.i]], level = heat.levels[at.k];
    if (level) {
      const mark = data.seen[at.i][heat.offset + at.k];
      lines.push(level + ": " + (mark === "." ? "not in view" : mark === "p" ? "cut by the field of view" : "confidence " + (mark === "9" ? "over 0.9" : "0." + mark + " or more")));
    }
    $("heat").classList.toggle("pointing", Boolean(images.report[at.i]));
    showTip(event, lines);
  });
  $("heat").addEventListener("mouseleave", hideTip);
  $("heat").addEventListener("click", (event) => { const at = heatAt(event); if (at && images.report[at.i]) location.href = encodeURI(images.report[at.i]); });
  press("heat", (kind) => { heat.kind = kind; drawHeat(); }, heat.kind);

  function press(attribute, act, first) {
    const buttons = [...document.querySelectorAll(`[data-${attribute}]`)];
    const set = (value) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset[attribute] === value)));
    set(first);
    for (const button of buttons) button.addEventListener("click", () => { set(button.dataset[attribute]); act(button.dataset[attribute]); });
  }

  // ---- values per level -------------------------------------------------------------------------------------
  const strip = { kind: heat.kind, points: [] };
  const OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C00", "#7A5195"];
  for (const m of data.measures) $("measure").add(new Option(m.name + (m.unit ? " (" + m.unit + ")" : ""), m.key));
  for (const column of ["session", ...data.participants.columns]) {
    if (column !== "session" || new Set(images.session).size > 1) $("by").add(new Option(column, column));
  }
  const parsed = new Map();
  function values(measure, level) {
    const key = measure + " " + level;
    if (!parsed.has(key)) {
      const text = (data.values[measure] || {})[level];
      parsed.set(key, text === undefined ? [] : text.split(",").map((v, i) => [v, i]).filter(([v]) => v !== "").map(([v, i]) => [Number(v), i]));
    }
    return parsed.get(key);
  }
  const quantile = (sorted, p) => { const at = (sorted.length - 1) * p, low = Math.floor(at); return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]); };
  const spread = (i, k) => ((Math.imul(i + 1, 2654435761) ^ Math.imul(k + 7, 40503)) >>> 8) % 1000 / 1000 - 0.5;
  function ticks(low, high) {
    const raw = (high - low) / 6 || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((s) => s * power >= raw) * power, found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(Math.abs(v) < 1e-9 ? 0 : v);
    return [found, Math.max(0, -Math.floor(Math.log10(step)))];
  }
  function colours(column) {
    const of = (i) => column === "session" ? images.session[i] : (data.participants.rows[images.participant[i]] || [])[data.participants.columns.indexOf(column)] ?? "";
    const all = Array.from({ length: count }, (_, i) => of(i)), distinct = [...new Set(all.filter(Boolean))].sort(order.compare);
    const numeric = distinct.length > 6 && distinct.every((v) => Number.isFinite(Number(v)));
    if (numeric) {
      const numbers = distinct.map(Number), low = Math.min(...numbers), high = Math.max(...numbers);
      const ramp = (v) => `hsl(${260 - 210 * (v - low) / (high - low || 1)} 75% ${dark() ? 62 : 42}%)`;
      const steps = [0, 0.5, 1].map((t) => low + t * (high - low));
      return { color: (i) => all[i] === "" ? css("--muted") : ramp(Number(all[i])), legend: steps.map((v) => [ramp(v), String(Math.round(v * 100) / 100)]), text: (i) => all[i] };
    }
    const color = (v) => { const at = distinct.indexOf(v); return at < 0 ? css("--muted") : OKABE_ITO[at % OKABE_ITO.length]; };
    return { color: (i) => color(all[i]), legend: distinct.slice(0, 12).map((v) => [color(v), v]), text: (i) => all[i] };
  }
  function drawStrip() {
    const alignment = strip.kind === "alignment", measure = alignment ? "angle" : $("measure").value;
    const about = alignment
      ? { unit: "°", about: "Angles between planes fitted to whole vertebral bodies; lordosis and kyphosis are positive" }
      : data.measures.find((m) => m.key === measure);
    $("measure").disabled = alignment;
    const levels = data[strip.kind].filter((level) => values(measure, level).length);
    $("about").textContent = about ? about.about + "." : "";
    const width = $("strip").parentElement.clientWidth, height = Math.max(300, Math.min(460, 0.36 * width)), left = 58, bottom = alignment ? (width < 700 ? 150 : 34) : strip.kind === "discs" ? 62 : 30;
    const pen = canvasOf("strip", width, height);
    strip.points = [];
    $("strip-legend").replaceChildren();
    pen.fillStyle = css("--muted");
    if (!levels.length) { pen.fillText("No whole level with this measure.", left, height / 2); return; }
    const all = levels.flatMap((level) => values(measure, level).map(([v]) => v));
    let low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
    if (low > 0 && low < 0.5 * high) low = 0;
    const margin = 0.04 * (high - low || Math.abs(high) || 1);
    low = low === 0 ? 0 : low - margin;
    high += margin;
    const y = (v) => 12 + (height - bottom - 12) * (1 - (v - low) / (high - low)), step = (width - left - 8) / levels.length, x = (k) => left + step * (k + 0.5);
    const [marks, decimals] = ticks(low, high);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const v of marks) {
      pen.fillStyle = css("--muted");
      pen.fillText(v.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replaceAll(",", "\u202f"), left - 8, y(v));
      pen.strokeStyle = css("--line");
      pen.beginPath(); pen.moveTo(left, Math.round(y(v)) + 0.5); pen.lineTo(width - 8, Math.round(y(v)) + 0.5); pen.stroke();
    }
    const by = $("by").value, paint = by ? colours(by) : null, plain = css("--accent");
    levels.forEach((level, k) => {
      pen.fillStyle = css("--muted");
      pen.save();
      pen.translate(x(k), height - bottom + 10);
      if (strip.kind === "discs" || step < 22 || (alignment && step < 150)) { pen.rotate(-Math.PI / 2); pen.textAlign = "right"; } else { pen.textAlign = "center"; pen.textBaseline = "top"; }
      pen.fillText(level, 0, 0);
      pen.restore();
      const points = values(measure, level), sorted = points.map(([v]) => v).sort((a, b) => a - b);
      const [q1, q2, q3] = [0.25, 0.5, 0.75].map((p) => quantile(sorted, p)), half = Math.min(16, 0.36 * step);
      if (sorted.length >= 4) {
        pen.fillStyle = css("--soft"); pen.strokeStyle = css("--muted");
        pen.fillRect(x(k) - half, y(q3), 2 * half, y(q1) - y(q3));
        pen.globalAlpha = 0.5; pen.strokeRect(x(k) - half, y(q3), 2 * half, y(q1) - y(q3)); pen.globalAlpha = 1;
      }
      pen.globalAlpha = points.length > 200 ? 0.35 : 0.75;
      for (const [v, i] of points) {
        const px = x(k) + (points.length > 1 ? 1.5 * half * spread(i, k) : 0), py = y(v);
        pen.fillStyle = paint ? paint.color(i) : plain;
        pen.beginPath(); pen.arc(px, py, points.length > 200 ? 2 : 3, 0, 7); pen.fill();
        strip.points.push([px, py, i, level, v]);
      }
      pen.globalAlpha = 1;
      if (sorted.length >= 4) { pen.strokeStyle = css("--ink"); pen.lineWidth = 2; pen.beginPath(); pen.moveTo(x(k) - half, y(q2)); pen.lineTo(x(k) + half, y(q2)); pen.stroke(); pen.lineWidth = 1; }
    });
    for (const [color, text] of paint ? paint.legend : []) {
      const item = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = color;
      item.append(swatch, text);
      $("strip-legend").append(item);
    }
    strip.about = about;
    strip.paint = paint;
  }
  function pointAt(event) {
    const [x, y] = place(event);
    let best = null, nearest = 100;
    for (const p of strip.points) { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < nearest) { nearest = d; best = p; } }
    return best;
  }
  $("strip").addEventListener("mousemove", (event) => {
    const p = pointAt(event);
    $("strip").classList.toggle("pointing", Boolean(p));
    if (!p) { hideTip(); return; }
    const lines = [`${p[3]}: ${p[4]} ${strip.about.unit}`, name(p[2]), images.image[p[2]]];
    if (strip.paint) lines.push($("by").value + ": " + (strip.paint.text(p[2]) || "n/a"));
    showTip(event, lines, images.thumbnail[p[2]]);
  });
  $("strip").addEventListener("mouseleave", hideTip);
  $("strip").addEventListener("click", (event) => { const p = pointAt(event); if (p && images.report[p[2]]) location.href = encodeURI(images.report[p[2]]); });
  $("measure").addEventListener("change", drawStrip);
  $("by").addEventListener("change", drawStrip);
  document.querySelector('[data-kind="alignment"]').hidden = !data.alignment.length;
  press("kind", (kind) => { strip.kind = kind; drawStrip(); }, strip.kind);

  const draw = () => { drawHeat(); drawStrip(); };
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
