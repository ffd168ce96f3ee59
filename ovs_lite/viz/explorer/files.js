// What a user takes away: the view, masks, a line of code. Nothing leaves the page but by a download.

/** The masks of the method that is shown, of words that won pixels: [{name, label, pixels}]. */
function wonMasks({ content, maps, first }) {
  const found = content.names.map((name, label) => ({ name, label, pixels: 0 }));
  for (const label of maps[first].labels) if (label >= 0) found[label].pixels += 1;
  return found.filter(({ pixels }) => pixels > 0);
}

/** COCO RLE of each mask, as JSON. */
function masksAsRle(state) {
  const [height, width] = state.content.size, { labels } = state.maps[state.first];
  return JSON.stringify(wonMasks(state).map(({ name, label, pixels }) =>
    ({ category: name, area: pixels, segmentation: cocoRle(labels, width, height, label) })));
}

/** One black and white PNG per mask, 00.png by its word's place among the names, in a ZIP. */
async function masksAsPng(state) {
  const [height, width] = state.content.size, { labels } = state.maps[state.first];
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [width, height];
  const files = [];
  for (const { label } of wonMasks(state)) {
    const pixels = new ImageData(width, height);
    pixels.data.fill(255);
    labels.forEach((found, i) => found === label || pixels.data.fill(0, 4 * i, 4 * i + 3));
    sheet.getContext("2d").putImageData(pixels, 0, 0);
    const blob = await new Promise((done) => { sheet.toBlob(done, "image/png"); });
    files.push([`${String(label).padStart(2, "0")}.png`, new Uint8Array(await blob.arrayBuffer())]);
  }
  return zip(files);
}

/** Offer a file to the user without any server. */
function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Put text on the clipboard; true when it worked. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
