// The block of analyze/page/neuron_payload.py, asked by row.
class Census {
  constructor({ content, arrays }) {
    Object.assign(this, content);
    this.arrays = arrays;
    this.count = arrays.layer.length;
    this.textOf = new Map(this.texts.map((text, i) => [arrays.tokens[i], text]));
  }

  name(row) { return `L${this.arrays.layer[row]}N${this.arrays.neuron[row]}`; }

  row(name) {
    const [, layer, neuron] = /^L(\d+)N(\d+)$/.exec(name) || [];
    const { layer: layers, neuron: neurons } = this.arrays;
    for (let row = 0; row < this.count; row++) if (neurons[row] === +neuron && layers[row] === +layer) return row;
    return -1;
  }

  // A number of the neuron table; undefined where there is none.
  number(column, row) {
    const values = this.arrays[column], value = values?.[row];
    const real = values instanceof Float32Array || values instanceof Float64Array;
    return value === undefined || (real ? Number.isNaN(value) : value === -1) ? undefined : value;
  }

  type(row) { return this.types[this.arrays.type[row]]; }

  pattern(row) { return this.patterns[this.arrays.pattern[row]]; }

  colour(row) { return this.colours[this.arrays.pattern[row]]; }

  text(token) { return token < 0 ? "‹start›" : this.textOf.get(token) ?? `#${token}`; }

  // Tokens of a list: top_promoted, top_suppressed.
  list(name, row) {
    const first = this.arrays[`${name}_first`];
    return first ? [...this.arrays[name].subarray(first[row], first[row + 1])].map((token) => this.text(token)) : [];
  }

  // Detected tokens, bigrams or trigrams: {texts, fires, occurrences}, most fired first.
  ngrams(name, row) {
    const first = this.arrays[`${name}_first`], found = [];
    for (let i = first?.[row]; i < first?.[row + 1]; i++) found.push(this.ngram(name, i));
    return found;
  }

  ngram(name, i) {
    const n = 1 + this.lengths.indexOf(name);
    const texts = [...this.arrays[`${name}_ids`].subarray(n * i, n * i + n)].map((token) => this.text(token));
    return { texts, fires: this.arrays[`${name}_fires`][i], occurrences: this.arrays[`${name}_occurrences`][i] };
  }

  // Places and frequencies of the position curve, as fine as the page has it; undefined where it has none.
  curve(row) {
    for (const kind of ["fine", "coarse"]) {
      const { [`${kind}_rows`]: rows, [`${kind}_places`]: places, [`${kind}_greatest`]: greatest, [`${kind}_points`]: points } = this.arrays;
      const at = rows.indexOf(row);
      if (at < 0) continue;
      const bytes = points.subarray(at * places.length, (at + 1) * places.length);
      return { places: [...places], frequencies: [...bytes].map((byte) => (greatest[at] * byte) / 255) };
    }
    return undefined;
  }

  // For each row, whether a text occurs in what it detects, promotes or suppresses.
  having(text, where) {
    const found = new Uint8Array(this.count), known = new Set();
    this.texts.forEach((one, i) => { if (one.toLowerCase().includes(text)) known.add(this.arrays.tokens[i]); });
    for (const list of ["top_promoted", "top_suppressed"])
      if (this.arrays[list] && (where === list || where === "any")) this.#mark(found, list, (i) => known.has(this.arrays[list][i]));
    for (const name of this.lengths.filter((name) => this.arrays[`${name}_first`]))
      if (where === "detected" || where === "any") this.#mark(found, name, (i) => this.ngram(name, i).texts.join("").toLowerCase().includes(text));
    return found;
  }

  #mark(found, list, has) {
    const first = this.arrays[`${list}_first`];
    for (let row = 0; row < this.count; row++)
      for (let i = first[row]; !found[row] && i < first[row + 1]; i++) if (has(i)) found[row] = 1;
  }
}
