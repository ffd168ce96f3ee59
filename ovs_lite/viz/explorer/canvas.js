// One canvas with one to three panes that share view and cursor. Names are drawn as text.

const GAP = 6, CAPTION = 22, MOST_ZOOM = 40;
const POSITIVE = "#ffffff", NEGATIVE = "#ffd400", DARK = "#191919", DIFFERENT = [[213, 94, 0]];

/** What each pane shows: a method's name, or null for the difference of the first two. */
function panesOf(state) {
  if (state.mode === "one" || state.second === null) return [state.first];
  return state.mode === "both" ? [state.first, state.second] : [state.first, state.second, null];
}

class Panes {
  /** canvas: the element. state: what the panel keeps; it is read at every draw. */
  constructor(canvas, state) {
    this.canvas = canvas;
    this.state = state;
    this.layers = new Map(); // painted maps, by what they depend on
    this.view = null; // the whole image, until somebody zooms
    this.photo = new Image();
    this.photo.onload = () => this.draw();
    this.showPhoto();
  }

  showPhoto() {
    this.photo.src = this.state.model.get("photo");
    this.view = null;
  }

  /** Places of the panes for the canvas's width in CSS pixels: the image's shape, at most `most` high. */
  layout(width, most) {
    const count = panesOf(this.state).length;
    const [height, wide] = this.state.content.size;
    this.paneWidth = Math.max(1, Math.floor((width - GAP * (count - 1)) / count));
    this.paneHeight = Math.max(60, Math.min(most, Math.round((this.paneWidth * height) / wide)));
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round((this.paneHeight + CAPTION) * ratio);
    this.canvas.style.height = `${this.paneHeight + CAPTION}px`;
    this.ratio = ratio;
    this.draw();
  }

  seen() {
    const [height, width] = this.state.content.size;
    const whole = fitted(width, height, this.paneWidth, this.paneHeight);
    return this.view ? kept(this.view, width, height, this.paneWidth, this.paneHeight) : whole;
  }

  /** Zoom at a point of a pane (its middle by default). */
  zoom(factor, x = this.paneWidth / 2, y = this.paneHeight / 2) {
    const [height, width] = this.state.content.size;
    const least = fitted(width, height, this.paneWidth, this.paneHeight).scale;
    const next = zoomed(this.seen(), x, y, factor, least, MOST_ZOOM);
    this.view = next.scale > least ? next : null;
    this.draw();
  }

  pan(byX, byY) {
    const view = this.seen();
    this.view = { scale: view.scale, x: view.x - byX / view.scale, y: view.y - byY / view.scale };
    this.view = this.seen();
    this.draw();
  }

  /** The image's pixel under a mouse event, or null beside the image; `at` holds the position on its pane. */
  locate(event) {
    const box = this.canvas.getBoundingClientRect();
    const across = event.clientX - box.left, y = event.clientY - box.top - CAPTION;
    const pane = Math.floor(across / (this.paneWidth + GAP));
    const x = across - pane * (this.paneWidth + GAP);
    const [imageX, imageY] = toImage(this.seen(), x, y);
    const [height, width] = this.state.content.size;
    const inside = x <= this.paneWidth && y >= 0 && imageX >= 0 && imageY >= 0 && imageX < width && imageY < height;
    return { at: [x, y], pixel: inside ? [imageX, imageY] : null };
  }

  /** The canvas that holds a painted map; painted again only when what it depends on changed. */
  painted(pane) {
    const { maps, hidden, opacity, contours, first, second, content } = this.state;
    const [height, width] = content.size;
    const key = JSON.stringify([pane, first, second, [...hidden], opacity, contours, this.state.version]);
    if (!this.layers.has(key)) {
      if (this.layers.size > 8) this.layers.clear();
      const labels = pane === null ? difference(maps[first].labels, maps[second].labels) : maps[pane].labels;
      const look = { colours: pane === null ? DIFFERENT : content.colours, opacity: pane === null ? 0.85 : opacity, contours,
        hidden: pane === null ? new Set() : hidden };
      const sheet = document.createElement("canvas");
      [sheet.width, sheet.height] = [width, height];
      sheet.getContext("2d").putImageData(new ImageData(paint(labels, width, height, look), width, height), 0, 0);
      this.layers.set(key, sheet);
    }
    return this.layers.get(key);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const theme = getComputedStyle(this.canvas);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    panesOf(this.state).forEach((pane, number) => {
      const left = number * (this.paneWidth + GAP);
      context.save();
      context.fillStyle = theme.color;
      context.font = `600 13px ${theme.fontFamily}`;
      context.textBaseline = "middle";
      const caption = pane === null ? `difference: ${percent(this.state.differing())} of the pixels` : pane;
      context.fillText(caption, left + 1, CAPTION / 2, this.paneWidth);
      context.beginPath();
      context.rect(left, CAPTION, this.paneWidth, this.paneHeight);
      context.clip();
      context.translate(left, CAPTION);
      this.drawPane(context, pane, theme.fontFamily);
      context.restore();
    });
  }

  drawPane(context, pane, family) {
    const view = this.seen(), [height, width] = this.state.content.size;
    const place = [-view.x * view.scale, -view.y * view.scale, width * view.scale, height * view.scale];
    context.imageSmoothingEnabled = view.scale < 2;
    if (this.photo.complete) context.drawImage(this.photo, ...place);
    if (pane === null) { // the photo pale, so that what differs stands out from any colour
      context.fillStyle = "rgb(255 255 255 / 65%)";
      context.fillRect(...place);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(this.painted(pane), ...place);
    const onPane = (x, y) => [(x - view.x) * view.scale, (y - view.y) * view.scale];
    if (pane !== null && this.state.named) this.drawNames(context, pane, onPane, family);
    if (pane !== null) this.drawPrompts(context, onPane);
    for (const place of [this.state.pinned, this.state.cursor]) if (place) this.drawCursor(context, onPane(...place));
  }

  drawNames(context, pane, onPane, family) {
    context.font = `600 ${Math.max(11, Math.min(18, this.paneWidth / 26))}px ${family}`;
    context.textAlign = "center";
    [context.lineWidth, context.lineJoin] = [4, "round"];
    for (const [label, x, y] of [...this.state.maps[pane].layer.places].reverse()) {
      if (this.state.hidden.has(label)) continue;
      const name = this.state.content.names[label];
      const text = name.length > 24 ? `${name.slice(0, 23)}…` : name;
      const half = Math.min(context.measureText(text).width / 2 + 3, this.paneWidth / 2);
      const [atX, atY] = onPane(x + 0.5, y + 0.5);
      if (atX < 0 || atY < 0 || atX > this.paneWidth || atY > this.paneHeight) continue;
      const middle = Math.min(this.paneWidth - half, Math.max(half, atX));
      const line = Math.min(this.paneHeight - 10, Math.max(10, atY));
      [context.strokeStyle, context.fillStyle] = [DARK, POSITIVE];
      context.strokeText(text, middle, line);
      context.fillText(text, middle, line);
    }
    context.textAlign = "start";
  }

  /** Positive points are +, negative ones x, so that colour alone says nothing; boxes are dashed. */
  drawPrompts(context, onPane) {
    const twice = (stroke, colour) => {
      for (const [ink, wide] of [[DARK, 5], [colour, 2.5]]) {
        [context.strokeStyle, context.lineWidth] = [ink, wide];
        stroke();
      }
    };
    for (const [x, y, positive] of this.state.points) {
      const [atX, atY] = onPane(x, y), arms = positive ? [[7, 0], [0, 7]] : [[5, 5], [5, -5]];
      twice(() => {
        context.beginPath();
        for (const [dx, dy] of arms) {
          context.moveTo(atX - dx, atY - dy);
          context.lineTo(atX + dx, atY + dy);
        }
        context.stroke();
      }, positive ? POSITIVE : NEGATIVE);
    }
    context.setLineDash([6, 4]);
    for (const [x0, y0, x1, y1] of [...this.state.boxes, ...(this.state.drawn ? [this.state.drawn] : [])]) {
      const [left, top] = onPane(x0, y0), [right, bottom] = onPane(x1, y1);
      twice(() => context.strokeRect(left, top, right - left, bottom - top), POSITIVE);
    }
    context.setLineDash([]);
  }

  drawCursor(context, [x, y]) {
    for (const [ink, radius] of [[DARK, 6], [POSITIVE, 4.5]]) {
      [context.strokeStyle, context.lineWidth] = [ink, 1.5];
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}
