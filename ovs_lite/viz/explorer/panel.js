// The panel: what keys, mouse and buttons change.

const KEYS = [["1-9", "show or hide a class"], ["A", "show all"], ["M", "next method"], ["S", "two side by side"],
  ["D", "difference"], ["C", "contours"], ["N", "names"], ["+ −", "zoom"], ["0", "whole image"],
  ["arrows", "move the cursor (on the image)"], ["W or click", "why this pixel"], ["Shift + arrows", "pan"], ["Esc", "cancel"]];
const PAGE_KEYS = [["Ctrl + Z", "undo"]];
const LIVE_KEYS = [["V", "move"], ["P", "point"], ["B", "box"], ["Enter", "point at the cursor"],
  ["Alt or right click", "negative point"], ["Ctrl + Z", "undo the last prompt"]];
const HOVERED = 3; // words of a cell that hovering names
const MOST_MEGABYTES = 8; // of a picture: a notebook server closes the connection at a message of 10
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Panel {
  constructor(model, root) {
    this.state = new State(model);
    this.live = Boolean(model.get("live"));
    this.root = root;
    root.classList.add("ovs-explorer");
    root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own keys, Ctrl + Z among them
    this.build();
    this.panes = new Panes(this.canvas, this.state);
    this.listen();
    this.refresh();
    const fit = () => this.panes.layout(Math.max(120, this.stage.clientWidth), Math.max(240, 0.7 * window.innerHeight));
    this.fit = fit;
    new ResizeObserver(fit).observe(this.stage);
    fit();
  }

  build() {
    const { state } = this, { methods } = state;
    this.chooser = chooser("Method", methods, (name) => state.set("method", name));
    this.other = chooser("with", methods, (name) => state.set("second", name));
    this.views = [["one", "One", "o"], ["both", "Side by side", "s"], ["difference", "Difference", "d"]].map(
      ([view, text, key]) => [view, toggle(text, key, text, () => state.set("view", view))]);
    this.contours = toggle("Contours", "c", "contours", () => state.set("contours", !state.contours));
    this.named = toggle("Names", "n", "names on regions", () => state.set("named", !state.named));
    this.slider = make("input", { type: "range", min: 0, max: 1, step: 0.05,
      on: { input: () => state.set("opacity", Number(this.slider.value)) } });
    this.tools = [["v", "Move"], ["p", "Point"], ["b", "Box"]].map(
      ([key, text]) => [key, toggle(text, key, text, () => this.take(key))]);
    this.words = make("input", { type: "text", class: "words", spellcheck: "false", autocomplete: "off",
      on: { keydown: (event) => event.key === "Enter" && state.set("words", this.words.value) } });
    this.canvas = make("canvas", { tabindex: 0, role: "img" });
    this.readout = make("div", { class: "readout", role: "status", "aria-live": "polite" });
    this.list = make("ul", { class: "layers", "aria-label": "classes" });
    this.picture = make("input", { type: "file", accept: "image/*", on: { change: () => this.upload() } });
    this.refused = "";
    this.why = make("section", { class: "why", "aria-label": "why this pixel", "aria-live": "polite" });
    this.error = make("p", { class: "error", role: "alert" });
    this.said = make("span", { class: "said", role: "status" });
    this.stage = make("div", { class: "stage" }, this.canvas, this.readout, this.why);
    const several = methods.length > 1;
    const asked = make("div", { class: "bar" }, make("label", { class: "wide" }, "Words ", this.words),
      make("button", { type: "button", on: { click: () => state.set("words", this.words.value) } }, "Segment"),
      make("label", {}, "Picture ", this.picture));
    const bar = make("div", { class: "bar", role: "toolbar", "aria-label": "view" }, this.chooser.label,
      ...(several ? [...this.views.map(([, button]) => button), this.other.label] : []),
      ...(this.live ? this.tools.map(([, button]) => button) : []), this.contours, this.named,
      make("label", {}, "Opacity ", this.slider),
      toggle("Whole image", "0", "whole image", () => { this.panes.view = null; this.panes.draw(); }));
    const files = make("div", { class: "bar" }, ...[["Save PNG", () => this.savePng()],
      ["Save masks (PNG)", () => this.saveMasks()], ["Save masks (COCO RLE)", () => this.saveRle()], ["Copy as code", () => this.copyCode()]].map(
      ([text, click]) => make("button", { type: "button", on: { click } }, text)), this.said);
    const keys = make("details", {}, make("summary", {}, "Keys"), make("dl", {},
      ...[...KEYS, ...(this.live ? LIVE_KEYS : PAGE_KEYS)].flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)])));
    this.body = make("div", { class: "body" }, this.stage, make("div", { class: "side" }, this.list, files, keys));
    this.root.append(...(this.live ? [asked] : []), bar, this.error, this.body);
  }

  /** Everything on the page that depends on the state. */
  refresh() {
    const { state, live } = this, { model } = state, busy = Boolean(live && model.get("busy"));
    const layer = state.maps[state.first].layer;
    this.canvas.setAttribute("aria-label", layer.alt);
    this.chooser.select.value = state.first;
    for (const option of this.other.select.options) option.disabled = option.value === state.first;
    if (state.second !== null) this.other.select.value = state.second;
    this.other.label.hidden = state.mode === "one";
    for (const [view, button] of this.views) button.setAttribute("aria-pressed", String(view === state.mode));
    for (const [key, button] of this.tools) button.setAttribute("aria-pressed", String(key === state.tool));
    this.contours.setAttribute("aria-pressed", String(state.contours));
    this.named.setAttribute("aria-pressed", String(state.named));
    this.slider.value = state.opacity;
    if (live && document.activeElement !== this.words) this.words.value = model.get("words");
    this.error.textContent = this.refused || (live ? model.get("error") : "");
    this.root.setAttribute("aria-busy", String(busy));
    for (const control of this.root.querySelectorAll("button, select, input")) control.disabled = busy;
    const promptable = live && model.get("promptable").includes(state.first);
    for (const [key, button] of this.tools) button.disabled = busy || (key !== "v" && !promptable);
    if (!promptable && state.tool !== "v") state.tool = "v";
    this.canvas.classList.toggle("move", state.tool === "v");
    const known = (live && model.get("why")) || {};
    this.why.replaceChildren(...(state.pinned ? whyBlocks(state.pinned, state.under(state.pinned), known) : []));
    this.refreshList(layer, busy);
  }

  refreshList(layer, busy) {
    const { state } = this, { names, colours } = state.content;
    const focused = [...this.list.querySelectorAll("button")].indexOf(document.activeElement);
    const shares = areas(state.maps[state.first].labels, names.length);
    const order = [...names.keys()].sort((a, b) => shares[b] - shares[a] || a - b);
    this.order = order;
    this.list.replaceChildren(...order.map((label, number) => layerRow(number, names[label], colours[label],
      percent(shares[label]), layer.scores[label] === null ? "–" : String(layer.scores[label]),
      state.hidden.has(label), () => this.hide(label))));
    for (const button of this.list.querySelectorAll("button")) button.disabled = busy;
    if (focused >= 0) this.list.querySelectorAll("button")[focused]?.focus();
  }

  hide(label) {
    const hidden = new Set(this.state.hidden);
    if (!hidden.delete(label)) hidden.add(label);
    this.state.set("hidden", [...hidden].map((index) => this.state.content.names[index]));
  }

  take(tool) {
    this.state.tool = tool;
    this.refresh();
  }

  look(pixel) {
    this.state.cursor = pixel;
    const around = (words) => words.slice(0, HOVERED).map(([word, score]) => `${word} ${score}`).join(", ");
    const lines = pixel === null ? [] : this.state.under(pixel).map(({ name, here, words }) => make("div", {},
      make("b", {}, `${name}: ${here}`), ` · around it: ${around(words)}`));
    this.readout.replaceChildren(...lines);
    this.panes.draw();
  }

  pin(pixel) {
    this.state.set("pixel", pixel.map((value) => Math.round(10 * value) / 10));
  }

  async upload() {
    const [file] = this.picture.files;
    if (!file) return;
    const large = file.size / 1e6 > MOST_MEGABYTES;
    const size = `${file.name} of ${(file.size / 1e6).toFixed(1)} MB`;
    this.refused = large ? `got ${size}, expected at most ${MOST_MEGABYTES} MB; give its path to explorer.look_at` : "";
    if (!large) this.state.model.send({ kind: "picture", name: file.name }, undefined, [await file.arrayBuffer()]);
    this.picture.value = "";
    this.refresh();
  }

  point(pixel, positive) {
    this.state.set("points", [...this.state.points, [...pixel.map((value) => Math.round(10 * value) / 10), positive]]);
  }

  listen() {
    const { state, canvas } = this, { model } = state;
    const changed = () => {
      const panes = panesOf(state).length;
      state.adopt();
      this.refresh();
      panes === panesOf(state).length ? this.panes.draw() : this.fit();
    };
    const live = ["content", "words", "points", "boxes", "busy", "error", "promptable", "why"];
    for (const name of ["method", "second", "view", "opacity", "contours", "named", "hidden", "pixel", ...(this.live ? live : [])]) {
      model.on(`change:${name}`, changed);
    }
    model.on("change:photo", () => { this.panes.showPhoto(); this.fit(); });
    let from = null, last = null;
    canvas.addEventListener("pointerdown", (event) => {
      const { pixel } = this.panes.locate(event);
      [from, last] = [{ pixel, x: event.clientX, y: event.clientY, button: event.button }, event];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const { pixel } = this.panes.locate(event);
      if (from && state.tool === "v") this.panes.pan(event.clientX - last.clientX, event.clientY - last.clientY);
      if (from?.pixel && pixel && state.tool === "b") state.drawn = [...from.pixel, ...pixel];
      last = event;
      this.look(pixel);
    });
    canvas.addEventListener("pointerup", (event) => {
      const still = from && Math.hypot(event.clientX - from.x, event.clientY - from.y) < 4;
      if (still && from.pixel && state.tool === "v") this.pin(from.pixel);
      if (still && from.pixel && state.tool === "p") this.point(from.pixel, from.button !== 2 && !event.altKey);
      if (!still && state.drawn && state.tool === "b") {
        const [x0, y0, x1, y1] = state.drawn.map((value) => Math.round(10 * value) / 10);
        state.set("boxes", [...state.boxes, [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]]);
      }
      from = state.drawn = null;
      this.panes.draw();
    });
    canvas.addEventListener("click", () => canvas.focus({ preventScroll: true })); // a notebook takes it at a mouse press
    canvas.addEventListener("pointerleave", () => from || this.look(null));
    canvas.addEventListener("contextmenu", (event) => state.tool === "p" && event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { at } = this.panes.locate(event);
      this.panes.zoom(Math.exp(-event.deltaY / 400), ...at);
    }, { passive: false });
    this.cancel = () => { from = state.drawn = null; this.look(null); };
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const { state } = this, typing = event.target.matches("input[type=text], select");
    if (event.key === "Escape") return this.cancel();
    if (typing || this.root.getAttribute("aria-busy") === "true") return undefined;
    event.stopPropagation(); // a notebook has keys of its own
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") return this.undo(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    if (event.target === this.canvas && ARROWS[event.key]) return this.arrow(event);
    if (event.target === this.canvas && event.key === "Enter" && state.tool === "p" && state.cursor) {
      return this.point(state.cursor, true);
    }
    return this.letter(event.key.toLowerCase());
  }

  letter(key) {
    const { state } = this, several = state.methods.length > 1;
    const next = () => state.methods[(state.methods.indexOf(state.first) + 1) % state.methods.length];
    const view = (name) => several && state.set("view", state.mode === name ? "one" : name);
    const actions = { m: () => state.set("method", next()), o: () => view("one"), s: () => view("both"),
      d: () => view("difference"), c: () => this.contours.click(), n: () => this.named.click(),
      a: () => state.set("hidden", []), w: () => state.cursor && this.pin(state.cursor), "+": () => this.panes.zoom(1.25), "=": () => this.panes.zoom(1.25),
      "-": () => this.panes.zoom(0.8), 0: () => { this.panes.view = null; this.panes.draw(); } };
    const tool = this.tools.find(([name]) => this.live && name === key);
    if (tool && !tool[1].disabled) this.take(key);
    else if (actions[key]) actions[key]();
    else if (/^[1-9]$/.test(key) && key <= this.order.length) this.hide(this.order[key - 1]);
  }

  arrow(event) {
    event.preventDefault();
    const [x, y] = ARROWS[event.key], [height, width] = this.state.content.size;
    if (event.shiftKey) return this.panes.pan(-40 * x, -40 * y);
    const step = Math.max(1, Math.round(Math.max(width, height) / 60));
    const [atX, atY] = this.state.cursor ?? [width / 2 - step * x, height / 2 - step * y];
    return this.look([Math.min(width - 0.5, Math.max(0.5, atX + step * x)),
      Math.min(height - 0.5, Math.max(0.5, atY + step * y))]);
  }

  undo(event) {
    event.preventDefault();
    if (!this.live) return this.state.undo();
    const last = this.state.model.get("history").at(-1);
    return last && this.state.set(last, this.state[last].slice(0, -1));
  }

  savePng() {
    this.canvas.toBlob((blob) => download("masks.png", blob), "image/png");
  }

  async saveMasks() {
    download("masks.zip", await masksAsPng(this.state));
  }

  saveRle() {
    download("masks.json", new Blob([masksAsRle(this.state)], { type: "application/json" }));
  }

  async copyCode() {
    const done = await copy(this.state.maps[this.state.first].layer.code);
    this.said.textContent = done ? "copied" : this.state.maps[this.state.first].layer.code;
  }
}
