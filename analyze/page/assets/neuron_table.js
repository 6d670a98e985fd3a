// The table of neurons: filtered, sorted, a hundred rows at a time.
class Table {
  static PAGE = 100;

  constructor(census) {
    this.census = census;
    this.columns = columns(census);
    this.sorted = { by: 0, down: false };
    this.#heads();
    for (const id of ["type", "layer", "where"]) $(id).addEventListener("change", () => this.select());
    $("find").addEventListener("input", () => this.select());
    $("all").addEventListener("click", () => { for (const id of ["find", "type", "layer"]) $(id).value = ""; this.select(); $("find").focus(); });
    $("previous").addEventListener("click", () => this.turn(-1));
    $("next").addEventListener("click", () => this.turn(1));
    $("rows").addEventListener("keydown", (event) => this.#key(event));
    $("rows").addEventListener("click", (event) => { const line = event.target.closest("tr"); if (line && event.target.tagName !== "A" && getSelection().isCollapsed) location.hash = line.dataset.name; });
    this.select();
  }

  // The neurons of another census in this table's place, filtered and sorted as before.
  show(census) {
    this.census = census;
    this.columns = columns(census);
    this.select();
    dispatchEvent(new Event("shown"));
  }

  select() {
    const { census } = this, { type: types, pattern: patterns, layer: layers } = census.arrays;
    const [kind, code] = $("type").value.split(":"), layer = $("layer").value;
    const find = $("find").value.trim().toLowerCase().replaceAll(" ", "␣"), named = census.row(find.toUpperCase());
    const has = find && named < 0 ? census.having(find, $("where").value) : undefined;
    const kept = [];
    for (let row = 0; row < census.count; row++) {
      if (kind && (kind === "type" ? types : patterns)[row] !== +code) continue;
      if (layer && layers[row] !== +layer) continue;
      if (has ? !has[row] : find && row !== named) continue;
      kept.push(row);
    }
    this.order = this.#inOrder(kept);
    this.page = 0;
    this.draw();
  }

  #inOrder(rows) {
    if (!this.sorted.by) return this.sorted.down ? rows.reverse() : rows; // neurons are in their own order already
    const { key } = this.columns[this.sorted.by], sign = this.sorted.down ? -1 : 1;
    const keys = new Float64Array(this.census.count);
    for (const row of rows) keys[row] = key(row) ?? NaN;
    return rows.sort((a, b) => {
      const x = keys[a], y = keys[b];
      if (x !== x || y !== y) return (x !== x) - (y !== y) || a - b; // what is missing comes last, either way
      return sign * (x - y) || a - b;
    });
  }

  #heads() {
    const heads = this.columns.map(({ heading, key, words }, i) => {
      const head = make("th", undefined, words ? "words" : "");
      head.scope = "col";
      if (key) head.append(button(term(heading), () => this.sort(i)));
      else head.append(term(heading));
      return head;
    });
    heads[0].setAttribute("aria-sort", "ascending");
    $("heads").replaceChildren(...heads);
  }

  sort(by) {
    this.sorted = { by, down: this.sorted.by === by ? !this.sorted.down : by > 1 };
    [...$("heads").children].forEach((head, i) => i === by ? head.setAttribute("aria-sort", this.sorted.down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    this.select();
  }

  turn(by) {
    const last = Math.max(0, Math.ceil(this.order.length / Table.PAGE) - 1), page = Math.min(last, Math.max(0, this.page + by));
    if (page === this.page) return;
    this.page = page;
    this.draw();
  }

  draw() {
    const first = this.page * Table.PAGE, rows = this.order.slice(first, first + Table.PAGE);
    $("rows").replaceChildren(...rows.map((row) => this.#line(row)));
    const link = $("rows").querySelector("a");
    if (link) link.tabIndex = 0;
    $("told").textContent = rows.length ? `Neurons ${digits(first + 1)}–${digits(first + rows.length)} of ${digits(this.order.length)}` : "No neuron is like that.";
    $("previous").disabled = !this.page;
    $("next").disabled = first + rows.length >= this.order.length;
  }

  #line(row) {
    const line = make("tr");
    line.dataset.name = this.census.name(row);
    this.columns.forEach(({ cell, words }, i) => line.append(make(i ? "td" : "th", cell(row), words || "")));
    return line;
  }

  // Up, down, first, last row; the next page past the end of one.
  #key(event) {
    const line = event.target.closest("tr"), lines = [...$("rows").children], at = lines.indexOf(line);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: lines.length - 1, PageDown: lines.length, PageUp: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const before = this.page;
    if (to < 0 || to >= lines.length) this.turn(to < 0 ? -1 : 1);
    const turned = this.page !== before;
    this.focus(turned ? (to < 0 && event.key === "ArrowUp" ? Table.PAGE - 1 : 0) : Math.min(Math.max(to, 0), lines.length - 1));
  }

  focus(at) {
    const links = [...$("rows").querySelectorAll("a")];
    for (const link of links) link.tabIndex = -1;
    links[at].tabIndex = 0;
    links[at].focus();
  }

  // The neuron before or after another in the table's order, or undefined.
  beside(name, by) {
    const at = this.order.indexOf(this.census.row(name)) + by;
    return at >= 0 && at < this.order.length ? this.census.name(this.order[at]) : undefined;
  }

  back(name) {
    const at = [...$("rows").children].findIndex((line) => line.dataset.name === name);
    if (at >= 0) this.focus(at);
  }
}

function columns(census) {
  const number = (column, write = digits) => ({
    key: (row) => census.number(column, row),
    cell: (row) => { const value = census.number(column, row); return value === undefined ? "–" : write(value); },
  });
  const list = (name) => ({ cell: (row) => tokens(census.list(name, row).slice(0, 3)), words: "words wrap" });
  const shown = [
    { heading: "neuron", key: (row) => row, cell: (row) => neuronLink(census.name(row)) },
    { heading: "type", key: (row) => census.arrays.type[row], cell: (row) => census.type(row), words: "words" },
    { heading: "frequency", ...number("n_fired", (fired) => percent(fired / census.n_tokens)) },
    { heading: "detected", key: (row) => census.arrays.tokens_in_all?.[row] || undefined, cell: (row) => tokens(detected(census, row), 5), words: "words wrap" },
    { heading: "pattern", key: (row) => census.number("pattern", row), cell: (row) => pattern(census, row), words: "words" },
    { heading: "position, nats", ...number("position_mi_corrected") },
    { heading: "most firings up to", ...number("last_position_95") },
    { heading: "tokens that cover it", ...number("unigrams_95") },
    { heading: "greatest pre-activation", ...number("max_pre") },
  ];
  if (census.arrays.top_promoted) shown.push({ heading: "promotes", ...list("top_promoted") }, { heading: "suppresses", ...list("top_suppressed") });
  return shown;
}

function neuronLink(name) {
  const link = make("a", name);
  link.href = `#${name}`;
  link.tabIndex = -1;
  return link;
}

// What a neuron detects, shortest first: its tokens, else its bigrams, else its trigrams.
function detected(census, row) {
  for (const name of census.lengths) {
    const found = census.ngrams(name, row);
    if (found.length) return found.map(({ texts }) => texts.join(""));
  }
  return [];
}

function tokens(texts, most = Infinity) {
  const list = make("span");
  for (const text of texts.slice(0, most)) list.append(make("span", text, "token"), " ");
  if (texts.length > most) list.append(`+${texts.length - most}`);
  return list;
}

function pattern(census, row) { return patterned(census, census.arrays.pattern[row]); }

// The words of a pattern's code behind a circle of its colour, as in the figures; nothing for -1.
function patterned(census, code) {
  const words = make("span"), colour = census.colours[code];
  if (!colour) return words;
  const dot = make("span", undefined, "dot");
  dot.style.background = `var(--${colour})`;
  dot.style.borderColor = `var(--${colour.split("-")[0]}-strong)`;
  words.append(dot, census.patterns[code]);
  return words;
}
