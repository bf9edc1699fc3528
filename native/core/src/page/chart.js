// What was saved over time: a bar as high as plain MUC's traffic, and in it what the links took.

import { bytes, short, share, count, svg, text } from "./format.js";

const HEIGHT = 168, TOP = 10, BOTTOM = 22, LEFT = 58, RIGHT = 6;

/** The least of 1, 2, 2.5 and 5 times a power of ten that is not below. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= value * 0.999999);
}

const clock = (time) => new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Draws `history` (see document.rs) into `chart`, and says its sum in `sum`. */
export function draw(chart, sum, history, unit) {
  const plainAt = unit === "bytes" ? 2 : 0, takenAt = plainAt + 1;
  const write = unit === "bytes" ? bytes : (n) => `${count(n)} ${Math.round(n) === 1 ? "stanza" : "stanzas"}`;
  let plain = 0, taken = 0, most = 0;
  for (const span of history.spans) {
    plain += span[plainAt];
    taken += span[takenAt];
    most = Math.max(most, span[plainAt], span[takenAt]);
  }
  const name = history.seconds * history.most <= 3600 ? "hour" : "day";
  const saved = plain - taken;
  const part = share(saved, plain);
  text(sum, most === 0 ? `Nothing was carried in the last ${name}.`
    : saved >= 0 ? `${write(saved)} saved in the last ${name}${part && `, ${part} of ${write(plain)}`}`
    : `${write(-saved)} more than plain MUC in the last ${name}: little was said`);

  const width = Math.max(240, Math.round(chart.parentElement.clientWidth));
  const inner = width - LEFT - RIGHT, high = HEIGHT - TOP - BOTTOM;
  const step = inner / history.most;
  const parts = [];
  const tick = nice(Math.max(most, unit === "bytes" ? 1000 : 4) / 4);
  const scale = tick * Math.max(1, Math.ceil(most / tick));
  for (let value = 0; value <= scale * 1.0001; value += tick) {
    const y = Math.round(TOP + high - value / scale * high) + 0.5;
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    const label = svg("text", { class: "y", x: LEFT - 8, y: y + 4 });
    label.textContent = unit === "bytes" ? bytes(value) : short(value);
    parts.push(label);
  }

  const now = Date.now();
  // The newest span began here.
  const begin = now - history.running * 1000;
  const place = (time) => LEFT + inner - step + (time - begin) / (history.seconds * 1000) * step;
  const every = (name === "hour" ? 15 : width < 500 ? 360 : 180) * 60000;
  // Whole hours of the reader's clock.
  const shift = new Date(now).getTimezoneOffset() * 60000;
  for (let time = Math.floor((now - shift) / every) * every + shift; place(time) > LEFT + 12; time -= every) {
    const x = place(time);
    if (x > width - 22) continue;
    const label = svg("text", { class: "x", x, y: HEIGHT - 5 });
    label.textContent = clock(time);
    parts.push(svg("line", { class: "mark", x1: x, x2: x, y1: TOP + high, y2: TOP + high + 4 }), label);
  }

  const gap = step > 7 ? 2 : 1;
  history.spans.forEach((span, n) => {
    const back = history.spans.length - 1 - n;
    const x = LEFT + inner - (back + 1) * step;
    if (x < LEFT - 0.5) return;
    const bar = (kind, value) => {
      const height = value / scale * high;
      return svg("rect", {
        class: kind, x: x + gap / 2, width: step - gap,
        y: TOP + high - height, height, rx: Math.min(1.5, height / 2),
      });
    };
    const tip = svg("title");
    const from = begin - back * history.seconds * 1000;
    tip.textContent = `${clock(from)}–${clock(back ? from + history.seconds * 1000 : now)}\n` +
      `${write(span[plainAt])} as plain MUC\n${write(span[takenAt])} over the links`;
    parts.push(svg("g", {}, tip,
      svg("rect", { class: "hit", x, y: TOP, width: step, height: high }),
      bar("plain", span[plainAt]), bar("taken", span[takenAt])));
  });
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  chart.setAttribute("width", width);
  chart.setAttribute("height", HEIGHT);
  chart.replaceChildren(...parts);
}
