// What is shown, read from a model: anywidget's, or a stand-in on a page without a kernel.

/** What is shown. `adopt` reads everything that comes from the model. */
class State {
  constructor(model) {
    this.model = model;
    this.cursor = this.drawn = null;
    this.tool = "v";
    this.version = 0;
    this.past = []; // [name, value before] of what was set, where no kernel keeps a history
    this.adopt();
  }

  adopt() {
    const { model } = this;
    if (model.get("content") !== this.content) {
      this.content = model.get("content");
      this.version += 1;
      const [height, width] = this.content.size;
      this.maps = Object.fromEntries(this.content.methods.map((layer) => [layer.name,
        { layer, labels: decodeRuns(layer.runs, height * width), cells: decodeCells(layer.cells) }]));
    }
    this.methods = this.content.methods.map((layer) => layer.name);
    this.first = this.maps[model.get("method")] ? model.get("method") : this.methods[0];
    const others = this.methods.filter((name) => name !== this.first);
    this.second = others.includes(model.get("second")) ? model.get("second") : others[0] ?? null;
    this.mode = model.get("view");
    this.opacity = model.get("opacity");
    this.contours = model.get("contours");
    this.named = model.get("named");
    this.hidden = new Set(model.get("hidden").map((name) => this.content.names.indexOf(name)).filter((index) => index >= 0));
    this.points = model.get("points") ?? [];
    this.boxes = model.get("boxes") ?? [];
    this.pinned = model.get("pixel").length ? model.get("pixel") : null;
  }

  set(name, value) {
    const dragged = name === "opacity" && this.past.at(-1)?.[0] === name;
    if (!this.model.get("live") && !dragged) this.past.push([name, this.model.get(name)]);
    this.model.set(name, value);
    this.model.save_changes();
  }

  /** Take back what was set last. */
  undo() {
    const last = this.past.pop();
    if (!last) return;
    this.model.set(...last);
    this.model.save_changes();
  }

  differing() {
    const map = difference(this.maps[this.first].labels, this.maps[this.second].labels);
    return areas(map, 1)[0];
  }

  /** What lies under a pixel, by method that is shown: its label's name, and the best words of the cell around it. */
  under([x, y]) {
    const [height, width] = this.content.size;
    const at = Math.min(height - 1, Math.floor(y)) * width + Math.min(width - 1, Math.floor(x));
    return panesOf(this).filter((name) => name !== null).map((name) => {
      const { labels, cells } = this.maps[name];
      const words = wordsAt(cells, x, y, width, height);
      const here = labels[at] < 0 ? "unlabelled" : this.content.names[labels[at]];
      return { name, here, words: words.map(({ label, score }) => [this.content.names[label], score]) };
    });
  }
}

/** A model without a kernel: what is set is kept here. */
function standIn(values) {
  const listeners = {}, changed = new Set();
  return {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; changed.add(name); },
    save_changes: () => {
      const names = [...changed];
      changed.clear();
      for (const name of names) for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
    on: (name, listener) => { (listeners[name] ??= []).push(listener); },
  };
}
