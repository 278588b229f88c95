"use strict";
// Full-resolution viewer: niivue with the data of one image. Both are scripts that load when the viewer is opened.
const loadScript = (path) => new Promise((resolve, reject) => {
  const script = Object.assign(document.createElement("script"), { src: path });
  script.addEventListener("load", resolve);
  script.addEventListener("error", () => reject(new Error(path + " is missing")));
  document.head.append(script);
});

class FullViewer {
  constructor(root) {
    this.root = root;
    this.names = new Map(JSON.parse(root.dataset.names).map((entry) => [entry[0], entry]));
    this.byAbbreviation = new Map([...this.names.values()].map((entry) => [entry[1], entry[0]]));
  }

  async open() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
    if (!window.niivue) await loadScript(this.root.dataset.script);
    if (!window.spineVolumes?.[this.root.dataset.key]) await loadScript(this.root.dataset.volume);
    this.data = window.spineVolumes[this.root.dataset.key];
    this.build();
    const { Niivue, NVImage, SHOW_RENDER } = window.niivue;
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 1, isNearestInterpolation: false, logLevel: "error",
      dragAndDropEnabled: false, multiplanarShowRender: SHOW_RENDER.ALWAYS, isOrientCube: true, sagittalNoseLeft: true,
      isRadiologicalConvention: true, onLocationChange: (location) => this.show(location),
    });
    await this.nv.attachToCanvas(this.canvas);
    this.image = await NVImage.loadFromBase64({ base64: this.data.image, name: "image.nii.gz", colormap: "gray", cal_min: 0, cal_max: 255 });
    this.labels = await NVImage.loadFromBase64({ base64: this.data.labels, name: "labels.nii.gz", opacity: 0.5 });
    this.colour();
    this.nv.addVolume(this.image);
    this.nv.addVolume(this.labels);
    this.nv.setInterpolation(false);
    this.setView("slices");
    const vertebrae = [...this.names.values()].filter((entry) => entry[3] === "vertebra" && this.data.centres[entry[0]]);
    const first = vertebrae[vertebrae.length >> 1]?.[0] ?? Object.keys(this.data.centres)[0];
    if (first !== undefined) this.goTo(first);
    this.root.dataset.state = "ready";
  }

  build() {
    const add = (tag, properties, parent) => { const e = Object.assign(document.createElement(tag), properties); parent.append(e); return e; };
    const bar = add("div", { className: "controls" }, this.root);
    const jump = add("select", { ariaLabel: "Go to a structure" }, add("label", { textContent: "go to " }, bar));
    jump.add(new Option("…", ""));
    for (const [id, entry] of this.names) if (this.data.centres[id]) jump.add(new Option(entry[1], id));
    jump.addEventListener("change", () => { if (jump.value) this.goTo(jump.value); });
    const view = add("select", { ariaLabel: "View" }, add("label", { textContent: "view " }, bar));
    for (const [value, text] of [["slices", "slices and 3D"], ["sagittal", "sagittal"], ["coronal", "coronal"], ["axial", "axial"], ["3d", "3D of the labels"]]) view.add(new Option(text, value));
    view.addEventListener("change", () => this.setView(view.value));
    const slider = (text, value, act) => {
      const range = add("input", { type: "range", min: 0, max: 1, step: 0.01, value, ariaLabel: text }, add("label", { textContent: text + " " }, bar));
      range.addEventListener("input", () => act(Number(range.value)));
      return range;
    };
    this.opacity = slider("opacity", 0.5, () => this.applyOpacity());
    this.low = slider("black", 0, () => this.window());
    this.high = slider("white", 1, () => this.window());
    this.readout = add("p", { className: "small readout" }, this.root);
    this.readout.setAttribute("aria-live", "polite");
    // niivue fills the element around the canvas and gives it its own background.
    this.canvas = add("canvas", { tabIndex: 0 }, add("div", { className: "frame" }, this.root));
    add("p", { className: "small muted", textContent: "Click to move the crosshair, scroll to change the slice, drag in 3D to rotate. A click on a level in the table goes there." }, this.root);
  }

  setView(name) {
    const types = window.niivue.SLICE_TYPE;
    this.onlyLabels = name === "3d";
    this.nv.setSliceType({ slices: types.MULTIPLANAR, sagittal: types.SAGITTAL, coronal: types.CORONAL, axial: types.AXIAL, "3d": types.RENDER }[name]);
    this.applyOpacity();
    this.root.dataset.view = name;
  }

  // In 3D the image would hide the vertebrae, so that only the labels are drawn.
  applyOpacity() {
    this.nv.setOpacity(0, this.onlyLabels ? 0 : 1);
    this.nv.setOpacity(1, this.onlyLabels ? 1 : Number(this.opacity.value));
  }

  window() {
    const low = 255 * Number(this.low.value), high = 255 * Number(this.high.value);
    this.image.cal_min = Math.min(low, high - 1);
    this.image.cal_max = high;
    this.nv.updateGLVolume();
  }

  colour() {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const [id, entry] of [...this.names].sort((a, b) => a[0] - b[0])) {
      const colour = parseColour(colourBlind() ? SAFE_COLOURS[entry[2]] ?? entry[2] : entry[2]);
      ["R", "G", "B"].forEach((channel, k) => map[channel].push(colour[k]));
      map.A.push(255);
      map.I.push(id);
      map.labels.push(entry[1]);
    }
    this.labels.setColormapLabel(map);
  }

  draw() {
    this.colour();
    this.nv.updateGLVolume();
  }

  goTo(id) {
    const point = this.data.centres[id];
    if (!point) return;
    this.nv.scene.crosshairPos = this.nv.mm2frac(point);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
    this.root.dataset.at = this.names.get(Number(id))?.[1] ?? id;
  }

  show(location) {
    const [x, y, z] = location.mm, id = Math.round(location.values[1]?.value ?? 0), entry = this.names.get(id);
    this.readout.textContent = `${entry ? entry[1] : "no label"} · x ${x.toFixed(1)}, y ${y.toFixed(1)}, z ${z.toFixed(1)} mm`;
  }
}

for (const button of document.querySelectorAll("[data-open-full]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const root = document.getElementById(button.dataset.openFull);
    button.disabled = true;
    root.hidden = false;
    try {
      const viewer = new FullViewer(root);
      await viewer.open();
      viewers.push(viewer);
      button.hidden = true;
      const card = root.closest("section");
      for (const table of card.querySelectorAll("table.levels")) table.addEventListener("click", (event) => {
        const id = viewer.byAbbreviation.get(event.target.closest("tr[id]")?.querySelector("th")?.textContent.trim());
        if (id === undefined) return;
        viewer.goTo(id);
        root.scrollIntoView({ block: "nearest" });
      });
    } catch (error) {
      root.hidden = true;
      root.replaceChildren();
      button.textContent = `The full-resolution viewer does not work here (${error.message}); the viewer above does`;
    }
  });
}
