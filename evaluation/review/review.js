"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const make = (tag, fields, ...children) => {
    const node = Object.assign(document.createElement(tag), fields || {});
    node.append(...children);
    return node;
  };
  const data = JSON.parse($("round").textContent);
  const items = data.items;
  const served = location.protocol === "http:" || location.protocol === "https:";
  const place = `reelmill-review-${data.round}-${data.rater}`;
  const STEP = 0.5, FRAME = 1 / 25, APART = 0.03, FAR = 0.25, RETRY_MS = 3000;

  // ---- What is kept: every vote in the browser at once, and on the server where there is one.
  const votes = new Map();
  const unsent = new Set();
  let draft = null, closed = false, kept = true;

  function recall() {
    try {
      const held = JSON.parse(localStorage.getItem(place) || "{}");
      for (const vote of held.votes || []) votes.set(vote.item, vote);
      for (const id of held.unsent || []) if (votes.has(id)) unsent.add(id);
      draft = held.draft || null;
    } catch { kept = false; }
  }
  function remember() {
    try {
      localStorage.setItem(place, JSON.stringify({ votes: [...votes.values()], unsent: [...unsent], draft }));
      kept = true;
    } catch { kept = false; }
  }
  function state(words, bad) {
    $("saved").textContent = words;
    $("saved").classList.toggle("bad", Boolean(bad));
  }
  function showKept() {
    if (closed) return state("The round is closed.", true);
    if (!kept && !served) return state("This browser keeps nothing: export before you close.", true);
    if (!served) return state(votes.size ? "Kept in this browser" : "");
    if (refused.size) return state(`Not taken: ${[...refused.values()][0]}`, true);
    if (unsent.size) return sending ? state("Saving") : state(`${unsent.size} not saved yet`, true);
    state(votes.size ? "Saved" : "");
  }
  let sending = false, timer = 0;
  const refused = new Map();
  const waiting = () => [...unsent].find((id) => !refused.has(id));
  async function send() {
    clearTimeout(timer);
    timer = 0;
    if (!served || sending || closed) return showKept();
    sending = true;
    showKept();
    try {
      for (let id = waiting(); id && !closed; id = waiting()) {
        const vote = votes.get(id);
        const reply = await fetch("votes", {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(vote),
        });
        if (reply.status === 409) closed = true;
        else if (reply.ok && votes.get(id) === vote) unsent.delete(id);
        else if (reply.status >= 500) throw new Error("server");
        else if (!reply.ok) refused.set(id, (await reply.json().catch(() => ({}))).error || `error ${reply.status}`);
        remember();
      }
    } catch { timer = setTimeout(send, RETRY_MS); } finally { sending = false; }
    showKept();
    if (!$("done").hidden) done();
  }
  async function fetchVotes() {
    if (!served) { for (const id of votes.keys()) unsent.delete(id); return; }
    try {
      const reply = await fetch("votes", { cache: "no-store" });
      if (!reply.ok) return;
      const told = await reply.json();
      closed = told.closed;
      const there = new Set(told.votes.map((vote) => vote.item));
      for (const vote of told.votes) if (!unsent.has(vote.item)) votes.set(vote.item, vote);
      for (const id of votes.keys()) if (!there.has(id)) unsent.add(id);
    } catch { for (const id of votes.keys()) unsent.add(id); }
  }
  function download() {
    const lines = items.filter((item) => votes.has(item.id)).map((item) => JSON.stringify(votes.get(item.id)));
    const link = make("a", {
      href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" })),
      download: `votes-${data.rater}.jsonl`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // ---- Two players, one clock. The one that is heard leads, so that its sound is never bent.
  const clips = [$("clip-left"), $("clip-right")];
  const figures = [$("figure-left"), $("figure-right")];
  let shown = -1, item = null, heard = 0, playing = false, plays = 0, seconds = 0, since = 0, ticking = 0;
  const used = () => (item && item.media.length === 2 ? [0, 1] : [0]);
  const length = () => Math.max(0, ...used().map((i) => clips[i].duration || 0));
  const now = () => Math.max(...used().map((i) => clips[i].currentTime));
  const ended = () => used().every((i) => clips[i].ended || clips[i].currentTime >= (clips[i].duration || 0) - 0.01);

  function voice() {
    used().forEach((i) => {
      clips[i].muted = i !== heard;
      clips[i].volume = $("equal").checked ? item.gains[i] : 1;
      figures[i].classList.toggle("on", used().length > 1 && i === heard);
      figures[i].querySelector(".heard").textContent = i === heard ? "heard" : "";
    });
    all("#sound input").forEach((input) => { input.checked = Number(input.value) === heard; });
  }
  function hear(i) {
    if (used().length < 2 || i === heard) return;
    heard = i;
    voice();
    tell(`You hear the ${i ? "right" : "left"} clip`);
  }
  async function play() {
    if (!item) return;
    if (ended()) seek(0);
    playing = true;
    $("play").textContent = "Pause";
    const started = await Promise.allSettled(used().map((i) => (clips[i].ended ? null : clips[i].play())));
    if (started.some((s) => s.status === "rejected" && s.reason.name === "NotAllowedError")) pause();
    cancelAnimationFrame(ticking);
    ticking = requestAnimationFrame(tick);
  }
  function pause() {
    playing = false;
    $("play").textContent = "Play";
    used().forEach((i) => { clips[i].pause(); clips[i].playbackRate = 1; });
    show();
  }
  function seek(to) {
    const t = Math.min(Math.max(0, to), length());
    used().forEach((i) => { clips[i].currentTime = Math.min(t, clips[i].duration || 0); });
    show();
  }
  function tick() {
    if (!playing) return;
    const lead = clips[heard];
    for (const i of used()) {
      const clip = clips[i];
      if (i === heard || clip.ended || lead.ended || clip.seeking || clip.readyState < 3) continue;
      const off = clip.currentTime - lead.currentTime;
      if (Math.abs(off) > FAR) { clip.currentTime = lead.currentTime; clip.playbackRate = 1; }
      else clip.playbackRate = Math.abs(off) > APART ? 1 - Math.min(0.15, Math.max(-0.15, off * 2)) : 1;
    }
    lead.playbackRate = 1;
    if (ended()) {
      plays += 1;
      keepDraft();
      if ($("loop").checked) { seek(0); play(); return; }
      pause();
      return;
    }
    show();
    ticking = requestAnimationFrame(tick);
  }
  function show() {
    const whole = length(), t = now();
    $("scrub").value = whole ? Math.round((1000 * t) / whole) : 0;
    $("scrub").setAttribute("aria-valuetext", `${t.toFixed(1)} of ${whole.toFixed(1)} seconds`);
    $("time").textContent = `${t.toFixed(1)} / ${whole.toFixed(1)} s`;
  }
  clips.forEach((clip, i) => {
    clip.addEventListener("loadedmetadata", show);
    clip.addEventListener("error", () => {
      if (clip.getAttribute("src")) figures[i].querySelector(".fault").textContent = "This clip cannot be played here. Tell the organiser.";
    });
  });

  // ---- The questions.
  let current = 0;
  const rows = () => all("#answers .row");
  const chosen = (row) => row.querySelector("input:checked");
  const choices = () => (item.media.length === 2
    ? [["left", "Left better"], ["same", "Same"], ["right", "Right better"]]
    : data.likert.map((words, i) => [String(i + 1), words]));
  const tell = (words) => { $("told").textContent = words; };

  function mark(i) {
    const found = rows();
    current = Math.min(Math.max(0, i), found.length - 1);
    found.forEach((row, k) => row.classList.toggle("now", k === current));
    if (found[current]) found[current].scrollIntoView({ block: "nearest" });
  }
  function answer(k) {
    const row = rows()[current];
    const input = row && all("input", row)[k];
    if (!input) return;
    input.checked = true;
    changed(row);
  }
  function changed(row) {
    const found = rows();
    row.classList.remove("missing");
    $("missing").textContent = "";
    const i = found.indexOf(row);
    tell(`${row.dataset.label}: ${chosen(row).dataset.words}`);
    const next = found.findIndex((other, k) => k > i && !chosen(other));
    mark(next < 0 ? i : next);
    keepDraft();
  }
  function fields() {
    const answers = {};
    for (const row of rows()) {
      const input = chosen(row);
      if (input) answers[row.dataset.row] = item.media.length === 2 ? input.value : Number(input.value);
    }
    return { answers, marks: all("#marks input:checked").map((input) => input.value), note: $("note").value.slice(0, 2000) };
  }
  function taken() {
    const more = since ? (Date.now() - since) / 1000 : 0;
    return seconds + more;
  }
  function keepDraft() {
    if (!item || votes.has(item.id)) return;
    draft = { item: item.id, ...fields(), plays, seconds: taken() };
    remember();
  }
  function buildRows(before) {
    const box = $("answers");
    box.replaceChildren();
    box.classList.toggle("five", item.media.length === 1);
    item.rows.forEach((name, r) => {
      const about = data.rows[name];
      const what = make("span", { className: "what", id: `what-${r}` }, make("b", { textContent: about.label }), make("span", { textContent: about.asks }));
      const group = make("span", { className: "choices" });
      choices().forEach(([value, words], k) => {
        const input = make("input", { type: "radio", name: `row-${r}`, value });
        input.dataset.words = words;
        input.checked = before && String(before.answers[name]) === value;
        group.append(make("label", {}, input, make("kbd", { textContent: k + 1 }), ` ${words}`));
      });
      const row = make("div", { className: "row" }, what, group);
      row.dataset.row = name;
      row.dataset.label = about.label;
      row.setAttribute("role", "radiogroup");
      row.setAttribute("aria-labelledby", `what-${r}`);
      row.addEventListener("change", () => changed(row));
      row.addEventListener("pointerdown", () => mark(r));
      row.addEventListener("focusin", () => mark(r));
      box.append(row);
    });
    const marks = $("marks"), two = item.media.length === 2;
    marks.replaceChildren();
    $("more-told").textContent = two ? "A note (if you like)" : "What was wrong? (if you like)";
    for (const name of two ? [] : item.rows) {
      if (!data.rows[name].parts.length) continue;
      const group = make("fieldset", {}, make("legend", { textContent: data.rows[name].label }));
      for (const [part, words, asks] of data.rows[name].parts) {
        const input = make("input", { type: "checkbox", value: part });
        input.checked = Boolean(before && before.marks.includes(part));
        group.append(make("label", { title: asks }, input, words));
      }
      group.addEventListener("change", keepDraft);
      marks.append(group);
    }
    $("note").value = before ? before.note : "";
  }
  function buildPrompt() {
    const box = $("prompt");
    box.replaceChildren();
    box.lang = item.language || "";
    const parts = item.prompt.split(/<(dialogue|singing|sfx|bgm|text)>([^]*?)<\/\1>/);
    const words = { dialogue: "said", singing: "sung", sfx: "sound", bgm: "music", text: "written" };
    for (let i = 0; i < parts.length; i += 3) {
      box.append(parts[i]);
      if (i + 2 >= parts.length) continue;
      const tag = make("span", { className: "tag", textContent: parts[i + 2] });
      tag.dataset.tag = words[parts[i + 1]];
      box.append(tag);
    }
  }
  function open(i, byHand) {
    pause();
    shown = i;
    item = items[i];
    heard = 0;
    plays = 0;
    seconds = 0;
    since = document.hidden ? 0 : Date.now();
    const vote = votes.get(item.id);
    const before = vote || (draft && draft.item === item.id ? draft : null);
    if (before) { plays = before.plays; seconds = before.seconds; }
    $("main").hidden = false;
    $("done").hidden = true;
    const two = item.media.length === 2;
    $("clips").classList.toggle("one", !two);
    figures[1].hidden = !two;
    $("sound").hidden = !two;
    figures[0].querySelector("b").textContent = two ? "Left" : "Clip";
    clips.forEach((clip, k) => {
      figures[k].querySelector(".fault").textContent = "";
      if (k < item.media.length) clip.src = `media/${item.media[k]}`;
      else { clip.removeAttribute("src"); clip.load(); }
    });
    buildPrompt();
    buildRows(before);
    $("missing").textContent = "";
    $("back").disabled = i === 0;
    const first = rows().findIndex((row) => !chosen(row));
    mark(first < 0 ? 0 : first);
    voice();
    show();
    count();
    tell(`Question ${i + 1} of ${items.length}`);
    window.scrollTo(0, 0);
    if (byHand) {
      $("answers").focus({ preventScroll: true });
      play();
    }
  }
  function count() {
    const n = items.filter((one) => votes.has(one.id)).length;
    $("progress").value = n;
    $("count").textContent = $("main").hidden ? `${n} of ${items.length} answered` : `${shown + 1} of ${items.length}`;
  }
  function next() {
    const after = items.findIndex((one, i) => i > shown && !votes.has(one.id));
    return after >= 0 ? after : items.findIndex((one) => !votes.has(one.id));
  }
  function save() {
    if (!item || closed || $("main").hidden) return;
    const said = fields();
    const missing = rows().filter((row) => !chosen(row));
    missing.forEach((row) => row.classList.add("missing"));
    if (missing.length) {
      mark(rows().indexOf(missing[0]));
      $("missing").textContent = `Please answer: ${missing.map((row) => row.dataset.label).join(", ")}`;
      return;
    }
    votes.set(item.id, {
      round: data.round, rater: data.rater, item: item.id, ...said,
      seconds: Math.min(2e6, Math.round(taken() * 10) / 10), plays: Math.min(plays, 100000), at: Date.now() / 1000,
    });
    unsent.add(item.id);
    refused.delete(item.id);
    draft = null;
    remember();
    send();
    const to = next();
    if (to < 0) done(true);
    else open(to, true);
  }
  function done(focus) {
    pause();
    item = null;
    $("main").hidden = true;
    $("done").hidden = false;
    count();
    $("done-told").textContent = closed
      ? "The round is closed; it takes no more votes."
      : served
        ? (unsent.size ? "Your last votes are not saved yet. Leave this page open, or export them." : "Every vote is saved. You can close this page.")
        : "Export your votes and send the file to the organiser.";
    if (focus) $("done").focus();
  }
  function back() { if (shown > 0) open($("done").hidden ? shown - 1 : shown, true); }
  function forth() { if (item && votes.has(item.id) && shown + 1 < items.length) open(shown + 1, true); }

  // ---- Hands.
  $("play").addEventListener("click", () => (playing ? pause() : play()));
  $("restart").addEventListener("click", () => { seek(0); play(); });
  $("scrub").addEventListener("input", () => seek((Number($("scrub").value) / 1000) * length()));
  $("equal").addEventListener("change", voice);
  all("#sound input").forEach((input) => input.addEventListener("change", () => hear(Number(input.value))));
  $("note").addEventListener("input", keepDraft);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); save(); });
  $("back").addEventListener("click", back);
  $("again").addEventListener("click", () => open(shown < 0 ? items.length - 1 : shown, true));
  $("export").addEventListener("click", download);
  $("export-done").addEventListener("click", download);
  $("ask-help").addEventListener("click", () => $("help").showModal());
  $("close-help").addEventListener("click", () => $("help").close());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { seconds = taken(); since = 0; if (playing) pause(); keepDraft(); } else since = Date.now();
  });
  const keys = {
    " ": () => (playing ? pause() : play()),
    arrowleft: () => seek(now() - STEP), arrowright: () => seek(now() + STEP),
    ",": () => { pause(); seek(now() - FRAME); }, ".": () => { pause(); seek(now() + FRAME); },
    arrowup: () => mark(current - 1), arrowdown: () => mark(current + 1),
    a: () => hear(0), d: () => hear(1), s: () => hear(1 - heard),
    l: () => { $("equal").checked = !$("equal").checked; voice(); tell($("equal").checked ? "Equal loudness" : "Own loudness"); },
    r: () => { seek(0); play(); },
    p: back, n: forth, enter: save,
    "?": () => $("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const at = event.target, key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (at.id === "note") { if (key === "escape") at.blur(); return; }
    const own = at.closest("button, summary") || at.type === "checkbox";
    if (own && (key === " " || key === "enter")) return;
    if (at.id === "scrub" && key.startsWith("arrow")) return;
    if (!item && key !== "?" && key !== "p") return;
    if (/^[1-5]$/.test(key)) { event.preventDefault(); answer(Number(key) - 1); return; }
    if (key in keys) { event.preventDefault(); if (!(event.repeat && (key === "enter" || key === "p" || key === "n"))) keys[key](); }
  });

  recall();
  fetchVotes().then(() => {
    remember();
    const first = items.findIndex((one) => draft && draft.item === one.id && !votes.has(one.id));
    const to = first >= 0 ? first : items.findIndex((one) => !votes.has(one.id));
    shown = items.length - 1;
    if (to < 0 || closed) done();
    else open(to, false);
    send();
    document.body.dataset.ready = "yes";
  });
})();
