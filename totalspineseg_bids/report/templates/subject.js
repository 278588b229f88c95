"use strict";
// Layers of the pictures at a click, strength of the areas, and an enlarged picture.
for (const viewer of document.querySelectorAll("[data-viewer]")) {
  const controls = viewer.querySelector(".controls");
  controls.hidden = false;
  for (const box of controls.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => viewer.classList.toggle("no-" + box.dataset.layer, !box.checked));
  }
  const strength = controls.querySelector("[data-strength]");
  strength.addEventListener("input", () => viewer.style.setProperty("--fill", strength.value));
}
const zoom = document.querySelector("dialog.zoom");
for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", () => {
    const copy = picture.cloneNode(true);
    const first = copy.querySelector("img");
    const source = picture.querySelector("img");
    const room = Math.max(1, Math.min(2, (0.94 * innerHeight) / source.naturalHeight));
    first.style.width = Math.round(source.naturalWidth * room) + "px";
    first.style.height = Math.round(source.naturalHeight * room) + "px";
    const viewer = picture.closest("[data-viewer]");
    copy.className = picture.className + " " + [...viewer.classList].filter((c) => c.startsWith("no-")).join(" ");
    copy.style.setProperty("--fill", viewer.style.getPropertyValue("--fill") || "1");
    copy.setAttribute("aria-label", "Close");
    copy.addEventListener("click", () => zoom.close());
    zoom.replaceChildren(copy);
    zoom.showModal();
  });
}
