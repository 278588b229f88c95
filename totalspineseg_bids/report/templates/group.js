"use strict";
// Table of images with filter, sorting and ratings; heat map of levels; plots. All data is embedded in the page.
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
    flagged: row.querySelector(".tag") !== null,
  }));
  // Without the last cell: the choices of the rating are not searched.
  const textOf = (r) => (r.text ??= [...r.row.cells].slice(0, -1).map((cell) => cell.textContent).join(" ").toLowerCase());
  const keep = new Uint8Array(count).fill(1);
  let filterTimer = 0;
  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = $("status").value, flagged = $("flagged").checked, rated = $("rated").value;
    let shown = 0;
    for (const r of rows) {
      const rating = ratingOf(r.i).rating || "unrated";
      keep[r.i] = (!status || r.status === status) && (!flagged || r.flagged) && (!rated || rated === rating) && words.every((w) => textOf(r).includes(w)) ? 1 : 0;
      r.row.hidden = !keep[r.i];
      shown += keep[r.i];
    }
    $("shown").textContent = shown === count ? count + " images" : shown + " of " + count + " images; heat map and plots show only these";
    clearTimeout(filterTimer);
    filterTimer = setTimeout(redraw, 60);
  }
  $("search").addEventListener("input", filter);
  for (const id of ["status", "flagged", "rated"]) $(id).addEventListener("change", filter);
  const order = new Intl.Collator("en", { numeric: true });
  for (const head of list.querySelectorAll("th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", key = head.dataset.key;
      for (const other of list.querySelectorAll("th[data-key]")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = key === "count" ? (a, b) => a.count - b.count
        : key === "status" ? (a, b) => order.compare(a.status, b.status)
        : key === "rating" ? (a, b) => order.compare(ratingOf(b.i).rating || "", ratingOf(a.i).rating || "")
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

  // ---- ratings: stored in the browser, downloaded as TSV, read by --qc-file -------------------------------------
  // A page with other ratings from --qc-file gets its own storage, so that old entries do not override them.
  const initial = JSON.stringify(data.ratings);
  const digest = [...initial].reduce((sum, c) => (Math.imul(sum, 31) + c.charCodeAt(0)) | 0, 7);
  const store = "totalspineseg_bids ratings " + data.dataset + " " + digest;
  const ratings = new Map(Object.entries(data.ratings));
  try { for (const [k, v] of Object.entries(JSON.parse(localStorage.getItem(store) || "{}"))) ratings.set(k, v); } catch { /* storage is disabled, such as in a private window */ }
  function ratingOf(i) { return ratings.get(images.image[i]) || {}; }
  function countRatings() {
    const done = images.image.filter((_, i) => ratingOf(i).rating).length;
    $("rated-count").textContent = done ? done + " of " + count + " rated" : "";
  }
  function rate(r, change) {
    ratings.set(images.image[r.i], { ...ratingOf(r.i), ...change });
    showRating(r);
    countRatings();
    try { localStorage.setItem(store, JSON.stringify(Object.fromEntries(ratings))); } catch { /* storage is disabled, such as in a private window */ }
  }
  function showRating(r) {
    if (!r.select) return;
    r.select.value = r.select.dataset.value = ratingOf(r.i).rating || "";
    if (r.note.value !== (ratingOf(r.i).note || "")) r.note.value = ratingOf(r.i).note || "";
  }
  const choice = document.createElement("select");
  choice.className = "rating";
  for (const value of ["", "good", "doubtful", "bad"]) choice.add(new Option(value || "–", value));
  // Creating thousands of form controls is slow: create those of a row when it scrolls into view.
  function addControls(r) {
    if (r.select) return;
    r.select = choice.cloneNode(true);
    r.select.setAttribute("aria-label", "Rating of " + images.image[r.i]);
    r.select.addEventListener("change", () => rate(r, { rating: r.select.value }));
    r.note = Object.assign(document.createElement("input"), { className: "remark", placeholder: "remark", maxLength: 300 });
    r.note.setAttribute("aria-label", "Remark on " + images.image[r.i]);
    r.note.addEventListener("change", () => rate(r, { note: r.note.value.trim() }));
    showRating(r);
    r.row.querySelector(".rate").append(r.select, r.note);
  }
  const byRow = new Map(rows.map((r) => [r.row, r]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { addControls(byRow.get(entry.target)); watch.unobserve(entry.target); }
  }, { root: list, rootMargin: "600px" });
  for (const r of rows) { r.row.tabIndex = -1; watch.observe(r.row); }
  if (rows.length) rows[0].row.tabIndex = 0;
  countRatings();
  body.addEventListener("keydown", (event) => {
    const at = rows.findIndex((r) => r.row === event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const value = { 0: "", 1: "good", 2: "doubtful", 3: "bad" }[event.key];
    const way = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (value !== undefined) rate(rows[at], { rating: value });
    else if (event.key === "Enter" && images.report[rows[at].i]) location.href = encodeURI(images.report[rows[at].i]);
    else if (!way) return;
    event.preventDefault();
    if (event.key === "Enter") return;
    let next = at + (way || 1);
    while (rows[next] && rows[next].row.hidden) next += way || 1;
    if (rows[next]) rows[next].row.focus();
  });
  $("download").addEventListener("click", () => {
    const clean = (text) => String(text ?? "").replace(/[\t\r\n]+/g, " ").trim() || "n/a";
    const lines = ["participant\tsession\timage\trating\tnote"];
    for (let i = 0; i < count; i++) {
      const { rating, note } = ratingOf(i);
      if (rating || note) lines.push([images.participant[i], images.session[i], images.image[i], rating, note].map(clean).join("\t"));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/tab-separated-values" }));
    link.download = "ratings.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // ---- tooltip ----------------------------------------------------------------------------------------------
  const tip = $("tip");
  const pictureOf = (i) => body.querySelector(`tr[data-i="${i}"] img`)?.src;
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
  function prepareCanvas(id, width, height) {
    // Browsers limit the size of a canvas: draw a very tall one at standard resolution.
    const canvas = $(id), ratio = height > 4000 ? 1 : Math.min(3, devicePixelRatio || 1);
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    return pen;
  }
  const positionIn = (event) => { const box = event.target.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

  // ---- levels seen ------------------------------------------------------------------------------------------
  const heat = { kind: data.vertebrae.length || !data.discs.length ? "vertebrae" : "discs" };
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  // Shades of a single blue, readable without colour vision.
  const shade = (c) => { const t = (c + 0.5) / 10; return dark() ? `hsl(212 70% ${22 + 46 * t}%)` : `hsl(212 ${45 + 20 * t}% ${86 - 48 * t}%)`; };
  function drawHeat() {
    const levels = data[heat.kind], offset = heat.kind === "vertebrae" ? 0 : data.vertebrae.length;
    const shown = images.image.map((_, i) => i).filter((i) => keep[i]), soft = css("--soft"), ink = css("--muted");
    const shades = Array.from({ length: 10 }, (_, c) => shade(c));
    const row = shown.length <= 60 ? 18 : shown.length <= 300 ? 8 : 4;
    const names = row >= 12, left = names ? Math.min(170, 12 + 7 * shown.reduce((most, i) => Math.max(most, Math.min(24, name(i).length)), 4)) : 14;
    const room = $("heat").closest(".heat").clientWidth - left - 10;
    const cell = Math.max(heat.kind === "discs" ? 15 : 14, Math.min(44, room / Math.max(1, levels.length)));
    const head = heat.kind === "discs" ? 62 : 26;
    Object.assign(heat, { levels, offset, row, left, cell, head, shown });
    const pen = prepareCanvas("heat", Math.max(left + cell * levels.length + 10, 200), head + row * shown.length + 6);
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
    const gap = row > 6 ? 1 : 0, wide = cell - 1, high = row - gap;
    // Group cells by colour: changing the fill colour is slower than filling a rectangle.
    const cells = new Map();
    for (let at = 0; at < shown.length; at++) {
      const marks = data.seen[shown[at]];
      for (let k = 0; k < levels.length; k++) {
        const mark = marks[offset + k];
        if (!cells.has(mark)) cells.set(mark, []);
        cells.get(mark).push(left + cell * k, head + row * at);
      }
    }
    for (const [mark, places] of cells) {
      pen.fillStyle = mark === "." || mark === "p" ? soft : mark === "a" ? shades[7] : shades[Number(mark)];
      for (let n = 0; n < places.length; n += 2) pen.fillRect(places[n], places[n + 1], wide, high);
      if (mark !== "p" && mark !== "a") continue;
      pen.fillStyle = mark === "p" ? shades[6] : soft;
      pen.beginPath();
      for (let n = 0; n < places.length; n += 2) {
        const x = places[n], y = places[n + 1];
        // Low rows have no room for diagonals: show a cut level as a partly filled cell.
        if (high < 7) pen.rect(mark === "p" ? x + 0.5 * wide : x, y, (mark === "p" ? 0.5 : 0.2) * wide, high);
        else if (mark === "p") { pen.moveTo(x, y + high); pen.lineTo(x + wide, y); pen.lineTo(x + wide, y + high); } else { pen.moveTo(x, y); pen.lineTo(x + 0.4 * cell, y); pen.lineTo(x, y + 0.6 * row); }
      }
      pen.fill();
    }
    if (names) shown.forEach((i, at) => { pen.fillStyle = ink; pen.fillText(name(i).slice(0, 24), 6, head + row * (at + 0.5)); });
    const legend = $("heat-legend");
    legend.replaceChildren();
    for (const [color, text] of [[css("--soft"), "not in view"], [shade(2), "low confidence"], [shade(9), "high confidence"]]) {
      const item = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = color;
      item.append(swatch, text);
      legend.append(item);
    }
    const corner = document.createElement("span"), notch = document.createElement("i");
    notch.style.background = `linear-gradient(135deg, ${css("--soft")} 35%, ${shade(7)} 35%)`;
    corner.append(notch, "body complete, posterior elements cut off");
    legend.append(corner);
    const half = document.createElement("span"), swatch = document.createElement("i");
    swatch.style.background = `linear-gradient(135deg, ${css("--soft")} 50%, ${shade(6)} 50%)`;
    half.append(swatch, "cut off by the field of view");
    legend.append(half);
  }
  function heatAt(event) {
    const [x, y] = positionIn(event), i = Math.floor((y - heat.head) / heat.row), k = Math.floor((x - heat.left) / heat.cell);
    return i >= 0 && i < heat.shown.length ? { i: heat.shown[i], k } : null;
  }
  $("heat").addEventListener("mousemove", (event) => {
    const at = heatAt(event);
    if (!at) { hideTip(); return; }
    const lines = [name(at.i), images.image[at.i]], level = heat.levels[at.k];
    if (level) {
      const mark = data.seen[at.i][heat.offset + at.k];
      lines.push(level + ": " + (mark === "." ? "not in view" : mark === "p" ? "cut off by the field of view" : mark === "a" ? "body complete, posterior elements cut off by the field of view" : "confidence " + (mark === "9" ? "0.9 or more" : "0." + mark + " or more")));
    }
    $("heat").classList.toggle("pointing", Boolean(images.report[at.i]));
    showTip(event, lines);
  });
  $("heat").addEventListener("mouseleave", hideTip);
  $("heat").addEventListener("click", (event) => { const at = heatAt(event); if (at && images.report[at.i]) location.href = encodeURI(images.report[at.i]); });
  toggleButtons("heat", (kind) => { heat.kind = kind; drawHeat(); }, heat.kind);

  function toggleButtons(attribute, act, first) {
    const buttons = [...document.querySelectorAll(`[data-${attribute}]`)];
    const set = (value) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset[attribute] === value)));
    set(first);
    for (const button of buttons) button.addEventListener("click", () => { set(button.dataset[attribute]); act(button.dataset[attribute]); });
  }

  // ---- values per level -------------------------------------------------------------------------------------
  const strip = { kind: heat.kind, points: [] };
  const OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C00", "#7A5195"];
  const unitText = (m) => m.name + (m.unit ? " (" + m.unit + ")" : "");
  for (const m of data.measures) for (const id of ["measure", "change-measure"]) $(id)?.add(new Option(unitText(m), m.key));
  // Slabs cut every vertebra at its sides and thus have no volume of one: the first measure shown is one with values.
  const first = data.measures.find((m) => data.vertebrae.some((level) => (data.values[m.key] || {})[level]));
  if (first) $("measure").value = first.key;
  for (const column of ["session", ...data.participants.columns]) {
    if (column !== "session" || new Set(images.session).size > 1) $("by").add(new Option(column, column));
  }
  const scored = Object.keys(data.scores).length > 0;
  $("scores").closest("label").hidden = !scored;
  const parsed = new Map();
  function allValues(source, measure, level) {
    const key = source + " " + measure + " " + level;
    if (!parsed.has(key)) {
      const text = (data[source][measure] || {})[level];
      parsed.set(key, text === undefined ? [] : text.split(",").map((v, i) => [v, i]).filter(([v]) => v !== "").map(([v, i]) => [Number(v), i]));
    }
    return parsed.get(key);
  }
  const values = (measure, level) => allValues(scored && $("scores").checked && measure !== "angle" ? "scores" : "values", measure, level).filter(([, i]) => keep[i]);
  const quantile = (sorted, p) => { const at = (sorted.length - 1) * p, low = Math.floor(at); return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]); };
  const median = (list) => quantile([...list].sort((a, b) => a - b), 0.5);
  const spread = (i, k) => ((Math.imul(i + 1, 2654435761) ^ Math.imul(k + 7, 40503)) >>> 8) % 1000 / 1000 - 0.5;
  const rounded = (v) => { const size = Math.abs(v); return v.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2); };
  function ticks(low, high) {
    const raw = (high - low) / 6 || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((s) => s * power >= raw) * power, found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(Math.abs(v) < 1e-9 ? 0 : v);
    return [found, Math.max(0, -Math.floor(Math.log10(step)))];
  }
  const tickText = (v, decimals) => v.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replaceAll(",", "\u202f");
  // Assign images to groups by a column of participants.tsv, or to positions on an axis if it is numeric.
  function grouping(column) {
    if (!column) return null;
    const place = data.participants.columns.indexOf(column);
    const all = images.participant.map((p, i) => column === "session" ? images.session[i] : (data.participants.rows[p] || [])[place] ?? "");
    const distinct = [...new Set(all.filter(Boolean))].sort(order.compare);
    const numeric = distinct.length > 6 && distinct.every((v) => Number.isFinite(Number(v)));
    return { column, numeric, names: distinct.slice(0, 8), of: (i) => all[i], number: (i) => (all[i] === "" ? NaN : Number(all[i])), index: (i) => distinct.indexOf(all[i]), color: (i) => { const at = distinct.indexOf(all[i]); return at < 0 || at > 7 ? css("--muted") : OKABE_ITO[at]; } };
  }
  function legend(id, entries) {
    $(id).replaceChildren(...entries.map(([color, text]) => {
      const item = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = color;
      item.append(swatch, text);
      return item;
    }));
  }
  function table(id, head, lines) {
    const made = document.createElement("table"), top = made.createTHead().insertRow(), rest = made.createTBody();
    head.forEach((text, k) => { const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = text; if (k) cell.className = "num"; top.append(cell); });
    for (const line of lines) {
      const row = rest.insertRow();
      line.forEach((content, k) => {
        const cell = k ? row.insertCell() : document.createElement("th");
        if (!k) { cell.scope = "row"; row.append(cell); } else cell.className = "num";
        if (content instanceof Node) cell.append(content); else cell.textContent = content;
      });
    }
    $(id).replaceChildren(made);
  }
  // Draw points and boxes per level, or points against a number. Returns [x, y, image, level, value] of each point.
  function chart(id, { levels, pointsOf, by = null, zero = false, turned, tall = 0, rangeOf = () => null }) {
    const width = $(id).parentElement.clientWidth, height = Math.max(300, Math.min(460, 0.36 * width)) + tall, left = 58;
    const along = by?.numeric ?? false, step = (width - left - 8) / Math.max(1, along ? 1 : levels.length);
    const wrap = turned || step < 22, bottom = along ? 44 : wrap ? 62 + tall : 30;
    const pen = prepareCanvas(id, width, height), found = [];
    pen.fillStyle = css("--muted");
    const sets = levels.map((level) => pointsOf(level).filter(([, i]) => !along || Number.isFinite(by.number(i))));
    const all = sets.flat(), ranges = levels.map(rangeOf);
    if (!all.length) { pen.fillText("No complete level has this measure.", left, height / 2); return found; }
    let low = Infinity, high = -Infinity;
    for (const v of [...all.map(([v]) => v), ...ranges.flatMap((range) => range ?? [])]) { if (v < low) low = v; if (v > high) high = v; }
    if (zero) { low = Math.min(low, 0); high = Math.max(high, 0); } else if (low > 0 && low < 0.5 * high) low = 0;
    const margin = 0.04 * (high - low || Math.abs(high) || 1);
    low = low === 0 && !zero ? 0 : low - margin;
    high += margin;
    const y = (v) => 12 + (height - bottom - 12) * (1 - (v - low) / (high - low));
    const [marks, decimals] = ticks(low, high);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const v of marks) {
      pen.fillStyle = css("--muted");
      pen.fillText(tickText(v, decimals), left - 8, y(v));
      pen.strokeStyle = zero && v === 0 ? css("--muted") : css("--line");
      pen.beginPath(); pen.moveTo(left, Math.round(y(v)) + 0.5); pen.lineTo(width - 8, Math.round(y(v)) + 0.5); pen.stroke();
    }
    // The range of the reference group lies behind the points.
    ranges.forEach((range, k) => {
      if (!range) return;
      const [from, wide] = along ? [left, width - left - 8] : [left + step * (k + 0.02), 0.96 * step], [bottomEdge, middle, topEdge] = range.map(y);
      pen.fillStyle = pen.strokeStyle = css("--good");
      pen.globalAlpha = 0.16; pen.fillRect(from, topEdge, wide, bottomEdge - topEdge); pen.globalAlpha = 1;
      pen.beginPath(); pen.moveTo(from, middle); pen.lineTo(from + wide, middle); pen.stroke();
    });
    const many = all.length > 3000, dot = (px, py, color, point, level) => {
      pen.fillStyle = color;
      if (many) pen.fillRect(px - 1.5, py - 1.5, 3, 3); else { pen.beginPath(); pen.arc(px, py, 3, 0, 7); pen.fill(); }
      found.push([px, py, point[1], level, point[0]]);
    };
    if (along) {
      const numbers = all.map(([, i]) => by.number(i)), first = Math.min(...numbers), last = Math.max(...numbers);
      const x = (n) => left + 14 + (width - left - 36) * (n - first) / (last - first || 1), [steps, digits] = ticks(first, last);
      pen.fillStyle = css("--muted"); pen.textAlign = "center"; pen.textBaseline = "top";
      for (const n of steps) pen.fillText(tickText(n, digits), x(n), height - bottom + 8);
      pen.fillText(by.column, (left + width) / 2, height - 16);
      pen.globalAlpha = 0.75;
      levels.forEach((level, k) => { for (const p of sets[k]) dot(x(by.number(p[1])), y(p[0]), OKABE_ITO[k % 8], p, level); });
      pen.globalAlpha = 1;
      levels.forEach((level, k) => {
        const line = fit(sets[k].map(([v, i]) => [by.number(i), v]));
        if (!line) return;
        pen.strokeStyle = OKABE_ITO[k % 8]; pen.lineWidth = 2;
        pen.beginPath(); pen.moveTo(x(first), y(line.at(first))); pen.lineTo(x(last), y(line.at(last))); pen.stroke(); pen.lineWidth = 1;
      });
      return found;
    }
    const groups = by ? [...by.names.keys()] : [0], share = 1 / groups.length;
    levels.forEach((level, k) => {
      const x = left + step * (k + 0.5);
      pen.fillStyle = css("--muted");
      pen.save();
      pen.translate(x, height - bottom + 10);
      if (wrap) { pen.rotate(-Math.PI / 2); pen.textAlign = "right"; } else { pen.textAlign = "center"; pen.textBaseline = "top"; }
      pen.fillText(level, 0, 0);
      pen.restore();
      groups.forEach((g) => {
        const points = by ? sets[k].filter(([, i]) => by.index(i) === g) : sets[k], room = 0.84 * step * share;
        const middle = x + 0.84 * step * ((g + 0.5) * share - 0.5), half = Math.min(16, 0.43 * room), sorted = points.map(([v]) => v).sort((a, b) => a - b);
        const color = by ? OKABE_ITO[g] : css("--accent");
        if (sorted.length >= 4) {
          const [q1, q3] = [0.25, 0.75].map((p) => quantile(sorted, p));
          pen.fillStyle = css("--soft"); pen.strokeStyle = by ? color : css("--muted");
          pen.fillRect(middle - half, y(q3), 2 * half, y(q1) - y(q3));
          pen.globalAlpha = by ? 1 : 0.5; pen.strokeRect(middle - half, y(q3), 2 * half, y(q1) - y(q3));
        }
        pen.globalAlpha = points.length > 200 ? 0.35 : 0.75;
        for (const p of points) dot(middle + (points.length > 1 ? 1.5 * half * spread(p[1], k) : 0), y(p[0]), color, p, level);
        pen.globalAlpha = 1;
        if (sorted.length >= 4) { const m = y(quantile(sorted, 0.5)); pen.strokeStyle = css("--ink"); pen.lineWidth = 2; pen.beginPath(); pen.moveTo(middle - half, m); pen.lineTo(middle + half, m); pen.stroke(); pen.lineWidth = 1; }
      });
    });
    return found;
  }
  // Fit a line by least squares; null if the points do not determine one.
  function fit(pairs) {
    const n = pairs.length, mean = (k) => pairs.reduce((sum, p) => sum + p[k], 0) / n;
    if (n < 3) return null;
    const mx = mean(0), my = mean(1);
    let sxx = 0, sxy = 0, syy = 0;
    for (const [a, b] of pairs) { sxx += (a - mx) ** 2; sxy += (a - mx) * (b - my); syy += (b - my) ** 2; }
    if (!sxx) return null;
    const slope = sxy / sxx;
    return { n, slope, r: syy ? sxy / Math.sqrt(sxx * syy) : 0, at: (v) => my + slope * (v - mx) };
  }
  function drawStrip() {
    const alignment = strip.kind === "alignment", measure = alignment ? "angle" : $("measure").value, scores = scored && $("scores").checked && !alignment;
    const about = alignment
      ? { unit: "°", about: "Angles between planes fitted to complete vertebral bodies; lordosis and kyphosis are positive" }
      : data.measures.find((m) => m.key === measure);
    $("measure").disabled = alignment;
    const by = grouping($("by").value), levels = data[strip.kind].filter((level) => values(measure, level).length);
    const one = $("level").closest("label");
    one.hidden = !by?.numeric;
    if (by?.numeric) {
      const chosen = levels.includes($("level").value) ? $("level").value : levels[Math.floor(levels.length / 2)];
      $("level").replaceChildren(...levels.map((level) => new Option(level, level, false, level === chosen)));
    }
    const shown = by?.numeric ? levels.filter((level) => level === $("level").value) : levels;
    $("about").textContent = about ? about.about + (scores ? ". Shown as z-scores: standard deviations from the reference mean of the level" : "") + "." : "";
    strip.unit = scores ? "SD" : about?.unit ?? "";
    strip.by = by;
    const rangeOf = (level) => {
      const list = !data.reference ? [] : allValues(scores ? "scores" : "values", measure, level).filter(([, i]) => data.reference.images[i]).map(([v]) => v).sort((a, b) => a - b);
      return list.length ? [0.05, 0.5, 0.95].map((p) => quantile(list, p)) : null;
    };
    strip.points = chart("strip", { rangeOf, levels: shown, pointsOf: (level) => values(measure, level), by, zero: scores, turned: strip.kind === "discs" || (alignment && innerWidth < 1000), tall: alignment && innerWidth < 1000 ? 90 : 0 });
    const shades = !by ? [] : by.numeric ? shown.map((level, k) => [OKABE_ITO[k % 8], level]) : by.names.map((n, k) => [OKABE_ITO[k], n]);
    legend("strip-legend", data.reference ? [...shades, [css("--good"), `${data.reference.name}: 5th to 95th percentile and median`]] : shades);
    $("compare").hidden = !by;
    if (!by) return;
    if (by.numeric) {
      table("compare-table", ["Level", "Images", "Change per unit of " + by.column, "Correlation r"], levels.map((level) => {
        const line = fit(values(measure, level).filter(([, i]) => Number.isFinite(by.number(i))).map(([v, i]) => [by.number(i), v]));
        return [level, line ? line.n : "–", line ? rounded(line.slope) + " " + strip.unit : "–", line ? line.r.toFixed(2) : "–"];
      }));
    } else {
      table("compare-table", ["Level", ...by.names.map((n) => n + ": median (images)")], levels.map((level) => [level, ...by.names.map((_, g) => {
        const list = values(measure, level).filter(([, i]) => by.index(i) === g).map(([v]) => v);
        return list.length ? `${rounded(median(list))} ${strip.unit} (${list.length})` : "–";
      })]));
    }
  }
  function hover(id, pointsOf, linesOf) {
    const at = (event) => {
      const [x, y] = positionIn(event);
      let best = null, nearest = 100;
      for (const p of pointsOf()) { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < nearest) { nearest = d; best = p; } }
      return best;
    };
    $(id).addEventListener("mousemove", (event) => {
      const p = at(event);
      $(id).classList.toggle("pointing", Boolean(p && images.report[p[2]]));
      if (p) showTip(event, linesOf(p), pictureOf(p[2])); else hideTip();
    });
    $(id).addEventListener("mouseleave", hideTip);
    $(id).addEventListener("click", (event) => { const p = at(event); if (p && images.report[p[2]]) location.href = encodeURI(images.report[p[2]]); });
  }
  hover("strip", () => strip.points, (p) => [`${p[3]}: ${p[4]} ${strip.unit}`, name(p[2]), images.image[p[2]], ...(strip.by ? [strip.by.column + ": " + (strip.by.of(p[2]) || "n/a")] : [])]);
  for (const id of ["measure", "by", "level", "scores"]) $(id).addEventListener("change", drawStrip);
  document.querySelector('[data-kind="alignment"]').hidden = !data.alignment.length;
  toggleButtons("kind", (kind) => { strip.kind = kind; drawStrip(); }, strip.kind);

  // ---- change between sessions --------------------------------------------------------------------------------
  // Compare images of the same participant whose names differ only in the session.
  const change = { kind: heat.kind, points: [] };
  const pairs = new Map();
  images.image.forEach((image, i) => {
    if (!images.session[i]) return;
    const key = image.replace("_" + images.session[i], "");
    if (!pairs.has(key)) pairs.set(key, new Map());
    pairs.get(key).set(images.session[i], i);
  });
  const repeated = [...pairs.values()].filter((p) => p.size > 1);
  const sessions = [...new Set(repeated.flatMap((p) => [...p.keys()]))].sort(order.compare);
  $("changes").hidden = $("changes-link").hidden = !repeated.length;
  for (const session of sessions) for (const id of ["from", "to"]) $(id).add(new Option(session, session));
  if (sessions.length) { $("from").value = sessions[0]; $("to").value = sessions.at(-1); }
  function differences(measure, level) {
    const at = new Map(allValues("values", measure, level).map(([v, i]) => [i, v])), found = [];
    for (const pair of repeated) {
      const [a, b] = [pair.get($("from").value), pair.get($("to").value)];
      if (a !== b && at.has(a) && at.has(b) && keep[a] && keep[b]) found.push([Math.round(1000 * (at.get(b) - at.get(a))) / 1000, b, at.get(a), at.get(b)]);
    }
    return found;
  }
  function drawChange() {
    if (!repeated.length) return;
    const alignment = change.kind === "alignment", measure = alignment ? "angle" : $("change-measure").value;
    $("change-measure").disabled = alignment;
    const about = alignment ? { unit: "°" } : data.measures.find((m) => m.key === measure), levels = data[change.kind].filter((level) => differences(measure, level).length);
    change.unit = about?.unit ?? "";
    change.points = chart("change", { levels, pointsOf: (level) => differences(measure, level), zero: true, turned: change.kind === "discs" || (alignment && innerWidth < 1000), tall: alignment && innerWidth < 1000 ? 90 : 0 });
    const all = levels.flatMap((level) => differences(measure, level).map((d) => [level, ...d])).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 20);
    table("change-table", ["Participant", "Level", $("from").value, $("to").value, "Change"], all.map(([level, d, i, before, after]) => {
      const link = document.createElement(images.report[i] ? "a" : "span");
      if (images.report[i]) link.href = encodeURI(images.report[i]);
      link.textContent = images.participant[i];
      return [link, level, rounded(before), rounded(after), (d > 0 ? "+" : "") + rounded(d) + " " + change.unit + (before && !alignment ? ` (${(100 * d / before).toFixed(0)} %)` : "")];
    }));
  }
  hover("change", () => change.points, (p) => [`${p[3]}: ${p[4] > 0 ? "+" : ""}${p[4]} ${change.unit}`, images.participant[p[2]], $("from").value + " → " + $("to").value]);
  for (const id of ["change-measure", "from", "to"]) $(id).addEventListener("change", drawChange);
  document.querySelector('[data-change="alignment"]').hidden = !data.alignment.length;
  toggleButtons("change", (kind) => { change.kind = kind; drawChange(); }, change.kind);

  // ---- canal and cord along the column --------------------------------------------------------------------------
  const profiles = data.profiles, curves = { at: null };
  $("curves").hidden = $("curves-link").hidden = !profiles;
  const areasOf = (text) => (text ? text.split(",").map((v) => (v === "" ? NaN : Number(v))) : []);
  function drawCurves() {
    if (!profiles) return;
    const chosen = $("curve").value, link = $("curve-page");
    $("curve").replaceChildren(new Option("none", ""), ...images.image.flatMap((image, i) => (keep[i] && profiles.values.some((m) => m[i]) ? [new Option(name(i) + " " + image, i, false, String(i) === chosen)] : [])));
    const i = $("curve").value;
    link.hidden = i === "" || !images.report[i];
    if (!link.hidden) link.href = encodeURI(images.report[i]);
    const band = profiles.band.map((edge) => edge.map(areasOf)), own = profiles.values.map((m) => (i === "" ? [] : areasOf(m[i])));
    const total = profiles.levels.length * profiles.parts, width = $("curves").clientWidth - 40, height = Math.max(280, Math.min(400, 0.3 * width));
    const left = 48, bottom = 28, step = (width - left - 8) / total, colors = [css("--accent"), css("--warn")];
    let high = 0;
    for (const v of [...band[2].flat(), ...own.flat()]) if (v > high) high = v;
    const pen = prepareCanvas("curves-plot", width, height), x = (k) => left + step * (k + 0.5), y = (v) => 10 + (height - bottom - 10) * (1 - v / (1.04 * high));
    profiles.levels.forEach((level, k) => {
      if (k % 2) { pen.fillStyle = css("--soft"); pen.fillRect(left + step * k * profiles.parts, 10, step * profiles.parts, height - bottom - 10); }
      pen.fillStyle = css("--muted"); pen.textAlign = "center"; pen.textBaseline = "top";
      if (step * profiles.parts > 20) pen.fillText(level, left + step * profiles.parts * (k + 0.5), height - bottom + 8);
    });
    const [marks, decimals] = ticks(0, high);
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const v of marks) {
      pen.fillStyle = css("--muted"); pen.fillText(tickText(v, decimals), left - 8, y(v));
      pen.strokeStyle = css("--line"); pen.beginPath(); pen.moveTo(left, Math.round(y(v)) + 0.5); pen.lineTo(width - 8, Math.round(y(v)) + 0.5); pen.stroke();
    }
    // Lines break where values are missing.
    const trace = (list) => { let pause = true; pen.beginPath(); list.forEach((v, k) => { if (Number.isNaN(v)) pause = true; else { pause ? pen.moveTo(x(k), y(v)) : pen.lineTo(x(k), y(v)); pause = false; } }); pen.stroke(); };
    profiles.measures.forEach((_, m) => {
      const [low, middle, top] = band.map((edge) => edge[m]);
      pen.fillStyle = pen.strokeStyle = colors[m];
      pen.globalAlpha = 0.18;
      const known = (k) => k < total && !Number.isNaN(low[k]);
      for (let k = 0, end; k < total; k = end + 1) {
        for (end = k; known(end); end++);
        const run = [...low.keys()].slice(k, end);
        pen.beginPath(); run.forEach((n) => pen.lineTo(x(n), y(top[n]))); run.reverse().forEach((n) => pen.lineTo(x(n), y(low[n]))); pen.fill();
      }
      pen.globalAlpha = 1;
      pen.setLineDash([5, 4]); trace(middle); pen.setLineDash([]);
      pen.lineWidth = 2.5; trace(own[m]); pen.lineWidth = 1;
    });
    curves.at = (px) => Math.min(total - 1, Math.max(0, Math.floor((px - left) / step)));
    curves.lines = (k) => [profiles.levels[Math.floor(k / profiles.parts)], ...profiles.measures.map((m, n) => `${m.name}: ${Number.isFinite(own[n][k]) ? own[n][k] + " " + m.unit + ", " : ""}group ${band[1][n][k]} (${band[0][n][k]}–${band[2][n][k]}) ${m.unit}`).filter((line) => !line.includes("NaN"))];
    legend("curves-legend", profiles.measures.map((m, n) => [colors[n], m.name + " " + m.unit]));
    $("curves-about").textContent = `Band and dashed line: 5th to 95th percentile and median of ${data.reference ? "the images with " + data.reference.name : "all images"}. Solid line: the chosen image; filters of the table shorten the list.`;
  }
  $("curves-plot").addEventListener("mousemove", (event) => { if (curves.at) showTip(event, curves.lines(curves.at(positionIn(event)[0]))); });
  $("curves-plot").addEventListener("mouseleave", hideTip);
  $("curve").addEventListener("change", drawCurves);

  // Draw a chart when it scrolls into view, and redraw it there after a change.
  const charts = new Map([["heat", drawHeat], ["strip", drawStrip], ["curves-plot", drawCurves], ["change", drawChange]].map(([id, act]) => [$(id).parentElement, { act, near: false, stale: true }]));
  const refresh = (chart) => { if (chart.stale && chart.near) { chart.stale = false; chart.act(); } };
  const chartObserver = new IntersectionObserver((entries) => {
    for (const entry of entries) { const chart = charts.get(entry.target); chart.near = entry.isIntersecting; refresh(chart); }
  }, { rootMargin: "200px" });
  for (const element of charts.keys()) chartObserver.observe(element);
  const redraw = () => { for (const chart of charts.values()) { chart.stale = true; refresh(chart); } };
  addEventListener("beforeprint", () => { for (const chart of charts.values()) chart.act(); });
  let resizeTimer = 0;
  addEventListener("resize", () => { clearTimeout(resizeTimer); resizeTimer = setTimeout(redraw, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  filter();
})();
