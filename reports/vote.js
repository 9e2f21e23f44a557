// Votes on cards, where a server takes them.
(() => {
  const ballot = document.getElementById("ballot");
  if (!ballot) return;
  const name = ballot.querySelector("input");
  const status = ballot.querySelector("output");
  const given = JSON.parse(ballot.dataset.votes);
  const words = [["agree", "Agree"], ["disagree", "Disagree"], ["unsure", "Unsure"]];
  try { name.value = localStorage.getItem("reviewer") || ""; } catch { /* private window */ }
  const key = (v) => JSON.stringify([v.reviewer, v.stage, v.unit, v.outcome, v.reason]);
  const last = new Map(given.map((v) => [key(v), v.word]));
  const cards = [];
  const show = () => {
    let mine = 0;
    for (const { vote, buttons } of cards) {
      const word = last.get(key({ ...vote, reviewer: name.value.trim() }));
      if (word) mine += 1;
      for (const button of buttons) button.ariaPressed = String(button.value === word);
    }
    status.textContent = `${mine} of ${cards.length} cards voted on`;
  };
  const send = async (vote, button) => {
    const reviewer = name.value.trim();
    if (!reviewer) {
      status.textContent = "Say who you are first.";
      name.focus();
      return;
    }
    const full = { ...vote, reviewer, word: button.value };
    try {
      const reply = await fetch("votes", { method: "POST",
        headers: { "Content-Type": "application/json" }, body: JSON.stringify(full) });
      if (!reply.ok) throw new Error((await reply.json()).error);
      last.set(key(full), full.word);
      show();
    } catch (error) {
      status.textContent = `Not kept: ${error.message}`;
    }
  };
  for (const card of document.querySelectorAll(".card[data-unit]")) {
    const { unit, group, outcome, reason } = card.dataset;
    const stage = card.closest("details.stage").id;
    const vote = { run: ballot.dataset.run, stage, unit, group, outcome, reason: reason || "" };
    const row = document.createElement("div");
    row.className = "vote";
    row.role = "group";
    row.ariaLabel = `Is ${outcome} right for ${unit}?`;
    const buttons = words.map(([value, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.value = value;
      button.textContent = label;
      button.addEventListener("click", () => send(vote, button));
      row.append(button);
      return button;
    });
    card.querySelector(".about").append(row);
    cards.push({ vote, buttons });
  }
  name.addEventListener("input", () => {
    try { localStorage.setItem("reviewer", name.value.trim()); } catch { /* private window */ }
    show();
  });
  show();
})();
