// The step slider of a run's page: figures, curves and the table of neurons at a training step, and what a neuron was at each.
class Steps {
  constructor(table, drawn, { content, arrays }) {
    Object.assign(this, content);
    this.table = table;
    this.drawn = drawn;
    this.arrays = arrays;
    this.last = table.census;
    this.taken = []; // censuses by step, unpacked when they are first asked for
    this.taken[this.steps.length - 1] = this.last;
    this.at = this.steps.length - 1;
    this.slider = $("step");
    this.slider.value = this.at; // a browser that goes back remembers another
    this.slider.addEventListener("input", () => this.show(+this.slider.value));
    this.#mark();
  }

  // Everything as it was at one of the steps.
  async show(at) {
    this.at = at;
    this.slider.value = at;
    this.slider.setAttribute("aria-valuetext", this.steps[at]);
    $("step-told").textContent = this.steps[at];
    const { picture, panels, caption } = this.pictures[at], drawing = this.drawn.get("figure-positional_neurons_at_step");
    drawing.replace(picture, panels);
    drawing.holder.parentElement.querySelector("figcaption").textContent = caption;
    this.#mark();
    this.taken[at] ??= new Census(await unpacked($(`census-${at}`)));
    if (this.at !== at) return; // the slider has been moved on meanwhile
    $("left-out").textContent = this.left_out[at];
    this.table.show(this.taken[at]);
    document.documentElement.dataset.step = this.steps[at];
  }

  // A line through every curve over training, where the step is.
  #mark() {
    for (const [name, panels] of Object.entries(this.lines)) {
      const { picture } = this.drawn.get(`figure-${name}`);
      if (!picture.viewBox) continue; // drawn as pixels
      const { width, height } = picture.viewBox.baseVal;
      for (const line of picture.querySelectorAll(".now")) line.remove();
      for (const { box, x } of panels) {
        const place = (x[this.at] * width) / GRAIN;
        picture.append(svg("line", { x1: place, x2: place, y1: (box[1] * height) / GRAIN, y2: (box[3] * height) / GRAIN, class: "now" }));
      }
    }
  }

  // What a neuron was at every step, as a part of its panel; a step there leads to the neuron at that step.
  history(name) {
    const row = this.last.row(name), body = make("tbody"), table = make("table"), head = make("tr");
    if (row < 0) return [];
    for (const [word, kind] of [["training step", "words"], ["type", "words"], ["frequency"], ["pattern", "words"], ["position, nats"], ["detected"]]) {
      const cell = make("th", term(word), kind);
      cell.scope = "col";
      head.append(cell);
    }
    this.steps.forEach((words, at) => body.append(this.#then(words, at, at * this.last.count + row)));
    const thead = make("thead", head), section = part("history", make("div", table, "scroll"), "Over training");
    table.append(thead, body);
    section.classList.add("history");
    return [section];
  }

  #then(words, at, i) {
    const line = make("tr"), { type, pattern: patterns, frequency, position_mi_corrected: nats, detected_tokens: detected } = this.arrays;
    if (at === this.at) line.setAttribute("aria-current", "step");
    const kind = type[i] < 0 ? "–" : this.last.types[type[i]], number = (value, write = digits) => (Number.isNaN(value) || value < 0 ? "–" : write(value));
    line.append(make("th", button(words, () => this.show(at), "plain"), "words"), make("td", kind, "words"), make("td", number(frequency[i], percent)));
    line.append(make("td", patterned(this.last, patterns[i]), "words"), make("td", Number.isNaN(nats[i]) ? "–" : digits(nats[i])), make("td", detected[i] > 0 ? `${digits(detected[i])} tokens` : "–"));
    return line;
  }
}
