// Elements of the panel. Whatever a user or a caption wrote arrives as text: by textContent or as an attribute's value.

/** An element with attributes and text or elements inside; `on` holds listeners. */
function make(tag, { on = {}, ...attributes } = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...inside);
  return made;
}

/** A button that is pressed or not. */
function toggle(text, key, title, pressed) {
  return make("button", { type: "button", title: `${title} (${key.toUpperCase()})`, "aria-keyshortcuts": key,
    on: { click: pressed } }, text);
}

/** A labelled select of methods. */
function chooser(text, names, chosen) {
  const select = make("select", { on: { change: () => chosen(select.value) } },
    ...names.map((name) => make("option", { value: name }, name)));
  return { select, label: make("label", {}, text, " ", select) };
}

/** The colour of a class as a small square. */
function swatch([red, green, blue]) {
  const square = make("span", { class: "swatch", "aria-hidden": "true" });
  square.style.backgroundColor = `rgb(${red}, ${green}, ${blue})`;
  return square;
}

/** A row of the layer list: eye, swatch, name, area, score. */
function layerRow(number, name, colour, area, score, hidden, pressed) {
  const shortcut = number < 9 ? { "aria-keyshortcuts": String(number + 1) } : {};
  const eye = make("button", { type: "button", class: "eye", "aria-pressed": String(!hidden), ...shortcut,
    "aria-label": `show ${name}`, on: { click: pressed } }, hidden ? "○" : "●");
  const cells = [eye, swatch(colour), make("span", { class: "name" }, name), make("span", { class: "number" }, area),
    make("span", { class: "number", title: "mean score of the pixels that it won" }, score)];
  return make("li", hidden ? { class: "hidden" } : {}, ...cells);
}
