const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const make = (tag, settings = {}) => Object.assign(document.createElement(tag), settings);
const MOST_SHOWN = 1 << 24;  // pixels of a canvas: phones take no larger ones
const SMALLEST_TILE = 256;
const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/* What the page says. */
class Told extends Error {}
function say(text, share = null) {
  find("state").textContent = text;
  find("bar").hidden = share === null;
  if (share !== null) find("bar").value = share;
}
function complain(error) {
  const words = error instanceof Told ? error.message : `Something went wrong: ${String(error?.message ?? error)}`;
  Object.assign(find("problem"), { textContent: words, hidden: false });
  say("");
}
addEventListener("error", (event) => complain(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => { event.preventDefault(); complain(event.reason); });

/* Files beside the page. */
const beside = (name) => new URL(name, document.baseURI).href;
async function fetchFile(file, tick) {
  let answer;
  try { answer = await fetch(beside(file.name)); } catch { answer = null; }
  if (!answer?.ok) throw new Told(`${file.name} could not be loaded${answer ? ` (HTTP ${answer.status})` : ""}. It must lie beside this page.`);
  const parts = [];
  for (let reader = answer.body.getReader(), part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    tick(part.value.length);
  }
  const bytes = await new Blob(parts).arrayBuffer();
  if (bytes.byteLength !== file.bytes) throw new Told(`${file.name} is not the file that was exported (${bytes.byteLength} bytes, not ${file.bytes}). Copy it again.`);
  return bytes;
}
async function fetchAll() {
  const files = [data.model, data.wasm], total = files.reduce((sum, file) => sum + file.bytes, 0);
  let got = 0;
  const tick = (bytes) => {
    got += bytes;
    say(`Loading the model: ${number(got / 1e6, 1)} of ${number(total / 1e6, 1)} MB`, got / total);
  };
  return Promise.all(files.map((file) => fetchFile(file, tick)));
}

/* The worker: made anew where memory did not suffice, for smaller pieces. */
const engine = { worker: null, waiting: new Map(), limits: { ...data.limits }, count: 0, files: null, ready: null };
function startWorker() {
  const source = URL.createObjectURL(new Blob([find("worker").textContent], { type: "text/javascript" }));
  engine.worker?.terminate();
  engine.worker = new Worker(source, { type: "module" });
  engine.ready = new Promise((resolve, reject) => {
    engine.worker.onerror = (event) => {
      const error = new Told(`The computation could not be started in this browser (${event.message ?? "no worker"}). A newer one may help.`);
      reject(error);
      for (const waiting of engine.waiting.values()) waiting.reject(error);
    };
    engine.worker.onmessage = ({ data: message }) => {
      if (message.kind === "ready") resolve();
      else if (message.kind === "failed" && message.id === undefined) reject(new Told(`The model could not be started (${message.reason}).`));
      else engine.waiting.get(message.id)?.hear(message);
    };
  });
  const [model, wasm] = engine.files;
  const threads = crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  const runtime = { interface: beside(data.runtime.interface), start: beside(data.runtime.start) };
  engine.worker.postMessage({ kind: "load", card: data.card, model, wasm, threads, runtime });
  return engine.ready;
}
const isMemory = (reason) => /memory|alloc|overflow|out of bounds|^\d+$|aborted|unreachable|RangeError|array length/i.test(reason);
function ask(pixels, tick) {
  const id = ++engine.count, { rgba, height, width } = pixels;
  return new Promise((resolve, reject) => {
    const hear = (message) => {
      if (message.kind === "progress") return tick(message.done, message.total);
      engine.waiting.delete(id);
      if (message.kind === "done") return resolve(message);
      return reject(message.kind === "left" ? new Told("Another image was chosen.") : new Error(message.reason));
    };
    engine.waiting.set(id, { hear, reject });
    engine.worker.postMessage({ kind: "run", id, rgba, height, width, limits: engine.limits });
  });
}
/* The next smaller pieces in which an image may fit into memory; null: there are none. */
function smaller({ height, width }) {
  const { tile, whole } = engine.limits, { scale } = data.card, longest = Math.max(height, width) * scale - 32;
  const seen = height * width * scale ** 2 <= whole ? longest : Math.min(tile, longest);
  let side = tile;
  while (side >= seen) side /= 2;
  return side < SMALLEST_TILE ? null : { tile: side, whole: 0 };
}
async function compute(pixels, tick) {
  await loaded;
  for (;;) {
    await engine.ready;
    try { return await ask(pixels, tick); } catch (error) {
      if (error instanceof Told || !isMemory(error.message)) throw error;
      const limits = smaller(pixels);
      if (!limits) {
        startWorker();
        throw new Told("The memory that a browser gives does not suffice for this model and image.");
      }
      engine.limits = limits;
      startWorker();
    }
  }
}

/* Pixels of a file, upright, as they are stored: no colour management, transparency dropped. */
async function decode(blob) {
  const name = blob.name ? `${blob.name}: ` : "";
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    const tiff = /tiff?$/i.test(blob.type || blob.name || "") ? " Browsers read no TIFF; save it as PNG." : "";
    throw new Told(`${name}is no image that this browser can read. PNG, JPEG, WebP, BMP and GIF can be read.${tiff}`);
  }
  const { width, height } = bitmap;
  let rgba;
  try { rgba = readPixels(bitmap); } catch (error) {
    throw new Told(`${name}${number(width)} × ${number(height)} pixels are more than this browser holds (${error.message}). Make the image smaller.`);
  }
  let note = "";
  if (hasAlpha(rgba)) {
    const straight = readStraight(bitmap);
    if (straight) rgba = straight;
    else note = "Pixels that are partly transparent are read darker than they are stored.";
  }
  return { rgba, width, height, bitmap, note };
}
function hasAlpha(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return true;
  return false;
}
function readPixels(bitmap) {
  const { width, height } = bitmap, rgba = new Uint8ClampedArray(4 * width * height);
  const lines = Math.max(1, Math.min(height, Math.floor((1 << 20) / width)));
  const canvas = make("canvas", { width, height: lines });
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += lines) {
    brush.clearRect(0, 0, width, lines);
    brush.drawImage(bitmap, 0, -top);
    rgba.set(brush.getImageData(0, 0, width, Math.min(lines, height - top)).data, 4 * top * width);
  }
  return rgba;
}
/* A 2D canvas multiplies colours with their opacity; a texture keeps them. null: not here, or too large. */
function readStraight(bitmap) {
  const { width, height } = bitmap, gl = make("canvas", { width: 1, height: 1 }).getContext("webgl");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  const texture = gl.createTexture(), rgba = new Uint8Array(4 * width * height);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return failed ? null : rgba;
}

/* From a file to what is shown. */
let shown = null, alone = null;
async function segment(blob) {
  find("problem").hidden = true;
  say("Reading the image ...");
  const image = await decode(blob), pieces = (done, total) => (total > 1 ? `, piece ${done + 1} of ${total}` : "");
  say("Computing ...", 0);
  const result = await compute(image, (done, total) => {
    say(`Computing${pieces(done, total)} ...`, done / total);
    if (total === 1) find("bar").removeAttribute("value");
  });
  const { width, height, bitmap } = image, { classes } = result;
  const name = blob.name ?? "image", shares = data.classes.map(() => 0);
  for (const index of classes) shares[index]++;
  shown = { width, height, classes, name, shares: shares.map((count) => count / classes.length) };
  draw(bitmap);
  bitmap.close();
  const time = result.milliseconds < 1e4 ? `${number(result.milliseconds)}\u00a0ms` : `${number(result.milliseconds / 1e3, 1)}\u00a0s`;
  find("facts").textContent = [name, `${number(width)}\u00a0×\u00a0${number(height)} pixels`, `computed in ${time}`,
    ...(result.tiles > 1 ? [`${result.tiles} overlapping pieces`] : [])].join(" · ");
  say(image.note || "Done.");
  return { width, height, classes };
}
window.segment = segment;
async function open(blob) {
  try { await segment(blob); } catch (error) {
    if (error.message !== "Another image was chosen.") complain(error);
  }
}

function draw(bitmap) {
  const shrink = Math.min(1, Math.sqrt(MOST_SHOWN / (shown.width * shown.height)));
  const width = Math.max(1, Math.floor(shown.width * shrink)), height = Math.max(1, Math.floor(shown.height * shrink));
  for (const id of ["image", "overlay"]) Object.assign(find(id), { width, height });
  const brush = find("image").getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, 0, 0, width, height);
  const wide = Math.max(width, Math.min(1200, width * 8));  // small images are enlarged, so that one can point at a pixel
  find("figure").style.setProperty("--wide", `${wide}px`);
  find("figure").style.setProperty("--ratio", width / height);
  find("figure").classList.toggle("enlarged", wide > 3 * width);
  alone = null;
  find("result").hidden = false;
  document.body.classList.add("shown");
  point(null);
  drawOverlay();
  drawLegend();
}
function drawOverlay() {
  const canvas = find("overlay"), { width, height } = canvas, brush = canvas.getContext("2d");
  const picture = brush.createImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
  const colours = new Uint32Array(256);
  const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  data.classes.forEach(({ colour: [red, green, blue] }, index) => {
    if (alone !== null && alone !== index) return;
    colours[index] = little ? 0xff000000 | blue << 16 | green << 8 | red : red << 24 | green << 16 | blue << 8 | 0xff;
  });
  for (let row = 0, at = 0; row < height; row++) {
    const line = Math.floor((row + 0.5) * shown.height / height) * shown.width;
    for (let column = 0; column < width; column++, at++) {
      pixels[at] = colours[shown.classes[line + Math.floor((column + 0.5) * shown.width / width)]];
    }
  }
  brush.putImageData(picture, 0, 0);
}
function swatch(index) {
  const mark = make("i", { className: "swatch" });
  mark.style.setProperty("--c", css(index));
  return mark;
}
const css = (index) => `rgb(${data.classes[index].colour.join(" ")})`;
const percent = (share) => (share === 0 ? "–" : share < 0.0005 ? "<0.1 %" : `${number(100 * share, 1)} %`);
function drawLegend() {
  find("legend").replaceChildren(...data.classes.map(({ name }, index) => {
    const line = make("li"), button = make("button", { type: "button", className: shown.shares[index] ? "" : "absent" });
    button.setAttribute("aria-pressed", "false");
    button.style.setProperty("--c", css(index));
    button.style.setProperty("--share", shown.shares[index]);
    button.append(swatch(index), make("span", { textContent: name }), make("span", { className: "muted", textContent: percent(shown.shares[index]) }));
    button.addEventListener("click", () => choose(index));
    line.append(button);
    return line;
  }));
}
function choose(index) {
  alone = alone === index ? null : index;
  [...find("legend").children].forEach((line, place) => line.firstChild.setAttribute("aria-pressed", String(place === alone)));
  drawOverlay();
}

/* The class under the cursor, or under the point that the arrow keys move. */
let place = null;
function point(row, column, event = null) {
  place = row === null ? null : { row, column };
  const index = place ? shown.classes[row * shown.width + column] : null;
  [...find("legend").children].forEach((line, at) => line.classList.toggle("here-now", at === index));
  find("under").replaceChildren(...(place ? [swatch(index), data.classes[index].name] : ["–"]));
  find("tip").hidden = !event;
  find("dot").hidden = !place || Boolean(event);
  if (place) Object.assign(find("dot").style, { left: `${100 * (column + 0.5) / shown.width}%`, top: `${100 * (row + 0.5) / shown.height}%` });
  if (!event) return;
  find("tip").replaceChildren(swatch(index), data.classes[index].name);
  const { width, height } = find("tip").getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 12 : event.clientX + 16;
  const top = event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  find("tip").style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}
function pointAt(event) {
  const box = find("image").getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top) / box.height * shown.height);
  const column = Math.floor((event.clientX - box.left) / box.width * shown.width);
  if (row >= 0 && column >= 0 && row < shown.height && column < shown.width) point(row, column, event);
}
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
function step(event) {
  if (!(event.key in STEPS)) return;
  event.preventDefault();
  const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(shown.width, shown.height) / 100));
  const from = place ?? { row: shown.height >> 1, column: shown.width >> 1 };
  const [down, across] = place ? STEPS[event.key] : [0, 0];
  const within = (value, side) => Math.min(side - 1, Math.max(0, value));
  point(within(from.row + down * far, shown.height), within(from.column + across * far, shown.width));
}

/* Files to keep. The class map is a palette PNG, written here: no canvas writes one. */
const CRC = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});
function chunk(kind, content) {
  const bytes = new Uint8Array(content.length + 12), view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(kind), 4);
  bytes.set(content, 8);
  let sum = 0xffffffff;
  for (let at = 4; at < content.length + 8; at++) sum = CRC[(sum ^ bytes[at]) & 255] ^ (sum >>> 8);
  view.setUint32(content.length + 8, ~sum);
  return bytes;
}
async function classMapPng({ width, height, classes }) {
  const rows = new Uint8Array(height * (width + 1)), head = new DataView(new ArrayBuffer(13));
  for (let row = 0; row < height; row++) rows.set(classes.subarray(row * width, (row + 1) * width), row * (width + 1) + 1);
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint16(8, 0x0803);  // 8 bits, palette
  const packed = await new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  const palette = Uint8Array.from(data.classes.flatMap(({ colour }) => colour));
  const parts = [chunk("IHDR", new Uint8Array(head.buffer)), chunk("PLTE", palette), chunk("IDAT", new Uint8Array(packed)), chunk("IEND", new Uint8Array())];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...parts], { type: "image/png" });
}
window.classMapPng = classMapPng;
async function overlayPng() {
  const { width, height } = find("image"), canvas = make("canvas", { width, height }), brush = canvas.getContext("2d");
  brush.drawImage(find("image"), 0, 0);
  brush.globalAlpha = find("blend").value / 100;
  brush.drawImage(find("overlay"), 0, 0);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Told("The overlay is too large for this browser to write."))), "image/png");
  });
}
function save(blob, ending) {
  const link = make("a", { href: URL.createObjectURL(blob), download: shown.name.replace(/\.[^.]*$/, "") + ending });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/* What a person does. */
function listen() {
  const file = find("file"), stage = find("stage");
  find("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => { if (file.files[0]) open(file.files[0]); file.value = ""; });
  find("sample")?.addEventListener("click", async () => {
    try {
      const answer = await fetch(beside(data.sample));
      if (!answer.ok) throw new Told(`${data.sample} could not be loaded (HTTP ${answer.status}). It must lie beside this page.`);
      await open(new File([await answer.blob()], data.sample));
    } catch (error) { complain(error); }
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over-page"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over-page"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over-page");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
    else complain(new Told("No file was dropped. Drop an image file, or save the picture first."));
  });
  addEventListener("paste", (event) => {
    const pasted = event.clipboardData.files[0];
    if (pasted) open(pasted);
  });
  find("blend").addEventListener("input", (event) => document.documentElement.style.setProperty("--blend", event.target.value / 100));
  for (const kind of ["pointermove", "pointerdown"]) stage.addEventListener(kind, pointAt);
  stage.addEventListener("pointerleave", () => point(null));
  stage.addEventListener("keydown", step);
  stage.addEventListener("blur", () => point(null));
  find("save-classes").addEventListener("click", async () => save(await classMapPng(shown), "_classes.png"));
  find("save-overlay").addEventListener("click", async () => save(await overlayPng(), "_overlay.png"));
}

async function start() {
  if (location.protocol === "file:") {
    throw new Told("This page was opened as a file, and browsers then load no model. Serve its folder, by  python -m http.server 8000  in it, and open  http://localhost:8000");
  }
  if (typeof WebAssembly !== "object") throw new Told("This browser has no WebAssembly, by which the model is computed.");
  listen();
  engine.files = await fetchAll();
  say("Starting the model ...");
  await startWorker();
  say("Ready.");
  for (const id of ["choose", "sample"]) if (find(id)) find(id).disabled = false;
}
const loaded = start();
loaded.catch(complain);
