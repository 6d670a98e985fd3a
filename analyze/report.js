// Begin: figures answer at once; the table of neurons, where the page has one, as soon as its numbers are unpacked.
async function begin() {
  drawings();
  if (!$("census")) return;
  const table = new Table(new Census(await unpacked($("census"))));
  new Panel(table);
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
}

begin();
