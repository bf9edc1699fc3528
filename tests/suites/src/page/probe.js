// Looks at the page from inside, and writes down what is not as it should be.

const wrong = [];
const check = (right, what) => { if (!right) wrong.push(what); };
addEventListener("securitypolicyviolation", (event) => wrong.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) => wrong.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => wrong.push(`rejected: ${event.reason}`));

const all = (what) => [...document.querySelectorAll(what)];
const seen = (node) => node.getClientRects().length > 0;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(what, done) {
  for (let n = 0; n < 200; n++) { if (done()) return; await pause(20); }
  wrong.push(`in vain: ${what}`);
}
const rows = () => all("tbody tr");

function layout(when) {
  check(document.documentElement.scrollWidth <= innerWidth, `${when}: wider than the screen, ${document.documentElement.scrollWidth}`);
  // What is cut says all of itself.
  for (const node of all(".name, .reason, small, b, h2, #hosts, .server").filter(seen)) {
    check(node.scrollWidth <= node.clientWidth + 1 || getComputedStyle(node).display === "inline" || node.title !== "",
      `${when}: cut without a word, ${node.textContent}`);
  }
  let bottom = -Infinity;
  for (const row of rows()) {
    const box = row.getBoundingClientRect();
    check(box.top >= bottom - 1, `${when}: rows overlap at ${row.textContent}`);
    bottom = box.bottom;
    const texts = [...row.querySelectorAll("b, small, .name")].filter((node) => seen(node) && node.textContent);
    const boxes = texts.map((node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      const text = range.getBoundingClientRect(), own = node.getBoundingClientRect();
      // Of a text that is cut only what is shown.
      return { node, left: text.left, right: node.title ? Math.min(text.right, own.right) : text.right, top: text.top, bottom: text.bottom };
    });
    boxes.forEach((one, n) => {
      check(one.right <= box.right + 0.5, `${when}: "${one.node.textContent}" sticks out`);
      for (const two of boxes.slice(n + 1)) {
        const apart = one.right <= two.left + 0.5 || two.right <= one.left + 0.5 || one.bottom <= two.top + 2 || two.bottom <= one.top + 2;
        check(apart, `${when}: "${one.node.textContent}" is on "${two.node.textContent}"`);
      }
    });
  }
}

/** WCAG 2: at least 4.5 to 1. */
function contrast() {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const told = new Set();
  for (const node of all("h1, h2, b, small, a, .name, .reason, p, dt, th, button, fieldset span, #status, #hosts").filter(seen)) {
    const [one, two] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    const key = `${getComputedStyle(node).color} on ${ground(node)}`;
    if (ratio < 4.5 && !told.has(key)) { told.add(key); wrong.push(`contrast ${ratio.toFixed(2)}: ${node.textContent.slice(0, 30)} ${key}`); }
  }
}

async function look() {
  await until("rows", () => rows().length > 0);
  layout("folded");
  contrast();
  check(rows().length === 30, `${rows().length} rows before the fold`);
  const words = rows().slice(0, 2).map((row) => row.querySelector(".state b").textContent);
  check(words.every((word) => word === "split"), `not those in trouble first: ${words}`);
  check(all("#edges path").length >= 31, "branches are missing");
  for (const path of all("#edges path")) check(!/NaN|undefined/.test(path.getAttribute("d")), "a branch to nowhere");
  for (const row of rows()) check(row.querySelector(".symbol svg"), "a state without a shape");

  // Everything that does something is reached by the keyboard and has a name.
  for (const node of all("a, button, input").filter(seen)) {
    check(node.tabIndex >= 0, `not to be reached: ${node.outerText}`);
    check(node.textContent || node.labels?.length || node.getAttribute("aria-label"), "without a name");
  }
  const fold = document.getElementById("fold");
  check(/^Show 70 more servers: .*linked.*plain.*occupants$/.test(fold.textContent), fold.textContent);
  const first = rows()[0], before = document.getElementById("status").textContent;
  first.dataset.probe = "same";
  fold.focus();
  fold.click();
  check(rows().length === 100 && fold.getAttribute("aria-expanded") === "true", "it does not unfold");
  layout("unfolded");

  // A refresh changes texts, and no elements.
  await pause(5200);
  await until("a refresh", () => document.getElementById("status").textContent !== before);
  check(rows()[0] === first && first.dataset.probe === "same", "a refresh makes rows anew");
  check(document.activeElement === fold, "a refresh takes the focus away");
  check(rows().length === 100, "a refresh folds");

  // Names are text.
  const filter = document.getElementById("filter");
  check(all("#rooms li").length === 200, `${all("#rooms li").length} rooms`);
  check(/102 more rooms/.test(document.querySelector("#rooms .empty").textContent), "what is not listed is not told");
  filter.value = "WICKED";
  filter.dispatchEvent(new Event("input"));
  await until("the filter", () => all("#rooms li").length === 1);
  const name = document.querySelector("#rooms li .name");
  check(name.textContent.startsWith("<script>window.wicked=1</script>") && name.children.length === 0, "a name became elements");
  location.hash = document.querySelector("#rooms li a").getAttribute("href");
  await until("the wicked room", () => document.querySelector("#root h2").textContent === name.textContent);
  layout("wicked");
  check(window.wicked === undefined, "a name was run");
  check(all("script").length === 2 && all("img").length === 1, "elements that are not the page's");
}

look().catch((error) => wrong.push(String(error.stack))).finally(() => {
  const found = document.createElement("pre");
  found.id = "probe";
  found.textContent = JSON.stringify(wrong.slice(0, 40)).replaceAll(/[<>&]/g, "?");
  document.body.append(found);
});
