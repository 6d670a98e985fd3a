// One neuron's own panel: its position curve, what it detects, what it writes, its numbers.
class Panel {
  constructor(table, steps) {
    this.table = table;
    this.steps = steps;
    this.dialog = $("neuron");
    addEventListener("hashchange", () => this.open());
    addEventListener("shown", () => { // the table has the neurons of another step
      if (!this.name) return;
      this.#fill();
      (this.dialog.querySelector("[aria-current] button") ?? this.dialog.querySelector("h2")).focus();
    });
    this.dialog.addEventListener("close", () => { if (!this.dialog.open) this.#close(); }); // by whatever way
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.#close(); }); // on what is around it
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by && !event.target.closest(".drawing")) this.#step(by);
      if (event.key === "Escape") { event.preventDefault(); this.#close(); }
    });
    this.open();
  }

  open() {
    const name = decodeURIComponent(location.hash.slice(1)).toUpperCase();
    if (!/^L\d+N\d+$/.test(name)) { this.#close(); return; }
    this.name = name;
    this.#fill();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.dialog.querySelector("h2").focus();
  }

  #fill() {
    this.dialog.replaceChildren(this.#head(), ...this.#body(this.table.census.row(this.name)));
  }

  #close() {
    if (!this.name) return;
    const { name } = this;
    this.name = undefined;
    this.dialog.close();
    if (location.hash.slice(1).toUpperCase() === name) history.replaceState(null, "", location.pathname + location.search);
    this.table.back(name);
  }

  #step(by) {
    const name = this.table.beside(this.name, by);
    if (name) location.replace(`#${name}`);
  }

  #head() {
    const head = make("header"), title = make("h2", `Neuron ${this.name}`), when = this.steps ? make("span", ` at ${this.steps.steps[this.steps.at]}`, "faint") : "", buttons = make("div", undefined, "buttons");
    title.id = "neuron-name";
    title.tabIndex = -1;
    const copy = button("Copy link", async () => { await navigator.clipboard.writeText(location.href); copy.textContent = "Copied"; });
    copy.hidden = !navigator.clipboard;
    const [before, after] = [[-1, "← Previous"], [1, "Next →"]].map(([by, words]) => button(words, () => this.#step(by)));
    before.disabled = !this.table.beside(this.name, -1);
    after.disabled = !this.table.beside(this.name, 1);
    buttons.append(before, after, copy, button("Close", () => this.#close()));
    head.append(title, when, buttons);
    return head;
  }

  #body(row) {
    const { census } = this.table;
    const history = this.steps?.history(this.name) ?? [];
    if (row < 0) return [make("p", "This page's table has no such neuron: neurons.parquet beside the page holds all."), ...history];
    const kind = make("p", undefined, "kind"), found = census.curve(row);
    kind.append(census.type(row), census.pattern(row) ? "; " : "", pattern(census, row));
    const drawn = found ? curve(census, row, found) : make("p", census.number("n_fired", row) ? "Its position curve is not in this page: those of the most telling neurons are." : "It never fired, so it has no position curve.", "faint");
    const parts = make("div", undefined, "parts");
    parts.append(...census.lengths.map((name) => ngramTable(census, name, row)).filter(Boolean), ...writes(census, row), numbers(census, row));
    return [kind, drawn, ...history, parts];
  }
}

function part(word, content, text = word) {
  const section = make("section"), heading = make("h3", term(word, text));
  section.append(heading, content);
  return section;
}

function ngramTable(census, name, row) {
  const found = census.ngrams(name, row), inAll = census.arrays[`${name}_in_all`]?.[row];
  if (!found.length) return undefined;
  const table = make("table"), head = make("tr");
  head.append(make("th", name.slice(0, -1), "words"), make("th", term("fires on it")), make("th", term("occurs")), make("th", "share"));
  for (const cell of head.children) cell.scope = "col";
  const body = make("tbody");
  for (const { texts, fires, occurrences } of found) {
    const line = make("tr");
    line.append(make("th", tokens(texts), "words"), make("td", digits(fires)), make("td", digits(occurrences)), make("td", percent(fires / occurrences)));
    body.append(line);
  }
  const thead = make("thead");
  thead.append(head);
  table.append(thead, body);
  return part("detected", table, `Detected ${name}: ${inAll > found.length ? `${found.length} of ${digits(inAll)}, most fired first` : digits(inAll)}`);
}

function writes(census, row) {
  const lists = [["promotes", "top_promoted", "Promotes most"], ["suppresses", "top_suppressed", "Suppresses most"]];
  return lists.filter(([, name]) => census.list(name, row).length).map(([word, name, words]) => part(word, tokens(census.list(name, row)), words));
}

function numbers(census, row) {
  const facts = make("dl", undefined, "facts"), n_fired = census.number("n_fired", row);
  const fact = (word, value) => facts.append(make("dt", term(word)), make("dd", value));
  fact("frequency", percent(n_fired / census.n_tokens));
  fact("fired", `${digits(n_fired)} of ${digits(census.n_tokens)} counted tokens`);
  for (const [column, word] of census.numbers) {
    const value = census.number(column, row);
    if (value !== undefined) fact(word, digits(value));
  }
  return part("Numbers", facts);
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The position curve, answering the pointer as the page's figures do.
function curve(census, row, { places, frequencies }) {
  const width = Math.min(900, Math.max(320, innerWidth - 32)), [height, left, right, top, bottom] = [250, 52, 12, 10, 40];
  const most = Math.max(...frequencies), full = most > 0.5 ? 1 : niceAbove(most), end = places[places.length - 1] || 1;
  const x = (place) => left + ((width - left - right) * place) / end, y = (frequency) => height - bottom - ((height - top - bottom) * frequency) / full;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
  const mark = (text, at, anchor) => picture.append(svg("text", { x: at[0], y: at[1], "text-anchor": anchor }, text));
  for (const frequency of [0, full / 2, full]) {
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(frequency), y2: y(frequency), class: "rule" }));
    mark(percent(frequency), [left - 7, y(frequency) + 4], "end");
  }
  for (const place of [0, end / 4, end / 2, (3 * end) / 4, end]) mark(digits(Math.round(place)), [x(place), height - bottom + 18], place === end ? "end" : "middle");
  mark("position", [(left + width - right) / 2, height - 5], "middle");
  picture.append(svg("polyline", {
    points: places.map((place, i) => `${x(place).toFixed(1)},${y(frequencies[i]).toFixed(1)}`).join(" "),
    class: "curve", style: `stroke: var(--${census.colour(row)?.split("-")[0] ?? "line-0"}${census.colour(row) ? "-strong" : ""})`,
  }));
  const grains = (at, whole) => Math.round((10000 * at) / whole);
  const series = { name: "", boxes: [], words: [], links: [], at: places.flatMap((place, i) => [grains(x(place), width), grains(y(frequencies[i]), height)]),
    x: places.map((place) => digits(Math.round(place))), y: frequencies.map(percent) };
  const box = [grains(left, width), grains(top, height), grains(width - right, width), grains(height - bottom, height)];
  const figure = make("figure"), holder = make("div", picture, "drawing");
  holder.tabIndex = 0;
  holder.setAttribute("role", "group");
  holder.setAttribute("aria-label", "position curve: arrow keys tell values");
  figure.append(holder, make("figcaption", term("position curve", `Frequency at each position, ${places.length} points.`)));
  new Drawing(holder, async () => [{ box, title: "", x: "position", y: "frequency", series: [series] }]);
  return figure;
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) * power;
}
