"use strict";
// Corrections: chosen level by level, stored in the browser, downloaded as TSV, read by --corrections.
{
  const levels = JSON.parse(document.getElementById("level-names").textContent);
  const forms = [...document.querySelectorAll("[data-correct]")].map((form) => {
    const part = (name) => form.querySelector(`[data-part="${name}"]`);
    const { image, map, rows, structures } = JSON.parse(form.dataset.correct);
    // A page with other corrections gets its own storage, so that old entries do not override them.
    const store = ["totalspineseg_bids corrections", image, map, JSON.stringify(rows)].join(" ");
    let entries = rows;
    try { entries = JSON.parse(localStorage.getItem(store)) || rows; } catch { /* storage is disabled, such as in a private window */ }
    const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
    options(part("label"), [...structures.map(([name, text]) => [name, text]), ["column", "the whole column"]]);
    function offer() {
      const found = structures.find(([name]) => name === part("label").value);
      const kind = found ? found[2] : "column";
      const names = levels[kind].map((level) => [level, level]);
      options(part("name"), kind === "column" ? [["up", "one level up"], ["down", "one level down"]]
        : [...names, ...(kind === "vertebra" ? [["sacralised", "sacralised"]] : []), ["absent", "not there"]]);
      if (found && names.some(([level]) => level === found[1])) part("name").value = found[1];
      follow();
    }
    function follow() {
      part("scope").disabled = part("label").value === "column" || ["absent", "sacralised"].includes(part("name").value);
    }
    const follows = { column: ", all levels follow", above: ", all above follow", below: ", all below follow" };
    function show() {
      part("list").replaceChildren(...entries.map((entry, at) => {
        const item = document.createElement("li");
        const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
        remove.setAttribute("aria-label", `Remove correction ${at + 1}`);
        remove.addEventListener("click", () => change(entries.filter((_, n) => n !== at)));
        item.append(`${entry.label} is ${entry.correction}${follows[entry.scope] || ""}${entry.note ? ` (${entry.note})` : ""} `, remove);
        return item;
      }));
    }
    function change(next) {
      entries = next;
      try { localStorage.setItem(store, JSON.stringify(entries)); } catch { /* storage is disabled, such as in a private window */ }
      show();
    }
    part("label").addEventListener("change", offer);
    part("name").addEventListener("change", follow);
    part("add").addEventListener("click", () => {
      const scope = part("scope").disabled ? "one" : part("scope").value;
      change([...entries, { label: part("label").value, correction: part("name").value, scope, map, note: part("note").value.trim() }]);
      part("note").value = "";
    });
    part("download").addEventListener("click", download);
    offer();
    show();
    form.hidden = false;
    return { image, entries: () => entries };
  });
  function download() {
    const columns = ["label", "correction", "scope", "map", "note"];
    const clean = (text) => String(text ?? "").replace(/\s+/g, " ").trim() || "n/a";
    const lines = [["image", ...columns].join("\t")];
    for (const form of forms) for (const entry of form.entries()) lines.push([form.image, ...columns.map((name) => clean(entry[name]))].join("\t"));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/tab-separated-values" }));
    link.download = `${document.querySelector("h1").textContent}_corrections.tsv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
