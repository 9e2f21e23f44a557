"use strict";
(() => {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  // Previews: each file is in the page once, cards name it.
  const files = JSON.parse(document.getElementById("files").textContent);
  for (const node of all("[data-poster], [data-src]")) {
    if (node.dataset.poster in files) node.poster = files[node.dataset.poster];
    if (node.dataset.src in files) node.src = files[node.dataset.src];
  }
  document.addEventListener("play", (event) => {
    for (const node of all("video, audio")) if (node !== event.target) node.pause();
  }, true);

  // Sliders look up counts that were worked out when the page was made.
  const whole = (n) => n.toLocaleString("en-US");
  const change = (n) => (n > 0 ? "+" : n < 0 ? "\u2212" : "\u00b1") + whole(Math.abs(n));
  for (const box of all(".slider")) {
    const stops = JSON.parse(box.dataset.stops);
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const code = box.querySelector("code");
    const reset = box.querySelector(".reset");
    const line = box.closest("figure").querySelector(".moving");
    const show = () => {
      const i = Number(input.value);
      const now = stops.now;
      const about = stops.about && i !== now ? "about " : "";
      let words = `${stops.value[i]}: ${about}${whole(stops.pass[i])} of ${whole(stops.of)} ${stops.unit}s pass`;
      if (now !== null && i !== now) words += ` (${change(stops.pass[i] - stops.pass[now])})`;
      if (stops.ends[i] !== null) {
        words += `, ${i === now ? "" : "up to "}${whole(stops.ends[i])} reach the shards`;
        if (now !== null && i !== now) words += ` (${change(stops.ends[i] - stops.ends[now])})`;
      }
      output.textContent = words;
      input.setAttribute("aria-valuetext", words);
      code.textContent = `--set ${stops.set[i]}`;
      line.setAttribute("transform", `translate(${stops.x[i]} 0)`);
      line.classList.toggle("on", i !== now);
      reset.disabled = now === null || i === now;
    };
    input.value = stops.now === null ? 0 : stops.now;
    input.addEventListener("input", show);
    reset.addEventListener("click", () => { input.value = stops.now; show(); input.focus(); });
    const copy = box.querySelector(".copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    show();
  }

  // Tables sort by a click on their heads.
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    all("thead th", table).forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const value = (row) => row.cells[column].dataset.value || row.cells[column].textContent;
        const numeric = body.rows[0].cells[column].dataset.value !== undefined;
        const falling = numeric ? head.ariaSort !== "descending" : head.ariaSort === "ascending";
        const sign = falling ? -1 : 1;
        const rows = Array.from(body.rows).sort((a, b) => sign * (numeric
          ? Number(value(a)) - Number(value(b))
          : value(a).localeCompare(value(b))));
        for (const other of all("thead th", table)) other.ariaSort = null;
        head.ariaSort = falling ? "descending" : "ascending";
        body.append(...rows);
      });
    });
  }

  // A link to a folded stage unfolds it; printing unfolds all.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details.stage:not([open])");
    for (const node of folded) node.open = true;
  });
  addEventListener("afterprint", () => { for (const node of folded) node.open = false; });
})();
