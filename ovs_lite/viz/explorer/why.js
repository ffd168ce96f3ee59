// "Why this pixel": what each method that is shown says of one pixel. A kernel adds what the page does not hold.

const SENTENCES = 3; // shown of the best

/** Rows of a word and its score, best first. */
function scoreRows(rows) {
  return make("ol", {}, ...rows.map(([word, score]) => make("li", {}, `${word} `, make("span", { class: "number" }, String(score)))));
}

/** What a kernel knows of the pixel itself: exact scores, proposals, sentences. */
function knownOf({ words, region, masks, mask_note: note, templates }) {
  return [
    make("p", {}, "This pixel:"), scoreRows(words),
    make("p", {}, region),
    ...(masks.length ? [make("p", {}, note), scoreRows(masks)] : []),
    make("p", {}, `Sentences about ${words[0][0]}, best first:`), scoreRows(templates.slice(0, SENTENCES)),
    ...(templates.length > SENTENCES ? [make("p", {}, `worst of ${templates.length}:`), scoreRows([templates.at(-1)])] : []),
  ];
}

/** The section's elements. found: as `State.under`; known: by method, from the kernel, or empty. */
function whyBlocks([x, y], found, known) {
  const title = make("b", {}, `Why pixel (${Math.floor(x)}, ${Math.floor(y)})?`);
  return [title, ...found.map(({ name, here, words }) => make("div", {}, make("b", {}, `${name}: ${here}`),
    ...(known[name] ? knownOf(known[name]) : [make("p", {}, "Mean scores around it:"), scoreRows(words)])))];
}
