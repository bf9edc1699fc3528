// Asks for data.json every few seconds and shows what has changed. The chosen room stands after the `#` of the
// address, so that it can be kept and sent on.

import { bytes, count, html, plural, share, short, sync, text } from "./format.js";
import { draw } from "./chart.js";
import { branches, mark, measure, show, state } from "./tree.js";

const EVERY = 5000, PATIENCE = 15000;
const node = (id) => document.getElementById(id);
const main = document.querySelector("main");
const narrow = matchMedia("(max-width: 820px)");

let latest = null, timer = 0, asked = null, unit = "";

function chosen() {
  const [, name] = location.hash.match(/^#room=(.*)$/) ?? [];
  try { return name ? decodeURIComponent(name) : ""; } catch { return ""; }
}
const link = (room) => `#room=${encodeURIComponent(room)}`;

async function refresh() {
  clearTimeout(timer);
  asked?.abort();
  const stop = asked = new AbortController();
  const late = setTimeout(() => stop.abort("late"), PATIENCE);
  try {
    const query = new URLSearchParams({ room: chosen(), filter: node("filter").value });
    // Not relative: the address of the page may have a name and password in it.
    const answer = await fetch(`${location.origin}${location.pathname}data.json?${query}`, { signal: stop.signal, cache: "no-store" });
    if (answer.status === 401) throw new Error("You are logged out: load the page again.");
    if (!answer.ok) throw new Error(`The server says ${answer.status}.`);
    const told = await answer.json();
    if (stop !== asked) return;
    latest = told;
    document.body.classList.remove("stale");
    text(node("status"), `as of ${new Date().toLocaleTimeString("en-GB")}`);
    render();
  } catch (error) {
    if (stop !== asked) return;
    document.body.classList.add("stale");
    const why = stop.signal.aborted || error instanceof TypeError ? "The server does not answer." : error.message;
    text(node("status"), latest ? `${why} This is older.` : why);
  } finally {
    clearTimeout(late);
    if (stop === asked && !document.hidden) timer = setTimeout(refresh, EVERY);
  }
}

function render() {
  main.hidden = false;
  const names = latest.hosts.map((host) => host.name);
  text(node("hosts"), names.join(", "), true);
  document.title = `dmuc, ${names[0] ?? ""}`;
  const above = node("above");
  above.hidden = !latest.above;
  if (latest.above) above.href = latest.above;
  sync(node("notices"), latest.hosts.filter((host) => host.off), (host) => host.name,
    () => html("p", { class: "notice" }),
    (p, host) => text(p, `dmuc is off on ${host.name}, rooms work as without it: ${host.off}`));
  figures();
  past();
  rooms();
  room();
}

function figures() {
  const sum = (name) => latest.hosts.reduce((n, host) => n + Number(host.about?.[name] ?? 0), 0);
  const [carried, stanzas, carriedBytes, taken] = latest.total;
  const broken = sum("links_broken");
  const waiting = sum("waiting_bytes");
  const all = [
    ["Saved since the start", carriedBytes ? bytes(carriedBytes - taken) : "–",
      carriedBytes ? `${share(carriedBytes - taken, carriedBytes) || "nothing"} of ${bytes(carriedBytes)}`
        : carried ? "bytes are counted where the rooms are" : "nothing was carried yet"],
    ["Stanzas saved", short(carried - stanzas), `${short(carried)} copies in ${short(stanzas)} stanzas`],
    ["Links of rooms here", count(sum("links")), broken ? `${count(broken)} broken` : sum("links") ? "none broken" : "to other servers"],
    ["Links of users here", count(sum("links_served")), "to rooms elsewhere"],
    ["Waiting", bytes(waiting), waiting ? "to be acknowledged" : "nothing"],
  ];
  sync(node("figures").firstElementChild, all, ([name]) => name,
    ([name]) => html("div", {}, html("dt", {}, name), html("dd", {}, html("b"), html("small"))),
    (div, [name, value, note]) => {
      const [big, small] = div.lastChild.children;
      text(big, value);
      text(small, note);
      div.className = name === "Links of rooms here" && broken ? "bad" : "";
    });
}

function past() {
  if (!latest) return;
  const value = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  // Where all rooms are elsewhere, there are no bytes to show.
  if (!unit && latest.total[0] && !latest.total[2]) document.querySelector("input[value=stanzas]").checked = true;
  draw(node("chart"), node("past-sum"), latest[value("span")], value("unit"));
}

/** What one should know first of a room. */
function worst(states) {
  for (const name of ["split", "silent", "draining", "linked", "setting up", "asking", "plain"]) {
    if (states.some(([known]) => known === name)) return name;
  }
  return states[0]?.[0] ?? "plain";
}

function rooms() {
  const { list, found, total } = latest.rooms;
  text(node("rooms-count"), `${found === total ? count(total) : `${count(found)} of ${count(total)}`}, by stanzas saved`);
  const nav = node("rooms");
  const empty = nav.querySelector(".empty");
  const more = found - list.length;
  text(empty, total === 0 ? "No room has occupants of other servers." : found === 0 ? "None matches."
    : `${plural(more, "more room")}, which a filter finds.`);
  empty.hidden = found > 0 && more === 0;
  sync(nav.querySelector("ul"), list, (item) => `${item.role} ${item.room}`,
    (item) => html("li", {}, html("a", { href: link(item.room) },
      html("span", { class: "symbol" }), html("span", { class: "name" }), html("b"), html("small"))),
    (li, item) => {
      const anchor = li.firstChild;
      const [symbol, name, saved, about] = anchor.children;
      const word = worst(item.states);
      const [kind] = state(word);
      if (symbol.dataset.kind !== kind) { symbol.replaceChildren(mark(kind)); symbol.dataset.kind = kind; }
      text(name, item.room, true);
      text(saved, item.saved ? short(item.saved) : "–");
      saved.title = `${plural(item.saved, "stanza")} saved` + (item.saved_bytes ? `, ${bytes(item.saved_bytes)}` : "");
      const states = item.states.map(([name, n]) => item.states.length > 1 ? `${count(n)} ${name}` : name).join(", ");
      text(about, `${states} · ${plural(item.occupants, "occupant")}${item.role === "replica" ? " from here" : ""}`, true);
      if (item.room === chosen()) anchor.setAttribute("aria-current", "true");
      else anchor.removeAttribute("aria-current");
    });
}

function room() {
  // On a broad screen there is place for one at once.
  if (!chosen() && !narrow.matches && latest.rooms.list.length > 0) {
    history.replaceState(null, "", link(latest.rooms.list[0].room));
    choose();
    return;
  }
  const told = latest.room?.room === chosen() ? latest.room : null;
  const empty = node("room").querySelector(".empty");
  empty.hidden = Boolean(told);
  text(empty, chosen() ? `${chosen()} has no occupants of other servers now.` : "No room is chosen.");
  measure(told);
  show(told);
}

function choose() {
  document.body.classList.toggle("chosen", chosen() !== "");
  if (latest) rooms();
  refresh();
}

addEventListener("hashchange", () => { choose(); if (narrow.matches) scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
let typed = 0;
node("filter").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(refresh, 250); });
for (const input of document.querySelectorAll("input[type=radio]")) {
  input.addEventListener("change", () => { if (input.name === "unit") unit = input.value; past(); });
}
new ResizeObserver(() => past()).observe(node("past"));
new ResizeObserver(() => branches()).observe(node("tree"));
choose();
