// Elements, numbers in words, and the one box that tells what is under the pointer or in focus.
const $ = (id) => document.getElementById(id);

function make(tag, content, kind) {
  const element = document.createElement(tag);
  if (content !== undefined) element.append(content); // as text, never as HTML: tokens are anything
  if (kind) element.className = kind;
  return element;
}

function button(words, act, kind) {
  const element = make("button", words, kind);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

const digits = (value) => Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(3));
const percent = (share) => `${+(100 * share).toPrecision(3)}%`;

const tip = make("div");
tip.id = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;

function tell(lines, x, y) {
  (document.querySelector("dialog[open]:last-of-type") || document.body).append(tip); // a modal dialog covers all outside it
  tip.replaceChildren(...lines.filter(Boolean).map((line, i) => make("div", line, i ? "" : "first")));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width < innerWidth ? x + 14 : x - width - 14;
  const top = y + 14 + height < innerHeight ? y + 14 : y - height - 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

function hush() { tip.hidden = true; }

// Words whose meaning is in the glossary: <span data-term="dead">.
const meanings = new Map([...document.querySelectorAll("#words dt")].map((word) => [word.textContent, word.nextElementSibling.textContent]));

function term(word, text = word) {
  const element = make("span", text, "term");
  if (meanings.has(word)) element.dataset.term = word;
  return element;
}

function explain(event) {
  const word = event.target.closest?.("[data-term]") || (event.type === "focusin" && event.target.querySelector?.(":scope > [data-term]"));
  if (!word) return;
  const box = word.getBoundingClientRect();
  tell([word.dataset.term, meanings.get(word.dataset.term)], box.left, box.bottom - 8);
}

document.addEventListener("pointerover", explain);
document.addEventListener("focusin", explain);
for (const ended of ["pointerout", "focusout"]) document.addEventListener(ended, (event) => { if (event.target.closest?.("[data-term], :has(> [data-term])")) hush(); });
addEventListener("scroll", hush, { passive: true });
