// A box on a photo, drawn with mouse, pen or finger. Boxes are [x1, y1, x2, y2] in pixels of the photo.

const SMALLEST_PX = 8; // on the screen; anything smaller is a click, which removes the box

export class BoxDrawer {
  /** `drawn(box)` is called when a box is finished; with null when it is removed. */
  constructor(frame, photo, outline, drawn) {
    Object.assign(this, { frame, photo, outline, drawn, from: null });
    frame.addEventListener("pointerdown", (event) => this.start(event));
    frame.addEventListener("pointermove", (event) => this.from && this.show(this.spanned(event)));
    frame.addEventListener("pointerup", (event) => this.finish(event));
    frame.addEventListener("pointercancel", () => (this.from = null));
  }

  start(event) {
    if (event.button !== 0 || !this.photo.naturalWidth || this.frame.classList.contains("plain")) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.from = this.position(event);
  }

  finish(event) {
    if (!this.from) return;
    const box = this.spanned(event);
    const scale = this.photo.getBoundingClientRect().width / this.photo.naturalWidth;
    this.from = null;
    const drawn = (box[2] - box[0]) * scale < SMALLEST_PX || (box[3] - box[1]) * scale < SMALLEST_PX ? null : box;
    this.show(drawn);
    this.drawn(drawn);
  }

  /** Position of a pointer in pixels of the photo, clipped to it. */
  position(event) {
    const shown = this.photo.getBoundingClientRect();
    const within = (at, size) => Math.min(Math.max(at, 0), 1) * size;
    return [
      within((event.clientX - shown.left) / shown.width, this.photo.naturalWidth),
      within((event.clientY - shown.top) / shown.height, this.photo.naturalHeight),
    ];
  }

  spanned(event) {
    const [x, y] = this.position(event);
    const [fromX, fromY] = this.from;
    return [Math.min(x, fromX), Math.min(y, fromY), Math.max(x, fromX), Math.max(y, fromY)].map(Math.round);
  }

  show(box) {
    this.outline.hidden = !box || !this.photo.naturalWidth;
    if (this.outline.hidden) return;
    const { naturalWidth: width, naturalHeight: height } = this.photo;
    const [x1, y1, x2, y2] = box;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(this.outline.style, {
      left: percent(x1, width), top: percent(y1, height),
      width: percent(x2 - x1, width), height: percent(y2 - y1, height),
    });
  }
}
