"use strict";
(() => {
  const census = JSON.parse(document.getElementById("census").textContent);
  const column = census.columns;
  const count = column.layer.length;
  const PAGE = 100;
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text; // never innerHTML: tokens are anything
    if (kind) element.className = kind;
    return element;
  };
  const name = (row) => `L${column.layer[row]}N${column.neuron[row]}`;
  const tokens = (ids) => (ids || []).map((id) => census.tokens[id] ?? `#${id}`);
  const digits = (value) => (value === null || value === undefined ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(3)));
  const share = (value) => `${+(100 * value).toPrecision(3)}%`;
  const rowOf = new Map();
  const words = new Map();
  for (let row = 0; row < count; row++) rowOf.set(name(row), row);
  for (const [row, ids] of Object.entries(census.detected)) words.set(+row, tokens(ids).join(" ").toLowerCase());

  const position = (row) => (column.position[row] < 0 ? "" : census.positions[column.position[row]]);
  const shown = [ // heading, sort value, cell
    ["neuron", (row) => row],
    ["type", (row) => column.type[row]],
    ["frequency", (row) => column.n_fired[row]],
    ["greatest pre-activation", (row) => column.max_pre[row]],
    ["tokens for 95%", (row) => column.unigrams_95[row]],
    ["detected tokens", (row) => (census.detected[row] || []).length],
    ["position pattern", (row) => column.position[row]],
    ["position, nats", (row) => column.position_mi_corrected[row]],
    ["95% of firings up to place", (row) => column.last_position_95[row]],
  ];
  let order = Int32Array.from({ length: count }, (_, row) => row);
  let sorted = { by: 0, down: false };
  let page = 0;

  function select() {
    const type = $("type").value, layer = $("layer").value;
    const find = $("find").value.trim().toLowerCase().replaceAll(" ", "␣");
    const named = find.toUpperCase();
    const kept = [];
    for (let row = 0; row < count; row++) {
      if (type.startsWith("p:") ? position(row) !== type.slice(2) : type && census.types[column.type[row]] !== type) continue;
      if (layer && column.layer[row] !== +layer) continue;
      if (find && !(words.get(row) || "").includes(find) && name(row) !== named) continue;
      kept.push(row);
    }
    const key = shown[sorted.by][1], keys = new Map(kept.map((row) => [row, key(row)])), sign = sorted.down ? -1 : 1;
    const missing = (value) => value === null || value === undefined || (sorted.by === 6 && value < 0);
    kept.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // unknown last, either way
      return sign * (x - y) || a - b;
    });
    order = kept;
    page = 0;
    draw();
  }

  function tokenList(texts, most) {
    const list = make("span");
    for (const text of texts.slice(0, most)) list.append(make("span", text, "token"));
    if (texts.length > most) list.append(`and ${texts.length - most} more`);
    return list;
  }

  function draw() {
    const body = document.createDocumentFragment();
    for (const row of order.slice(page * PAGE, (page + 1) * PAGE)) {
      const line = make("tr");
      const first = make("td"), link = make("a", name(row));
      link.href = `#${name(row)}`;
      first.append(link);
      const detected = make("td", undefined, "words wrap"), pattern = make("td", undefined, "words");
      detected.append(tokenList(tokens(census.detected[row]), 8));
      if (position(row)) {
        const dot = make("span", "", "dot");
        const kind = position(row).split(" ");
        dot.style.background = `var(--${kind[0]}-${kind[1]})`;
        dot.style.borderColor = `var(--${kind[0]}-strong)`;
        pattern.append(dot, position(row));
      }
      line.append(first, make("td", census.types[column.type[row]], "words"), make("td", share(column.n_fired[row] / census.n_tokens)),
        make("td", digits(column.max_pre[row])), make("td", digits(column.unigrams_95[row])), detected, pattern,
        make("td", digits(column.position_mi_corrected[row])), make("td", digits(column.last_position_95[row])));
      line.addEventListener("click", (event) => { if (event.target.tagName !== "A") location.hash = name(row); });
      body.append(line);
    }
    $("rows").replaceChildren(body);
    const last = Math.min(order.length, (page + 1) * PAGE);
    $("told").textContent = order.length ? `Neurons ${(page * PAGE + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${order.length.toLocaleString("en")}` : "No neuron is like that.";
    $("previous").disabled = page === 0;
    $("next").disabled = last >= order.length;
  }

  function heads() {
    shown.forEach(([heading], i) => {
      const head = make("th"), button = make("button", heading);
      head.scope = "col";
      button.type = "button";
      if (i === 1 || i === 5 || i === 6) head.className = "words";
      button.addEventListener("click", () => {
        sorted = { by: i, down: sorted.by === i ? !sorted.down : i > 1 };
        [...$("heads").children].forEach((other, j) => j === i ? other.setAttribute("aria-sort", sorted.down ? "descending" : "ascending") : other.removeAttribute("aria-sort"));
        select();
      });
      if (i === 0) head.setAttribute("aria-sort", "ascending");
      head.append(button);
      $("heads").append(head);
    });
  }

  function svg(tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function curve(row) {
    const bytes = Uint8Array.from(atob(census.curves[row]), (c) => c.charCodeAt(0));
    const [left, top, wide, high] = [40, 8, 480, 130];
    const end = census.places[census.places.length - 1] || 1;
    const x = (place) => left + (wide * place) / end, y = (frequency) => top + high * (1 - frequency);
    const picture = svg("svg", { viewBox: "0 0 540 180", role: "img", "aria-label": `Frequency of ${name(row)} against position` });
    for (const mark of [0, 0.5, 1]) {
      picture.append(svg("line", { x1: left, x2: left + wide, y1: y(mark), y2: y(mark), stroke: "var(--grid)" }),
        svg("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end", "font-size": 11, fill: "var(--faint)" }, mark));
    }
    for (const place of [census.places[0], Math.round(end / 2), end])
      picture.append(svg("text", { x: x(place), y: top + high + 16, "text-anchor": "middle", "font-size": 11, fill: "var(--faint)" }, Math.round(place)));
    picture.append(svg("text", { x: left + wide / 2, y: top + high + 32, "text-anchor": "middle", "font-size": 11, fill: "var(--faint)" }, "position"));
    const kind = position(row).split(" ")[0];
    const points = [...bytes].map((byte, i) => `${x(census.places[i]).toFixed(1)},${y(byte / 255).toFixed(1)}`).join(" ");
    picture.append(svg("polyline", { points, fill: "none", "stroke-width": 1.6, stroke: kind ? `var(--${kind}-strong)` : "var(--line-0)" }));
    return picture;
  }

  function open(focus) {
    const wanted = decodeURIComponent(location.hash.slice(1)).toUpperCase();
    const panel = $("neuron");
    if (!/^L\d+N\d+$/.test(wanted)) { panel.hidden = true; return; }
    const row = rowOf.get(wanted);
    const close = make("button", "Close", "close");
    close.type = "button";
    close.addEventListener("click", shut);
    if (row === undefined) {
      panel.replaceChildren(close, make("h3", wanted), make("p", "This page's table has no such neuron."));
    } else {
      const facts = make("dl", undefined, "facts");
      const fact = (term, value) => { const cell = make("dd"); cell.append(value); facts.append(make("dt", term), cell); };
      fact("type", census.types[column.type[row]] + (position(row) ? `; position pattern ${position(row)}` : ""));
      fact("frequency", `${share(column.n_fired[row] / census.n_tokens)}: fired at ${digits(column.n_fired[row])} of ${digits(census.n_tokens)} counted tokens`);
      for (const [key, term] of census.numbers) {
        const value = column[key][row];
        if (value !== null && value !== undefined) fact(term, typeof value === "boolean" ? (value ? "yes" : "no") : digits(value));
      }
      for (const [key, term] of census.lists) if (census[key][row]) fact(term, tokenList(tokens(census[key][row]), 60));
      const drawn = census.curves[row] ? curve(row) : make("p", "Its curve over positions is not in this page: those of positional neurons and token detectors are.", "faint");
      panel.replaceChildren(close, make("h3", `Neuron ${name(row)}`), drawn, facts);
    }
    panel.hidden = false;
    panel.scrollIntoView({ block: "nearest" });
    if (focus) panel.focus({ preventScroll: true });
  }

  function shut() {
    const wanted = location.hash.slice(1);
    history.pushState(null, "", location.pathname + location.search);
    $("neuron").hidden = true;
    const link = $("rows").querySelector(`a[href="#${CSS.escape(wanted)}"]`);
    (link || $("find")).focus();
  }

  function turn(by) { page += by; draw(); }

  heads();
  for (const id of ["type", "layer"]) $(id).addEventListener("change", select);
  $("find").addEventListener("input", select);
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("rows").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const line = event.target.closest("tr");
    const other = event.key === "ArrowDown" ? line.nextElementSibling : line.previousElementSibling;
    if (other) { other.querySelector("a").focus(); event.preventDefault(); }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("neuron").hidden) shut(); });
  window.addEventListener("hashchange", () => open(true));
  draw();
  open(false);
})();
