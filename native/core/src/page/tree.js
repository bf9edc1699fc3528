// The picture of a room: its server at the root, the servers of its occupants below, each a row of a table.
// The branches are drawn behind them, to wherever the rows have come to stand.

import { address, bytes, count, duration, html, plural, share, short, svg, sync, text, trip } from "./format.js";

/** Rows before the rest is folded. */
const FOLDED = 30;

/** Shape and words of each state: the colour is not all that tells them apart. */
const STATES = {
  "linked": ["good", "linked", "Each broadcast crosses once"],
  "split": ["bad", "split", "The stream is broken; what is said waits"],
  "silent": ["bad", "silent", "Nothing is heard from the room"],
  "draining": ["warn", "draining", "The link ends when all is acknowledged"],
  "setting up": ["busy", "setting up", "A link is being set up"],
  "asking": ["busy", "asking", "It is asked whether it has dmuc"],
  "plain": ["off", "plain", "Served one by one, as without dmuc"],
};
export const state = (name) => STATES[name] ?? ["off", name, ""];

/** The mark of a state, 16 by 16: full, broken, half, dotted or empty. */
export function mark(kind) {
  const shapes = {
    good: [["circle", { cx: 8, cy: 8, r: 6, class: "full" }], ["path", { d: "M5.2 8.2l2 2 3.6-4.2", class: "in" }]],
    bad: [["path", { d: "M8 1.8L15 14H1z", class: "full" }], ["path", { d: "M8 6v4M8 11.9v.2", class: "in" }]],
    warn: [["circle", { cx: 8, cy: 8, r: 6 }], ["path", { d: "M8 2a6 6 0 0 1 0 12z", class: "full" }]],
    busy: [["circle", { cx: 8, cy: 8, r: 6, "stroke-dasharray": "2.2 2.5" }]],
    off: [["circle", { cx: 8, cy: 8, r: 6 }]],
  };
  return svg("svg", { class: `mark ${kind}`, viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    ...shapes[kind].map(([name, attributes]) => svg(name, attributes)));
}

const cell = (kind, label) => html("td", { role: "cell", class: kind, "data-label": label },
  html("b"), html("small"));

function make() {
  return html("tr", { role: "row" },
    html("th", { role: "rowheader", scope: "row" }, html("span", { class: "symbol" }),
      html("span", { class: "name" }), html("small", { class: "reason" })),
    cell("state", ""), cell("n", "Occupants"), cell("n", "Round trip"), cell("n", "Waiting"),
    cell("n", "Carried"), cell("n", "Saved"));
}

/** Copies per second of each link since the answer before, by its key. */
const rates = new Map();
export function measure(room) {
  const now = performance.now();
  const seen = new Set();
  for (const link of room?.links ?? []) {
    const key = `${room.room} ${link.peer} ${link.epoch}`;
    seen.add(key);
    const old = rates.get(key);
    if (!old) rates.set(key, { at: now, carried: link.carried, rate: null });
    else if (now - old.at > 2500) {
      rates.set(key, { at: now, carried: link.carried, rate: Math.max(0, link.carried - old.carried) / (now - old.at) * 1000 });
    }
  }
  for (const key of rates.keys()) if (!seen.has(key)) rates.delete(key);
}

function put(td, value, note = "") {
  td.toggleAttribute("data-empty", value === "–" || value === "0");
  text(td.firstChild, value);
  text(td.lastChild, note);
}

function update(tr, { link, room, depth }) {
  const [kind, word, meaning] = state(link.state);
  const [head, stateCell, occupants, roundTrip, waiting, carried, saved] = tr.children;
  const [symbol, name, reason] = head.children;
  tr.className = kind;
  tr.style.setProperty("--depth", depth);
  if (symbol.dataset.kind !== kind) { symbol.replaceChildren(mark(kind)); symbol.dataset.kind = kind; }
  // The far end of a link: of a room here the occupants' server, else this one.
  address(name, room.role === "primary" ? link.peer || "(unknown)" : room.host);
  const why = link.reason === word || link.reason === "linked" ? "" : link.reason;
  text(reason, why, true);
  reason.hidden = !why;
  put(stateCell, word, link.up !== null && kind === "good" ? duration(link.up) : "");
  stateCell.title = meaning;
  put(occupants, count(link.occupants), link.apart ? `${count(link.apart)} apart` : "");
  put(roundTrip, link.round_trip === null ? "–" : trip(link.round_trip));
  const kept = room.role === "replica";
  put(waiting, link.waiting ? plural(link.waiting, "copy", "copies") : kept ? "–" : "0",
    link.waiting_bytes ? `${bytes(link.waiting_bytes)}${kept ? " kept" : ""}` : "");
  const rate = rates.get(`${room.room} ${link.peer} ${link.epoch}`)?.rate;
  put(carried, link.carried ? short(link.carried) : "–",
    rate ? `${rate < 9.5 ? rate.toFixed(1) : count(rate)} / s` : "");
  carried.title = `${plural(link.carried, "copy", "copies")} of what the room sent`;
  const part = share(link.saved, link.carried);
  if (link.carried_bytes) put(saved, bytes(link.saved_bytes), share(link.saved_bytes, link.carried_bytes));
  else put(saved, link.carried ? short(link.saved) : "–", part && `stanzas, ${part}`);
  saved.title = `${count(link.saved)} of ${count(link.carried)} stanzas` +
    (link.carried_bytes ? `, ${bytes(link.saved_bytes)} of ${bytes(link.carried_bytes)}` : "");
}

/** Children below their parents. Until links say who their parent is, all are below the root. */
function arrange(links) {
  const below = new Map();
  const known = new Set(links.map((link) => link.peer));
  for (const link of links) {
    const parent = link.parent && known.has(link.parent) && link.parent !== link.peer ? link.parent : "";
    if (!below.has(parent)) below.set(parent, []);
    below.get(parent).push(link);
  }
  const rows = [];
  const walk = (parent, depth) => {
    for (const link of below.get(parent) ?? []) {
      rows.push({ link, parent, depth });
      if (depth < 8) walk(link.peer, depth + 1);
    }
    below.delete(parent);
  };
  walk("", 0);
  return rows;
}

const nodes = (id) => document.getElementById(id);
let drawn = [], open = "";

/** Draws the room, or that there is none. */
export function show(room) {
  const tree = nodes("tree");
  tree.hidden = !room;
  if (!room) return;
  const root = nodes("root");
  if (!root.firstChild) {
    root.append(html("h2"), html("p", { class: "server" }), html("p", { class: "sum" }));
  }
  const [title, server, sum] = root.children;
  address(title, room.room);
  const here = room.role === "primary";
  text(server, here ? `room on this server, ${room.host}` : `room on ${room.links[0].peer}`, true);
  text(sum, here ? `${plural(room.occupants, "occupant")} on ${plural(room.total, "other server")}`
    : `${plural(room.occupants, "occupant")} from here`);

  const rows = arrange(room.links).map((row) => ({ ...row, room }));
  const folded = rows.length > FOLDED + 5 && open !== room.room;
  const rest = folded ? rows.splice(FOLDED) : [];
  sync(tree.querySelector("tbody"), rows, ({ link }) => `${link.host ?? ""} ${link.peer}`, make, update);
  drawn = rows;

  const button = nodes("fold");
  const more = room.total - room.links.length;
  button.hidden = rest.length === 0 && open !== room.room;
  button.setAttribute("aria-expanded", String(!folded));
  if (folded) {
    const states = new Map();
    let occupants = 0;
    for (const { link } of rest) {
      states.set(link.state, (states.get(link.state) ?? 0) + 1);
      occupants += link.occupants;
    }
    const words = [...states].map(([name, n]) => `${count(n)} ${name}`).join(", ");
    text(button, `Show ${plural(rest.length, "more server")}: ${words}; ${plural(occupants, "occupant")}`);
  } else text(button, more > 0 ? `Show fewer (${count(more)} more are not told)` : "Show fewer");
  button.onclick = () => { open = folded ? room.room : ""; show(room); };
  branches();
}

/** Draws the branches behind the rows. */
export function branches() {
  const tree = nodes("tree"), edges = nodes("edges");
  if (tree.hidden) return;
  const frame = tree.getBoundingClientRect();
  const middle = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left - frame.left + box.width / 2, box.top - frame.top + box.height / 2];
  };
  const box = nodes("root").getBoundingClientRect();
  const anchors = new Map([["", [box.left - frame.left + 20, box.bottom - frame.top]]]);
  const rows = tree.querySelector("tbody").children;
  const most = Math.max(1, ...drawn.map(({ link }) => link.carried));
  const paths = [];
  const trunks = new Map();
  drawn.forEach(({ link, parent }, n) => {
    const row = rows[n];
    if (!row) return;
    const [x, y] = middle(row.querySelector(".symbol"));
    anchors.set(link.peer, [x, y + 9]);
    const [fromX, fromY] = anchors.get(parent);
    trunks.set(parent, [fromX, fromY, y]);
    const [kind] = state(link.state);
    const turn = Math.min(10, x - fromX - 10);
    // As broad as it has carried.
    const broad = kind === "off" ? 1.5 : 1.5 + 3.5 * Math.sqrt(Math.max(0, link.carried) / most);
    paths.push(svg("path", {
      class: kind, "stroke-width": broad.toFixed(2),
      d: `M${fromX} ${y - turn} q0 ${turn} ${turn} ${turn} H${x - 10}`,
    }));
  });
  const fold = nodes("fold");
  if (!fold.hidden && fold.getAttribute("aria-expanded") === "false" && trunks.has("")) {
    const [, y] = middle(fold);
    const [x, from] = anchors.get("");
    trunks.set("", [x, from, y]);
    paths.push(svg("path", { class: "off", "stroke-width": 1.5,
      d: `M${x} ${y - 10} q0 10 10 10 H${fold.getBoundingClientRect().left - frame.left - 4}` }));
  }
  for (const [x, from, to] of trunks.values()) {
    paths.unshift(svg("path", { class: "trunk", d: `M${x} ${from} V${to - 9}` }));
  }
  edges.setAttribute("width", Math.ceil(frame.width));
  edges.setAttribute("height", Math.ceil(frame.height));
  edges.replaceChildren(...paths);
}
