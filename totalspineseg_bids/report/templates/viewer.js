"use strict";
// Viewer of image and labels in three orthogonal planes. Both are mosaics of sagittal slices embedded in the page.
const SAFE_COLOURS = JSON.parse(document.getElementById("colours").textContent);
const colourBlind = () => document.body.classList.contains("colour-blind");
const parseColour = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

async function decodePixels(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  return [pen.getImageData(0, 0, canvas.width, canvas.height).data, canvas.width];
}

// Decode a mosaic into an array with x fastest, then y, then z; the axes point right, anterior and superior (RAS).
async function decodeVolume(source, layout) {
  const [pixels, width] = await decodePixels(source), [nx, ny, nz] = layout.shape;
  const volume = new Uint8Array(nx * ny * nz);
  for (let x = 0; x < nx; x++) {
    const left = (x % layout.columns) * ny, top = Math.floor(x / layout.columns) * nz;
    for (let row = 0; row < nz; row++) {
      let from = 4 * ((top + row) * width + left), to = x + nx * (ny - 1 + ny * (nz - 1 - row));
      for (let column = 0; column < ny; column++, from += 4, to -= nx) volume[to] = pixels[from];
    }
  }
  return volume;
}

class SpineViewer {
  constructor(root) {
    this.root = root;
    this.layout = JSON.parse(root.dataset.layout);
    this.names = new Map(JSON.parse(root.dataset.names).map((entry) => [entry[0], entry]));
    this.mode = "both";
    this.opacity = 0.45;
    this.brightness = 1;
    this.zoom = 1;
  }

  async open() {
    const store = this.root.querySelector("template").content;
    const source = (what) => store.querySelector(`[data-part="${what}"]`).getAttribute("src");
    [this.grey, this.labels] = await Promise.all([decodeVolume(source("grey"), this.layout), decodeVolume(source("labels"), this.layout)]);
    const [nx, ny, nz] = this.layout.shape;
    this.at = [nx >> 1, ny >> 1, nz >> 1];
    this.centres = this.findCentres();
    // For each plane: its normal axis, the axes along columns and rows (both reversed on screen), and its side letters.
    this.planes = [
      { name: "Sagittal", axis: 0, across: 1, up: 2, sides: ["A", "P"] },
      { name: "Coronal", axis: 1, across: 0, up: 2, sides: ["R", "L"] },
      { name: "Axial", axis: 2, across: 0, up: 1, sides: ["R", "L"] },
    ];
    this.build();
    const ids = [...this.centres.keys()], vertebrae = ids.filter((id) => this.names.get(id)?.[3] === "vertebra");
    const first = vertebrae[vertebrae.length >> 1] ?? ids[0];
    if (first !== undefined) this.goTo(first); else this.draw();
  }

  // For each label, the labelled voxel closest to its centre; for a vertebra, closest to the centre of its body.
  findCentres() {
    const [nx, ny, nz] = this.layout.shape, [sx, sy, sz] = this.layout.step, found = new Map();
    const forEachVoxel = (act) => {
      for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++) {
        if (this.labels[i]) act(this.labels[i], x, y, z);
      }
    };
    const sums = new Float64Array(256 * 4), bodies = new Float64Array(256 * 4);
    const add = (sum, id, x, y, z) => { sum[4 * id] += x; sum[4 * id + 1] += y; sum[4 * id + 2] += z; sum[4 * id + 3]++; };
    const isVertebra = (id) => this.names.get(id)?.[3] === "vertebra";
    forEachVoxel((id, x, y, z) => add(sums, id, x, y, z));
    // The centre of a vertebra lies close to the canal, and its body anterior to it.
    forEachVoxel((id, x, y, z) => { if (!isVertebra(id) || y * sums[4 * id + 3] >= sums[4 * id + 1]) add(bodies, id, x, y, z); });
    forEachVoxel((id, x, y, z) => {
      const n = bodies[4 * id + 3], d = (sx * (x - bodies[4 * id] / n)) ** 2 + (sy * (y - bodies[4 * id + 1] / n)) ** 2 + (sz * (z - bodies[4 * id + 2] / n)) ** 2;
      const best = found.get(id);
      if (!best || d < best[0]) found.set(id, [d, [x, y, z]]);
    });
    return new Map([...found].map(([id, [, at]]) => [id, at]).sort((a, b) => b[1][2] - a[1][2]));
  }

  build() {
    const add = (tag, properties, parent) => { const e = Object.assign(document.createElement(tag), properties); parent.append(e); return e; };
    const bar = add("div", { className: "controls" }, this.root);
    const jump = add("select", {}, add("label", { textContent: "go to " }, bar));
    jump.setAttribute("aria-label", "Go to a structure");
    jump.add(new Option("…", ""));
    for (const id of this.centres.keys()) jump.add(new Option(this.names.get(id)?.[1] ?? id, id));
    jump.addEventListener("change", () => { if (jump.value) this.goTo(Number(jump.value)); });
    const mode = add("select", {}, add("label", { textContent: "labels " }, bar));
    for (const value of ["both", "fill", "contour", "off"]) mode.add(new Option({ both: "fill and contour" }[value] ?? value, value));
    mode.setAttribute("aria-label", "How labels are drawn");
    mode.addEventListener("change", () => { this.mode = mode.value; this.draw(); });
    const slider = (text, low, high, key) => {
      const range = add("input", { type: "range", min: low, max: high, step: 0.05, value: this[key] }, add("label", { textContent: text + " " }, bar));
      range.setAttribute("aria-label", text);
      range.addEventListener("input", () => { this[key] = Number(range.value); this.draw(); });
    };
    slider("opacity", 0, 1, "opacity");
    slider("brightness", 0.4, 3, "brightness");
    slider("zoom", 1, 5, "zoom");
    this.readout = add("p", { className: "small readout" }, this.root);
    this.readout.setAttribute("aria-live", "polite");
    const panes = add("div", { className: "panes" }, this.root);
    for (const plane of this.planes) {
      const figure = add("figure", {}, panes);
      plane.canvas = add("canvas", { tabIndex: 0, className: "pane" }, figure);
      plane.canvas.setAttribute("role", "img");
      plane.caption = add("figcaption", {}, figure);
      plane.slider = add("input", { type: "range", min: 0, max: this.layout.shape[plane.axis] - 1, step: 1 }, figure);
      plane.slider.setAttribute("aria-label", plane.name + " slice");
      plane.slider.addEventListener("input", () => this.move(plane.axis, Number(plane.slider.value)));
      plane.canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.move(plane.axis, this.at[plane.axis] + (event.deltaY > 0 ? -1 : 1));
      }, { passive: false });
      const moveTo = (event) => {
        const box = plane.canvas.getBoundingClientRect(), [nu, nv] = [this.layout.shape[plane.across], this.layout.shape[plane.up]];
        const [left, top] = plane.window;
        this.at[plane.across] = this.clip(plane.across, nu - 1 - Math.floor((left + (event.clientX - box.left) / box.width / this.zoom) * nu));
        this.at[plane.up] = this.clip(plane.up, nv - 1 - Math.floor((top + (event.clientY - box.top) / box.height / this.zoom) * nv));
        this.draw();
      };
      plane.canvas.addEventListener("pointerdown", (event) => { if (event.isTrusted) plane.canvas.setPointerCapture(event.pointerId); plane.frozenWindow = plane.window; moveTo(event); });
      for (const kind of ["pointerup", "pointercancel"]) plane.canvas.addEventListener(kind, () => { plane.frozenWindow = null; this.draw(); });
      plane.canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) moveTo(event); });
      plane.canvas.addEventListener("keydown", (event) => {
        const steps = { PageUp: [plane.axis, 1], PageDown: [plane.axis, -1], ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1], ArrowLeft: [plane.across, 1], ArrowRight: [plane.across, -1] };
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        this.move(step[0], this.at[step[0]] + step[1] * (event.shiftKey ? 5 : 1));
      });
    }
    add("p", { className: "small muted", textContent: "Click or drag to move the crosshair. Mouse wheel, Page Up and Page Down change the slice; arrow keys move the crosshair (with Shift: faster)." }, this.root);
  }

  clip(axis, value) { return Math.max(0, Math.min(this.layout.shape[axis] - 1, value)); }
  move(axis, value) { this.at[axis] = this.clip(axis, value); this.draw(); }
  goTo(id) { this.at = this.centres.get(id).map((v, axis) => this.clip(axis, Math.round(v))); this.draw(); }

  colour(id) {
    const entry = this.names.get(id);
    return entry ? parseColour(colourBlind() ? SAFE_COLOURS[entry[2]] ?? entry[2] : entry[2]) : [200, 200, 200];
  }

  draw() {
    for (const plane of this.planes) this.drawPlane(plane);
    const [nx, ny] = this.layout.shape, [x, y, z] = this.at, id = this.labels[x + nx * (y + ny * z)];
    const mm = this.layout.affine.map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
    const entry = this.names.get(id);
    const where = `x ${mm[0].toFixed(1)}, y ${mm[1].toFixed(1)}, z ${mm[2].toFixed(1)} mm`;
    this.readout.textContent = (entry ? entry[1] + (entry[4] !== null ? ` (confidence ${entry[4].toFixed(2)})` : "") : "no label") + " · " + where;
    this.root.dataset.at = this.at.join(",");
  }

  drawPlane(plane) {
    const shape = this.layout.shape, step = this.layout.step, strides = [1, shape[0], shape[0] * shape[1]];
    const nu = shape[plane.across], nv = shape[plane.up], ratio = Math.min(2, devicePixelRatio || 1);
    const tall = shape[2] * step[2], room = Math.min(620, 0.7 * innerHeight), wide = Math.max(shape[0] * step[0], shape[1] * step[1]);
    const scale = Math.min(plane.axis === 2 ? Math.max(room / tall, 300 / wide) : room / tall, 6);
    const width = Math.round(nu * step[plane.across] * scale), height = Math.round(nv * step[plane.up] * scale);
    const canvas = plane.canvas;
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    canvas.style.width = width + "px";
    canvas.style.aspectRatio = `${width} / ${height}`;
    plane.ids ??= new Uint8Array(nu * nv);
    plane.sheet ??= Object.assign(document.createElement("canvas"), { width: nu, height: nv });
    const sheet = plane.sheet.getContext("2d"), grey = sheet.createImageData(nu, nv), fill = sheet.createImageData(nu, nv);
    const base = this.at[plane.axis] * strides[plane.axis], table = new Map();
    for (let row = 0, p = 0; row < nv; row++) for (let column = 0; column < nu; column++, p++) {
      const i = base + (nu - 1 - column) * strides[plane.across] + (nv - 1 - row) * strides[plane.up], id = this.labels[i];
      grey.data[4 * p] = grey.data[4 * p + 1] = grey.data[4 * p + 2] = Math.min(255, this.brightness * this.grey[i]);
      grey.data[4 * p + 3] = 255;
      plane.ids[p] = id;
      if (!id) continue;
      let c = table.get(id);
      if (!c) table.set(id, (c = this.colour(id)));
      fill.data.set(c, 4 * p);
      fill.data[4 * p + 3] = 255 * this.opacity;
    }
    const pen = canvas.getContext("2d"), zoom = this.zoom;
    // When zoomed in, keep the crosshair as close to the centre of the picture as the borders allow.
    const start = (position) => Math.max(0, Math.min(1 - 1 / zoom, position - 0.5 / zoom));
    plane.window = plane.frozenWindow ?? [start((nu - 0.5 - this.at[plane.across]) / nu), start((nv - 0.5 - this.at[plane.up]) / nv)];
    pen.setTransform(zoom, 0, 0, zoom, -zoom * plane.window[0] * canvas.width, -zoom * plane.window[1] * canvas.height);
    const drawLayer = (data) => { sheet.putImageData(data, 0, 0); pen.drawImage(plane.sheet, 0, 0, canvas.width, canvas.height); };
    pen.imageSmoothingEnabled = true;
    drawLayer(grey);
    pen.imageSmoothingEnabled = false;
    if (this.mode === "fill" || this.mode === "both") drawLayer(fill);
    const fu = canvas.width / nu, fv = canvas.height / nv;
    if (this.mode === "contour" || this.mode === "both") this.drawContours(pen, plane, nu, nv, fu, fv, table, ratio / zoom);
    pen.strokeStyle = "rgb(255 255 255 / 45%)";
    pen.lineWidth = ratio / zoom;
    const cu = (nu - 0.5 - this.at[plane.across]) * fu, cv = (nv - 0.5 - this.at[plane.up]) * fv;
    pen.beginPath();
    pen.moveTo(cu, 0); pen.lineTo(cu, canvas.height); pen.moveTo(0, cv); pen.lineTo(canvas.width, cv);
    pen.stroke();
    this.drawNames(pen, plane, nu, nv, fu, fv, ratio / zoom);
    this.drawSides(pen, plane, ratio);
    plane.slider.value = this.at[plane.axis];
    plane.caption.textContent = `${plane.name} ${this.at[plane.axis] + 1} of ${shape[plane.axis]}`;
    canvas.setAttribute("aria-label", `${plane.name} slice ${this.at[plane.axis] + 1} of ${shape[plane.axis]} with labels`);
  }

  drawContours(pen, plane, nu, nv, fu, fv, table, ratio) {
    const paths = new Map(), ids = plane.ids;
    const line = (id, a, b, c, d) => {
      if (!paths.has(id)) paths.set(id, new Path2D());
      const path = paths.get(id);
      path.moveTo(a * fu, b * fv); path.lineTo(c * fu, d * fv);
    };
    for (let row = 0, p = 0; row < nv; row++) for (let column = 0; column < nu; column++, p++) {
      const id = ids[p];
      if (!id) continue;
      if (column === 0 || ids[p - 1] !== id) line(id, column, row, column, row + 1);
      if (column === nu - 1 || ids[p + 1] !== id) line(id, column + 1, row, column + 1, row + 1);
      if (row === 0 || ids[p - nu] !== id) line(id, column, row, column + 1, row);
      if (row === nv - 1 || ids[p + nu] !== id) line(id, column, row + 1, column + 1, row + 1);
    }
    pen.lineWidth = 1.2 * ratio;
    for (const [id, path] of paths) { pen.strokeStyle = `rgb(${table.get(id).join(" ")})`; pen.stroke(path); }
  }

  drawNames(pen, plane, nu, nv, fu, fv, ratio) {
    if (this.mode === "off") return;
    const isNamed = (id) => id && ["vertebra", "sacrum"].includes(this.names.get(id)?.[3]);
    const sumsOf = (keep) => {
      const sums = new Map();
      for (let row = 0, p = 0; row < nv; row++) for (let column = 0; column < nu; column++, p++) {
        const id = plane.ids[p];
        if (!isNamed(id) || !keep(id, column, row)) continue;
        let s = sums.get(id);
        if (!s) sums.set(id, (s = [0, 0, 0]));
        s[0] += column; s[1] += row; s[2]++;
      }
      return sums;
    };
    // Place the name on the vertebral body, which is the part anterior to the centre of the vertebra.
    const whole = sumsOf(() => true);
    const sums = sumsOf((id, column, row) => {
      const [u, v, n] = whole.get(id);
      return plane.axis === 0 ? column * n <= u : plane.axis === 2 ? row * n <= v : true;
    });
    pen.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 3 * ratio;
    pen.strokeStyle = "rgb(0 0 0 / 75%)";
    pen.fillStyle = "#fff";
    const write = (text, x, y) => { pen.strokeText(text, x, y); pen.fillText(text, x, y); };
    for (const [id, [u, v, n]] of sums) if (n * fu * fv > 150 * ratio * ratio) write(this.names.get(id)[1], (u / n + 0.5) * fu, (v / n + 0.5) * fv);
  }

  drawSides(pen, plane, ratio) {
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    pen.lineWidth = 3 * ratio;
    plane.sides.forEach((letter, k) => {
      const x = k ? pen.canvas.width - 10 * ratio : 10 * ratio, y = pen.canvas.height - 10 * ratio;
      pen.strokeText(letter, x, y);
      pen.fillText(letter, x, y);
    });
  }
}

const viewers = [];
for (const button of document.querySelectorAll("[data-open-viewer]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const root = document.getElementById(button.dataset.openViewer);
    button.disabled = true;
    try {
      const viewer = new SpineViewer(root);
      await viewer.open();
      viewers.push(viewer);
      button.hidden = true;
      root.hidden = false;
      root.querySelector("canvas").focus();
    } catch (error) {
      button.textContent = "The viewer does not work in this browser (" + error.message + ")";
    }
  });
}

// ---- colour-blind-safe colours --------------------------------------------------------------------------------------
async function recolour(image, on) {
  if (!image.dataset.standard) image.dataset.standard = image.src;
  if (!on) { image.src = image.dataset.standard; return; }
  if (!image.dataset.safe) {
    const [pixels, width] = await decodePixels(image.dataset.standard), table = new Map();
    for (const [from, to] of Object.entries(SAFE_COLOURS)) table.set(parseColour(from).join(), parseColour(to));
    const keys = [...table.keys()].map((k) => k.split(",").map(Number)), near = new Map();
    for (let i = 0; i < pixels.length; i += 4) {
      if (!pixels[i + 3]) continue;
      const key = (pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2];
      if (!near.has(key)) {
        // Canvas rounds the colours of translucent pixels: accept a difference of two per channel.
        const found = keys.find((k) => Math.max(Math.abs(k[0] - pixels[i]), Math.abs(k[1] - pixels[i + 1]), Math.abs(k[2] - pixels[i + 2])) <= 2);
        near.set(key, found ? table.get(found.join()) : null);
      }
      const to = near.get(key);
      if (to) pixels.set(to, i);
    }
    const canvas = Object.assign(document.createElement("canvas"), { width, height: pixels.length / 4 / width });
    canvas.getContext("2d").putImageData(new ImageData(pixels, width), 0, 0);
    image.dataset.safe = canvas.toDataURL();
  }
  image.src = image.dataset.safe;
}
const palette = document.getElementById("palette");
if (palette) {
  palette.closest("[data-js]").hidden = false;
  palette.addEventListener("change", () => {
    document.body.classList.toggle("colour-blind", palette.checked);
    for (const chip of document.querySelectorAll("[data-colour]")) {
      const standard = chip.dataset.colour;
      chip.style.setProperty("--c", palette.checked ? SAFE_COLOURS[standard] ?? standard : standard);
    }
    for (const viewer of viewers) viewer.draw();
    for (const image of document.querySelectorAll("[data-viewer] img.fill, [data-viewer] img.lines")) {
      if ((image.dataset.standard ?? image.src).startsWith("data:")) recolour(image, palette.checked);
    }
  });
}
