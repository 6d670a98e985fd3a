// Figures that answer: what a mark's values are, under the pointer or by arrow keys; enlarged, they zoom and move.
const GRAIN = 10000; // of analyze/figures/tooltips.py
const REACH = 80; // pixels from which a mark answers

const ring = make("div");
ring.id = "ring";
ring.hidden = true;

class Drawing {
  constructor(holder, panels) {
    this.holder = holder;
    this.panels = panels;
    this.picture = holder.firstElementChild;
    holder.addEventListener("pointermove", (event) => { if (event.movementX || event.movementY || !this.byKey) this.#point(event); });
    holder.addEventListener("pointerdown", (event) => { this.pressed = event; this.#point(event); });
    holder.addEventListener("pointerleave", () => { if (!this.byKey) this.quiet(); }); // a pointer at rest, under which keys scroll the page
    holder.addEventListener("blur", () => this.quiet());
    holder.addEventListener("focus", () => this.#load());
    holder.addEventListener("keydown", (event) => this.#key(event));
    holder.addEventListener("click", (event) => { if (Math.hypot(event.clientX - this.pressed?.clientX, event.clientY - this.pressed?.clientY) < 5) this.#follow(); });
  }

  #load() {
    this.loading ??= this.panels().then((panels) => { this.series = panels.flatMap((panel) => panel.series.map((one) => ({ ...one, panel }))); });
    return this.loading;
  }

  // Another picture in this one's place, with its marks.
  replace(picture, panels) {
    this.quiet();
    this.holder.innerHTML = picture; // drawn by us, as the one before
    this.picture = this.holder.firstElementChild;
    this.panels = async () => panels;
    this.loading = undefined;
  }

  async #point(event) {
    this.byKey = false;
    await this.#load();
    const box = this.picture.getBoundingClientRect();
    const mark = this.#nearest(event.clientX - box.left, event.clientY - box.top, box.width / GRAIN, box.height / GRAIN);
    if (mark) this.#show(...mark); else this.quiet();
  }

  // The bar around a point of the picture, else the mark nearest to it, as [series, mark].
  #nearest(x, y, wide, high) {
    let best, least = REACH;
    for (const one of this.series) {
      const [left, top, right, bottom] = one.panel.box;
      if (x < left * wide - 8 || x > right * wide + 8 || y < top * high - 8 || y > bottom * high + 8) continue;
      for (let i = 0; i < one.at.length / 2; i++) {
        const far = one.boxes.length
          ? Math.hypot(outside(x, one.boxes[4 * i] * wide, one.boxes[4 * i + 2] * wide), outside(y, one.boxes[4 * i + 1] * high, one.boxes[4 * i + 3] * high))
          : Math.hypot(one.at[2 * i] * wide - x, one.at[2 * i + 1] * high - y);
        if (far <= least) { least = far; best = [one, i]; } // of bars drawn over each other, the one on top
      }
    }
    return best;
  }

  #show(one, i) {
    this.shown = [one, i];
    const box = this.picture.getBoundingClientRect();
    const x = box.left + (one.at[2 * i] * box.width) / GRAIN, y = box.top + (one.at[2 * i + 1] * box.height) / GRAIN;
    (this.holder.closest("dialog") || document.body).append(ring);
    ring.style.transform = `translate(${x}px, ${y}px)`;
    ring.hidden = false;
    const link = one.links[i], { panel } = one, value = (axis, words) => (words === undefined || words === "" ? "" : `${axis || "value"}: ${words}`);
    const name = [one.name, one.name === panel.title ? "" : panel.title].filter(Boolean).join(" · ");
    const told = one.words[i] ? one.words[i].split("\n") : [value(panel.x, one.x[i]), value(panel.y, one.y[i])];
    tell([link ? link.slice(1) : name, ...(link && name ? [name] : []), ...told, link && $("neuron") ? "Click or Enter opens it." : ""], x, y);
    this.holder.classList.toggle("leads", Boolean(link));
  }

  quiet() {
    this.shown = undefined;
    this.byKey = false;
    ring.hidden = true;
    this.holder.classList.remove("leads");
    hush();
  }

  // Right and left go along a series, up and down to another.
  async #key(event) {
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key], across = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && this.#follow()) event.stopImmediatePropagation();
    if ((!along && !across) || event.shiftKey) return;
    event.preventDefault();
    this.byKey = true;
    await this.#load();
    if (!this.series.length) return;
    const [one, i] = this.shown || [this.series[0], -1], count = this.series.length;
    const next = across && this.shown ? this.series[(this.series.indexOf(one) + across + count) % count] : one;
    const last = next.at.length / 2 - 1;
    this.#show(next, Math.min(last, Math.max(0, i + (along || 0))));
  }

  #follow() {
    const link = this.shown && this.shown[0].links[this.shown[1]];
    if (!link || !$("neuron")) return false;
    this.quiet();
    location.hash = link;
    return true;
  }
}

function outside(at, from, to) { return Math.max(from - at, at - to, 0); }

// The dialog in which a figure is as large as the window, and zooms.
class Enlarged {
  constructor() {
    this.dialog = $("enlarged");
    this.stage = this.dialog.querySelector(".stage");
    this.fingers = new Map();
    for (const [id, act] of [["zoom-in", () => this.#zoom(1.5)], ["zoom-out", () => this.#zoom(1 / 1.5)], ["zoom-whole", () => this.#whole()], ["zoom-close", () => this.#back()]])
      $(id).addEventListener("click", act);
    this.dialog.addEventListener("close", () => { if (!this.dialog.open) this.#back(); });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.stage.addEventListener("wheel", (event) => { event.preventDefault(); this.#zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY); }, { passive: false });
    this.stage.addEventListener("dblclick", (event) => this.#zoom(2, event.clientX, event.clientY));
    this.stage.addEventListener("pointerdown", (event) => this.fingers.set(event.pointerId, event));
    for (const ended of ["pointerup", "pointercancel", "pointerleave"]) this.stage.addEventListener(ended, (event) => this.fingers.delete(event.pointerId));
    this.stage.addEventListener("pointermove", (event) => this.#drag(event));
  }

  show(drawing) {
    this.drawing = drawing;
    this.place = make("div", undefined, "elsewhere");
    this.place.style.height = `${drawing.holder.offsetHeight}px`;
    drawing.holder.replaceWith(this.place);
    this.stage.replaceChildren(drawing.holder);
    this.dialog.showModal();
    this.#whole();
    drawing.holder.focus();
  }

  #back() {
    if (!this.drawing) return;
    this.dialog.close();
    this.drawing.picture.removeAttribute("style");
    this.drawing.quiet();
    this.place.replaceWith(this.drawing.holder);
    this.drawing.holder.focus();
    this.drawing = undefined;
  }

  // The picture as large as the stage has room for.
  #whole() {
    const { picture } = this.drawing, { clientWidth, clientHeight } = this.stage;
    const [width, height] = picture.viewBox ? [picture.viewBox.baseVal.width, picture.viewBox.baseVal.height] : [picture.naturalWidth, picture.naturalHeight];
    const scale = Math.min(clientWidth / width, clientHeight / height);
    this.size = [width * scale, height * scale];
    this.view = { x: (clientWidth - this.size[0]) / 2, y: (clientHeight - this.size[1]) / 2, scale: 1 };
    this.#draw();
  }

  #zoom(by, clientX, clientY) {
    const box = this.stage.getBoundingClientRect(), { view } = this;
    const [x, y] = clientX === undefined ? [box.width / 2, box.height / 2] : [clientX - box.left, clientY - box.top];
    const scale = Math.min(40, Math.max(1, view.scale * by)), factor = scale / view.scale;
    if (scale === 1) { this.#whole(); return; }
    this.view = { scale, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor };
    this.#draw();
  }

  // One finger or the mouse moves the picture, two zoom it.
  #drag(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    if (other) {
      const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
      this.#zoom(apart(event) / apart(before), other.clientX, other.clientY);
    } else if (this.view.scale > 1) this.#move(event.clientX - before.clientX, event.clientY - before.clientY);
    this.fingers.set(event.pointerId, event);
  }

  #move(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.#draw();
  }

  #draw() {
    const { x, y, scale } = this.view, [width, height] = this.size; // a vector picture is drawn anew at every size
    Object.assign(this.drawing.picture.style, { position: "absolute", maxWidth: "none", minWidth: "0", left: `${x}px`, top: `${y}px`, width: `${width * scale}px`, height: `${height * scale}px` });
    $("zoom-out").disabled = $("zoom-whole").disabled = scale === 1;
  }

  #key(event) {
    const step = { ArrowRight: [-60, 0], ArrowLeft: [60, 0], ArrowDown: [0, -60], ArrowUp: [0, 60] }[event.key];
    if (event.shiftKey && step) this.#move(...step);
    else if (event.key === "+" || event.key === "=") this.#zoom(1.5);
    else if (event.key === "-") this.#zoom(1 / 1.5);
    else if (event.key === "0") this.#whole();
    else if (event.key === "Escape") this.#back();
    else return;
    event.preventDefault();
  }
}

// All figures of the page, by their ids.
function drawings() {
  const enlarged = new Enlarged(), found = new Map();
  for (const figure of document.querySelectorAll("figure[id]")) {
    const holder = figure.querySelector(".drawing");
    const drawing = new Drawing(holder, async () => (await unpacked(figure.querySelector(".marks"))).content);
    found.set(figure.id, drawing);
    const enlarge = () => { if (!holder.closest("dialog") && !drawing.shown?.[0].links[drawing.shown[1]]) enlarged.show(drawing); };
    holder.addEventListener("dblclick", enlarge);
    holder.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(); });
    holder.after(button("Enlarge", enlarge, "enlarge"));
  }
  return found;
}
