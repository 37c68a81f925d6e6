/* From pixels to a class map, away from the page, which so stays quick. What is done here is what intarsia does in Python, down
   to the rounding: grey values, the resize by preprocess.scale, mirrored borders, tiles. Sizes are (height, width). */
const OVERLAP = 0.25, STRIDE = 32;
let card, ort, session, tables, latest = 0, queue = Promise.resolve();

function roundEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
const scaledSize = (side) => Math.max(1, roundEven(side * card.scale));

/* (channels, 256): each stored value as the network takes it, in 32-bit steps as NumPy computes them. */
function normalTables() {
  const f = Math.fround;
  return card.mean.map((mean, channel) => Float32Array.from({ length: 256 }, (_, value) =>
    f(f(f(value / 255) - f(mean)) / f(card.std[channel]))));
}

/* Tiles of one side: [start, stop) that the network sees, and [begin, end) whose classes are taken: up to the middle of an overlap. */
function planSide(length, tile, overlap, align) {
  let spans = [[0, length]];
  if (length >= tile + align) {
    const step = Math.max(align, Math.floor(Math.floor(tile * (1 - overlap)) / align) * align);
    const gaps = Math.ceil((length - tile) / step);
    const starts = new Set();
    for (let i = 0; i <= gaps; i++) starts.add(Math.floor(Math.floor((length - tile) * i / gaps) / align) * align);
    spans = [...starts].map((start) => [start, start + tile]);
    spans[spans.length - 1][1] = length;
  }
  const cuts = spans.slice(1).map(([start], i) => Math.floor((start + spans[i][1]) / 2));
  return spans.map(([start, stop], i) => ({ start, stop, begin: i ? cuts[i - 1] : 0, end: cuts[i] ?? length }));
}
function planTiles(height, width, limits) {
  if (height * width * card.scale ** 2 <= limits.whole) return planned(height, width, Math.max(height, width), 0, 1);
  const unit = STRIDE / card.scale;
  const align = Math.abs(unit - Math.round(unit)) < 1e-9 ? Math.round(unit) : STRIDE;
  const tile = Math.max(align, Math.floor(roundEven(limits.tile / card.scale) / align) * align);
  return planned(height, width, tile, card.border && card.scale === 1 ? 0 : OVERLAP, align);
}
function planned(height, width, tile, overlap, align) {
  const columns = planSide(width, tile, overlap, align);
  return planSide(height, tile, overlap, align).flatMap((row) => columns.map((column) => ({ row, column })));
}

/* Whole numbers start .. stop - 1, mirrored at the first and last pixel of a side. */
function mirrored(start, stop, side) {
  const period = 2 * (side - 1);
  return Int32Array.from({ length: stop - start }, (_, i) => {
    if (side === 1) return 0;
    const position = (((start + i) % period) + period) % period;
    return Math.min(position, period - position);
  });
}
/* Pixels that a network of valid convolutions needs before and after a side to have logits for all of it. */
function margins(side) {
  const { lost, first, stride } = card.border, before = Math.floor(lost / 2);
  const needed = first + Math.ceil(Math.max(0, side + lost - first) / stride) * stride;
  return [before, needed - side - before];
}
function framed(start, stop, side) {
  const [before, after] = margins(stop - start);
  return mirrored(start - before, stop + after, side);
}

/* (channels, rows, columns) stored values: RGB, or RGB weighed to grey (ITU-R BT.601). */
function gather(image, rows, columns) {
  const size = rows.length * columns.length, found = new Uint8Array(card.channels * size), f = Math.fround;
  const [red, green, blue] = [0.299, 0.587, 0.114].map(f);
  let at = 0;
  for (const row of rows) {
    const line = row * image.width;
    for (const column of columns) {
      const from = 4 * (line + column), [r, g, b] = [image.rgba[from], image.rgba[from + 1], image.rgba[from + 2]];
      if (card.channels === 1) {
        found[at] = r === g && g === b ? r : roundEven(f(f(f(r * red) + f(g * green)) + f(b * blue)));
      } else {
        found[at] = r;
        found[at + size] = g;
        found[at + 2 * size] = b;
      }
      at++;
    }
  }
  return { data: found, height: rows.length, width: columns.length };
}
function regather(planes, rows, columns) {
  const found = new Uint8Array(card.channels * rows.length * columns.length);
  let at = 0;
  for (let channel = 0; channel < card.channels; channel++) {
    for (const row of rows) {
      const line = (channel * planes.height + row) * planes.width;
      for (const column of columns) found[at++] = planes.data[line + column];
    }
  }
  return { data: found, height: rows.length, width: columns.length };
}

/* Weights of an antialiased triangle filter in 22-bit whole numbers, as Pillow computes them. */
function triangle(from, to) {
  const scale = from / to, wide = Math.max(1, scale);
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - wide + 0.5)), last = Math.min(from, Math.trunc(centre + wide + 0.5));
    const weights = Array.from({ length: last - first }, (_, i) => Math.max(0, 1 - Math.abs((i + first - centre + 0.5) / wide)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: Int32Array.from(weights, (weight) => Math.trunc(0.5 + weight / total * (1 << 22))) };
  });
}
const clipped = (sum) => { const value = sum >> 22; return value < 0 ? 0 : value > 255 ? 255 : value; };
/* One side of (lines, from) numbers that lie `step` apart, the lines `line` apart. */
function resizeSide(data, found, lines, lineIn, lineOut, step, filters) {
  for (let one = 0; one < lines; one++) {
    const start = lineIn(one), out = lineOut(one);
    for (let index = 0; index < filters.length; index++) {
      const { first, weights } = filters[index];
      let sum = 1 << 21, at = start + first * step;
      for (let i = 0; i < weights.length; i++, at += step) sum += data[at] * weights[i];
      found[out + index * step] = clipped(sum);
    }
  }
  return found;
}
function resize(planes, height, width) {
  let { data } = planes;
  const channels = card.channels;
  if (width !== planes.width) {
    const found = new Uint8Array(channels * planes.height * width);
    data = resizeSide(data, found, channels * planes.height, (i) => i * planes.width, (i) => i * width, 1,
      triangle(planes.width, width));
  }
  if (height !== planes.height) {
    const found = new Uint8Array(channels * height * width);
    const place = (tall) => (i) => Math.floor(i / width) * tall * width + i % width;
    data = resizeSide(data, found, channels * width, place(planes.height), place(height), width,
      triangle(planes.height, height));
  }
  return { data, height, width };
}

function tensorOf({ data, height, width }) {
  const size = height * width, channels = card.channels;
  if (card.input === "pixels") {
    const found = new Uint8Array(data.length);
    for (let channel = 0; channel < channels; channel++) {
      for (let i = 0; i < size; i++) found[i * channels + channel] = data[channel * size + i];
    }
    return new ort.Tensor("uint8", found, [1, height, width, channels]);
  }
  const found = new Float32Array(data.length);
  for (let channel = 0; channel < channels; channel++) {
    const table = tables[channel];
    for (let i = channel * size; i < (channel + 1) * size; i++) found[i] = table[data[i]];
  }
  return new ort.Tensor("float32", found, [1, channels, height, width]);
}

/* For each of `to` places: the two of `from` beside it and the share of the second, with half-pixel centres. */
function between(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.max(0, (i + 0.5) * (from / to) - 0.5), low = Math.min(Math.floor(place), from - 1);
    return { low, high: Math.min(low + 1, from - 1), share: place - low };
  });
}
/* (height, width) class of the largest logit; `inner` is the part of the network's output that is meant, brought to that size.
   Classes that were computed already are votes: 1 for the class, 0 for the others. */
function largest({ data, dims }, inner, height, width) {
  const voted = card.output === "classes", [tall, wide] = dims.slice(-2);
  const best = new Float32Array(height * width).fill(-Infinity), classes = new Uint8Array(height * width);
  const same = inner.height === height && inner.width === width;
  const rows = between(inner.height, height), columns = between(inner.width, width);
  const upper = new Float32Array(inner.width), line = new Float32Array(inner.width);
  const read = (index, row, into) => {
    const from = ((voted ? 0 : index * tall) + row) * wide;
    for (let i = 0; i < inner.width; i++) into[i] = voted ? Number(data[from + i] === index) : data[from + i];
  };
  for (let index = 0; index < card.classes; index++) {
    for (let row = 0, at = 0; row < height; row++) {
      const { low, high, share } = rows[row];
      read(index, low, line);
      if (!same && share) {
        read(index, high, upper);
        for (let i = 0; i < inner.width; i++) line[i] = line[i] * (1 - share) + upper[i] * share;
      }
      for (let column = 0; column < width; column++, at++) {
        const beside = columns[column];
        const value = same ? line[column] : line[beside.low] * (1 - beside.share) + line[beside.high] * beside.share;
        if (value > best[at]) { best[at] = value; classes[at] = index; }
      }
    }
  }
  return classes;
}

/* (height, width) classes of a window of the image. */
async function ofWindow(image, row, column) {
  const height = row.stop - row.start, width = column.stop - column.start, around = card.border && card.scale === 1;
  const rows = around ? framed(row.start, row.stop, image.height) : mirrored(row.start, row.stop, image.height);
  const columns = around ? framed(column.start, column.stop, image.width) : mirrored(column.start, column.stop, image.width);
  let planes = gather(image, rows, columns);
  const inner = { height: scaledSize(height), width: scaledSize(width) };
  if (card.scale !== 1) {
    planes = resize(planes, inner.height, inner.width);
    if (card.border) planes = regather(planes, framed(0, inner.height, inner.height), framed(0, inner.width, inner.width));
  }
  const result = (await session.run({ [session.inputNames[0]]: tensorOf(planes) }))[session.outputNames[0]];
  const classes = largest(result, inner, height, width);
  result.dispose();
  return classes;
}

async function run({ id, rgba, height, width, limits }) {
  const begun = performance.now(), image = { rgba, height, width }, tiles = planTiles(height, width, limits);
  const classes = new Uint8Array(height * width);
  for (const [number, { row, column }] of tiles.entries()) {
    if (id !== latest) return postMessage({ kind: "left", id });
    postMessage({ kind: "progress", id, done: number, total: tiles.length });
    const found = await ofWindow(image, row, column), wide = column.stop - column.start;
    for (let y = row.begin; y < row.end; y++) {
      const from = (y - row.start) * wide - column.start;
      classes.set(found.subarray(from + column.begin, from + column.end), y * width + column.begin);
    }
    await new Promise((resolve) => { setTimeout(resolve); });  // lets a newer image be heard of
  }
  const milliseconds = performance.now() - begun;
  return postMessage({ kind: "done", id, classes, milliseconds, tiles: tiles.length }, [classes.buffer]);
}

async function load(message) {
  ({ card } = message);
  tables = normalTables();
  ort = await import(message.runtime.interface);
  Object.assign(ort.env.wasm, { numThreads: message.threads, wasmBinary: message.wasm, wasmPaths: { mjs: message.runtime.start } });
  session = await ort.InferenceSession.create(new Uint8Array(message.model), { executionProviders: ["wasm"] });
  postMessage({ kind: "ready" });
}

onmessage = ({ data }) => {
  if (data.kind === "run") latest = data.id;
  queue = queue.then(() => (data.kind === "load" ? load(data) : run(data)))
    .catch((error) => postMessage({ kind: "failed", id: data.id, reason: String(error?.message ?? error) }));
};
