// Label maps as pure functions: nothing here touches the page, so node tests it alone.
// A label is an index into the names, -1 = unlabelled. Maps are row by row, width x height.

/** [value, length, value, length, ...] -> one label per pixel. */
export function decodeRuns(runs, count) {
  const labels = new Int32Array(count);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    labels.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  if (at !== count) throw new Error(`got runs of ${at} pixels, expected ${count}`);
  return labels;
}

/** RGBA of a label map: class colours at `opacity`, opaque contours; hidden classes are transparent. */
export function paint(labels, width, height, { colours, hidden, opacity, contours }) {
  const pixels = new Uint8ClampedArray(4 * labels.length);
  const inside = Math.round(255 * opacity);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      if (label < 0 || hidden.has(label)) continue;
      const edge = contours && ((x > 0 && labels[i - 1] !== label) || (x < width - 1 && labels[i + 1] !== label)
        || (y > 0 && labels[i - width] !== label) || (y < height - 1 && labels[i + width] !== label));
      const [red, green, blue] = colours[label];
      pixels[4 * i] = red;
      pixels[4 * i + 1] = green;
      pixels[4 * i + 2] = blue;
      pixels[4 * i + 3] = edge ? 255 : inside;
    }
  }
  return pixels;
}

/** 0 where two label maps differ, -1 where they agree. */
export function difference(first, second) {
  return first.map((label, i) => (label === second[i] ? -1 : 0));
}

/** Share of the pixels of each of `count` labels, 0..1. */
export function areas(labels, count) {
  const found = new Float64Array(count);
  for (const label of labels) if (label >= 0) found[label] += 1;
  return found.map((pixels) => pixels / labels.length);
}

/** 0.314 -> "31 %"; a little is never written as nothing. */
export function percent(share) {
  return share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`;
}

/** Base64 of 16-bit numbers, little-endian -> them. */
export function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] + 256 * bytes[2 * i + 1]);
}

/** A layer's cells with numbers in place of text; a score has three digits. */
export function decodeCells({ size, each, words, scores, range: [low, high] }) {
  const score = (step) => Number((low + ((high - low) * step) / 65535).toPrecision(3));
  return { size, each, words: unpack(words), scores: Array.from(unpack(scores), score) };
}

/** The best words of the cell that holds pixel (x, y): [{label, score}], best first. */
export function wordsAt(cells, x, y, width, height) {
  const [rows, columns] = cells.size;
  const row = Math.min(rows - 1, Math.floor((y * rows) / height));
  const column = Math.min(columns - 1, Math.floor((x * columns) / width));
  const start = (row * columns + column) * cells.each;
  return Array.from({ length: cells.each }, (_, i) => ({ label: cells.words[start + i], score: cells.scores[start + i] }));
}

/** COCO's uncompressed RLE of one label: runs down the columns, the first one of zeros. */
export function cocoRle(labels, width, height, label) {
  const counts = [];
  let inside = false, length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if ((labels[y * width + x] === label) !== inside) {
        counts.push(length);
        inside = !inside;
        length = 0;
      }
      length += 1;
    }
  }
  counts.push(length);
  return { size: [height, width], counts };
}

/** Position on a pane -> position in the image, both in pixels; `view` has scale, x, y (the image's point at 0, 0). */
export function toImage(view, x, y) {
  return [view.x + x / view.scale, view.y + y / view.scale];
}

/** The view scaled by `factor` so that the point under (x, y) of the pane stays there; scale within [least, most]. */
export function zoomed(view, x, y, factor, least, most) {
  const scale = Math.min(most, Math.max(least, view.scale * factor));
  const [atX, atY] = toImage(view, x, y);
  return { scale, x: atX - x / scale, y: atY - y / scale };
}

/** The view moved so that the image keeps covering the pane, or is centred where it is smaller. */
export function kept(view, width, height, paneWidth, paneHeight) {
  const along = (at, side, pane) => {
    const seen = pane / view.scale;
    return seen >= side ? (side - seen) / 2 : Math.min(side - seen, Math.max(0, at));
  };
  return { scale: view.scale, x: along(view.x, width, paneWidth), y: along(view.y, height, paneHeight) };
}

/** The view that shows the whole image. */
export function fitted(width, height, paneWidth, paneHeight) {
  const scale = Math.min(paneWidth / width, paneHeight / height);
  return kept({ scale, x: 0, y: 0 }, width, height, paneWidth, paneHeight);
}
