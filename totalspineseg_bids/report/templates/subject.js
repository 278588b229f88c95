"use strict";
// Switches for the layers of the figures, opacity of the areas, and enlarged figures.
for (const viewer of document.querySelectorAll("[data-viewer]")) {
  const controls = viewer.querySelector(".controls");
  controls.hidden = false;
  for (const box of controls.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => viewer.classList.toggle("no-" + box.dataset.layer, !box.checked));
  }
  const opacity = controls.querySelector("[data-opacity]");
  opacity.addEventListener("input", () => viewer.style.setProperty("--fill", opacity.value));
}
const dialog = document.querySelector("dialog.zoom");
for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", () => {
    const copy = picture.cloneNode(true);
    const image = copy.querySelector("img");
    const source = picture.querySelector("img");
    const scale = Math.max(1, Math.min(2, (0.94 * innerHeight) / source.naturalHeight));
    image.style.width = Math.round(source.naturalWidth * scale) + "px";
    image.style.height = Math.round(source.naturalHeight * scale) + "px";
    const viewer = picture.closest("[data-viewer]");
    copy.className = picture.className + " " + [...viewer.classList].filter((c) => c.startsWith("no-")).join(" ");
    copy.style.setProperty("--fill", viewer.style.getPropertyValue("--fill") || "1");
    copy.setAttribute("aria-label", "Close");
    copy.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(copy);
    dialog.showModal();
  });
}
