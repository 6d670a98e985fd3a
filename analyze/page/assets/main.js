// Begin: figures answer at once; the table of neurons, where the page has one, as soon as its numbers are unpacked.
async function begin() {
  const drawn = drawings();
  if (!$("census")) return;
  const table = new Table(new Census(await unpacked($("census"))));
  const steps = $("steps") ? new Steps(table, drawn, await unpacked($("steps"))) : undefined;
  new Panel(table, steps);
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
}

begin();
