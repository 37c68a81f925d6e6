"use strict";
document.documentElement.classList.add("js");
const report = JSON.parse(document.getElementById("report-data").textContent);
const find = (id) => document.getElementById(id);
const make = (tag, settings = {}) => Object.assign(document.createElement(tag), settings);

/* The note beside the cursor. Text is set as text, never as HTML. */
const tip = find("tip");
function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 12 : event.clientX + 16;
  const top = event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}
const hideTip = () => { tip.hidden = true; };
document.addEventListener("pointermove", (event) => {
  const told = event.target.closest("[data-tip]");
  if (told) showTip(event, told.dataset.tip);
  else if (!event.target.closest(".cell, .frame")) hideTip();
});
document.addEventListener("scroll", hideTip, { capture: true, passive: true });

/* Class maps: the class numbers are the bytes of the palette PNG, unpacked once per picture. */
const pictures = report.pictures.map(() => ({}));
for (const cell of document.querySelectorAll(".cell")) {
  pictures[cell.dataset.picture][cell.dataset.panel] = cell.querySelector("img");
}
const maps = new Map();
async function unpack(uri) {
  const text = atob(uri.slice(uri.indexOf(",") + 1));
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const [width, height, parts] = [view.getUint32(16), view.getUint32(20), []];
  for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
    if (text.slice(at + 4, at + 8) === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  return { width, height, at: (row, column) => rows[row * (width + 1) + 1 + column] };
}
function classMap(number, panel) {
  const key = `${number} ${panel}`;
  if (!maps.has(key)) {
    maps.set(key, null);
    unpack(pictures[number][panel].src).then((map) => maps.set(key, map)).catch(() => {});
  }
  return maps.get(key);
}
function swatch(index) {
  const mark = make("i", { className: index < report.classes.length ? "swatch" : "swatch ignored" });
  mark.style.setProperty("--c", report.colours[index] || "#888");
  return mark;
}
function classLine(number, panel, across, down) {
  const map = classMap(number, panel);
  if (!map) return null;
  const row = Math.min(map.height - 1, Math.floor(down * map.height));
  const index = map.at(row, Math.min(map.width - 1, Math.floor(across * map.width)));
  const line = make("div");
  const name = index < report.classes.length ? report.classes[index] : "ignored";
  line.append(make("span", { className: "what", textContent: `${panel}: ` }), swatch(index), make("span", { textContent: name }));
  return { line, index };
}
/* Where in the picture the cursor is, 0..1; the picture may have bars beside it in its frame (object-fit: contain). */
function placeIn(image, event) {
  const box = image.getBoundingClientRect();
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  const [left, top] = [(box.width - width) / 2, (box.height - height) / 2];
  const across = (event.clientX - box.left - left) / width, down = (event.clientY - box.top - top) / height;
  if (!(across >= 0 && across < 1 && down >= 0 && down < 1)) return null;
  return { across, down, left: left + across * width, top: top + down * height };
}
function tellClasses(event, number, place) {
  const lines = ["truth", "prediction"].map((panel) => classLine(number, panel, place.across, place.down));
  if (lines.every(Boolean)) showTip(event, ...lines.map((one) => one.line));
}
const dots = report.panels.map(() => make("i", { className: "dot" }));
function clearDots() {
  for (const dot of dots) dot.remove();
}
for (const cell of document.querySelectorAll(".cell")) {
  const number = Number(cell.dataset.picture);
  cell.addEventListener("pointerenter", () => { classMap(number, "truth"); classMap(number, "prediction"); });
  cell.addEventListener("pointermove", (event) => {
    const place = placeIn(cell.querySelector("img:not(.under)"), event);
    if (!place) { hideTip(); clearDots(); return; }
    tellClasses(event, number, place);
    report.panels.forEach((panel, index) => {
      const other = pictures[number][panel].parentElement;
      if (other === cell) { dots[index].remove(); return; }
      dots[index].style.left = `${place.left}px`;
      dots[index].style.top = `${place.top}px`;
      other.append(dots[index]);
    });
  });
  cell.addEventListener("pointerleave", () => { hideTip(); clearDots(); });
  cell.addEventListener("click", () => enlarge(number, cell.dataset.panel));
}

/* Class maps over the image. */
const blend = find("blend");
function addUnder(parent, number) {
  if (parent.querySelector(".under")) return;
  parent.prepend(make("img", { className: "under", src: pictures[number].image.src, alt: "" }));
}
if (blend) {
  blend.addEventListener("input", () => {
    document.documentElement.style.setProperty("--blend", blend.value / 100);
    pictures.forEach((panels, number) => ["truth", "prediction"].forEach((panel) => addUnder(panels[panel].parentElement, number)));
  });
}

/* One picture large. Escape closes, as in every dialog. */
const box = find("lightbox");
let shown = { number: 0, panel: "image" };
function enlarge(number, panel) {
  shown = { number, panel };
  const source = pictures[number][panel], full = report.pictures[number].full[panel];
  const frame = make("div", { className: "frame" });
  const small = source.closest(".small") ? " small" : "";
  if (panel === "truth" || panel === "prediction") addUnder(frame, number);
  frame.append(make("img", { className: `top ${panel}${small}`, src: source.src, alt: source.alt }));
  frame.addEventListener("pointermove", (event) => {
    const place = placeIn(frame.lastElementChild, event);
    if (place) tellClasses(event, number, place);
  });
  frame.addEventListener("pointerleave", hideTip);
  find("lightbox-stage").replaceChildren(frame);
  find("lightbox-name").textContent = report.pictures[number].name;
  find("lightbox-full").hidden = !full;
  if (full) find("lightbox-full").href = full;
  for (const tab of find("lightbox-tabs").children) tab.setAttribute("aria-pressed", tab.textContent === panel);
  find("lightbox-before").disabled = number === 0;
  find("lightbox-after").disabled = number === pictures.length - 1;
  if (!box.open) {
    hideTip();
    clearDots();
    box.append(tip);
    box.showModal();
    find("lightbox-tabs").children[report.panels.indexOf(panel)].focus();
  }
  fit();
}
function fit() {
  const stage = find("lightbox-stage"), frame = stage.firstElementChild;
  if (!frame) return;
  const source = pictures[shown.number][shown.panel];
  const scale = Math.min(stage.clientWidth / source.naturalWidth, stage.clientHeight / source.naturalHeight);
  frame.style.width = `${source.naturalWidth * scale}px`;
  frame.style.height = `${source.naturalHeight * scale}px`;
}
function step(by) {
  const number = shown.number + by;
  if (number >= 0 && number < pictures.length) enlarge(number, shown.panel);
}
function turn(by) {
  const count = report.panels.length;
  enlarge(shown.number, report.panels[(report.panels.indexOf(shown.panel) + by + count) % count]);
}
if (box) {
  for (const panel of report.panels) {
    const tab = make("button", { type: "button", textContent: panel });
    tab.addEventListener("click", () => enlarge(shown.number, panel));
    find("lightbox-tabs").append(tab);
  }
  find("lightbox-before").addEventListener("click", () => step(-1));
  find("lightbox-after").addEventListener("click", () => step(1));
  find("lightbox-close").addEventListener("click", () => box.close());
  find("lightbox-stage").addEventListener("click", (event) => { if (!event.target.closest(".frame")) box.close(); });
  box.addEventListener("close", () => {
    hideTip();
    document.body.append(tip);
    pictures[shown.number][shown.panel].parentElement.focus();
  });
  box.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), ArrowUp: () => step(-1), ArrowDown: () => step(1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  addEventListener("resize", fit);
}

/* The confusion matrix: the row and column under the cursor. */
const matrix = document.querySelector(".matrix");
if (matrix) {
  matrix.addEventListener("pointerover", (event) => {
    for (const head of matrix.querySelectorAll(".here")) head.classList.remove("here");
    const cell = event.target.closest("tbody td");
    if (!cell) return;
    cell.parentElement.cells[0].classList.add("here");
    matrix.tHead.rows[0].cells[cell.cellIndex].classList.add("here");
  });
}

/* The table of images: sorted by a heading, thinned by the search. Images without a score stay last. */
const table = find("table"), body = table.tBodies[0], lines = [...body.rows];
const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
function compare(column, isText) {
  return (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column]);
    if (isText) return words.compare(x.textContent, y.textContent);
    return Number(x.dataset.v) - Number(y.dataset.v);
  };
}
function sortBy(head) {
  const column = head.cellIndex, isText = head.dataset.kind === "text";
  const down = head.getAttribute("aria-sort") === "ascending";
  const empty = (row) => row.cells[column].textContent === "-";
  const order = compare(column, isText);
  lines.sort((a, b) => empty(a) - empty(b) || (down ? -order(a, b) : order(a, b)));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...lines);
}
for (const head of table.tHead.rows[0].cells) {
  const button = make("button", { type: "button", textContent: head.textContent });
  button.addEventListener("click", () => sortBy(head));
  head.replaceChildren(button);
}
const search = find("search");
search.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  let count = 0;
  for (const row of lines) {
    row.hidden = ![0, 4].some((column) => row.cells[column].textContent.toLowerCase().includes(wanted));
    count += !row.hidden;
  }
  find("found").textContent = wanted ? `${count} of ${lines.length}` : "";
  find("none").hidden = count > 0;
});
