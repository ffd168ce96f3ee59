// Where the panel begins: on a page of its own, in place of still images of a page, or as a widget.

/** The panel in an element, from inlined content. */
export function start(content, root) {
  const first = content.methods[0].name, several = content.methods.length > 1;
  return new Panel(standIn({ content, photo: content.photo, method: first, second: content.methods[1]?.name ?? "",
    view: several ? "both" : "one", opacity: 0.5, contours: true, named: true, hidden: [], pixel: [], live: false }), root);
}

/** Every still image on the page that has content becomes a panel; one whose content cannot be read stays. */
export function replaceStills() {
  for (const holder of document.querySelectorAll("script.ovs-content:not([data-shown])")) {
    const still = document.querySelector(`figure[id="${CSS.escape(holder.dataset.for)}"] > img`);
    if (!still) continue;
    holder.dataset.shown = "";
    const root = make("div");
    still.before(root);
    try {
      start(JSON.parse(holder.textContent), root);
      still.remove();
    } catch (error) {
      root.remove();
      console.error(error);
    }
  }
}

export default { render: ({ model, el }) => { new Panel(model, el.appendChild(make("div"))); } };
