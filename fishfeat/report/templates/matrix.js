// --- confusion matrices: cells open their images, classes change places ---
// One cell at a time takes part in tabbing; the arrow keys go from one that counts to the next.
const cells = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));
const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const moveIn = (event) => {
  const step = moves[event.key];
  const cell = event.target.closest('td');
  if (!step || !cell) return;
  event.preventDefault();
  const grid = cells(cell.closest('table'));
  let i = grid.findIndex((row) => row.includes(cell));
  let j = grid[i].indexOf(cell);
  for (;;) {
    [i, j] = [i + step[0], j + step[1]];
    const next = grid[i] && grid[i][j];
    if (!next) return;
    const button = next.querySelector('button');
    if (button) {
      event.target.tabIndex = -1;
      button.tabIndex = 0;
      button.focus();
      return;
    }
  }
};
const readyCell = (run, cell, i, j) => {
  const n = cell.firstChild.textContent.trim();
  const [given, taken] = [className(run.classes[i]), className(run.classes[j])];
  const label = i === j ? `${n} of ${given} named rightly` : `${n} of ${given} taken for ${taken}`;
  const button = make('button', { type: 'button', tabIndex: -1, title: label }, ...cell.childNodes);
  button.setAttribute('aria-label', `${label}: show the images`);
  button.addEventListener('click', () => showCell(run, i, j));
  cell.append(button);
};
const readyMatrix = (table) => {
  const run = runOf(table);
  const [head, rows] = [table.tHead.rows[0], [...table.tBodies[0].rows]];
  const grid = cells(table);
  const titles = [...head.cells].slice(1);
  grid.forEach((row, i) => row.forEach((cell, j) => {
    if (!cell.classList.contains('zero')) readyCell(run, cell, i, j);
  }));
  const first = table.querySelector('tbody button');
  if (first) first.tabIndex = 0;
  table.addEventListener('keydown', moveIn);
  for (const radio of document.getElementsByName(`order-${run.slug}`)) {
    radio.addEventListener('change', () => {
      const order = radio.value === 'together' ? run.together : [...rows.keys()];
      head.append(...order.map((j) => titles[j]));
      order.forEach((i) => rows[i].append(...order.map((j) => grid[i][j])));
      table.tBodies[0].append(...order.map((i) => rows[i]));
      say(radio.value === 'together' ? 'Confused classes stand together.' : 'Classes stand in order.');
    });
  }
};
for (const table of document.querySelectorAll('table.confusion')) readyMatrix(table);

// Many classes are drawn as an image; their table is built when it is asked for.
const counted = (run) => {
  const at = new Map(run.classes.map((code, i) => [code, i]));
  const counts = run.classes.map(() => new Array(run.classes.length).fill(0));
  run.predicted.forEach((code, row) => {
    if (code >= 0) counts[at.get(known.y[row])][at.get(code)] += 1;
  });
  return counts;
};
const builtCell = (n, i, j, total) => {
  if (!n) return make('td', { className: 'zero', textContent: '' });
  const cell = make('td', { className: i === j ? 'correct' : '', textContent: number.format(n) });
  cell.style.setProperty('--s', Math.round(55 * Math.sqrt(n / total)));
  return cell;
};
const builtMatrix = (run) => {
  const names = run.classes.map(className);
  const heads = names.map((name) => make('th', { scope: 'col', className: 'up', title: name },
    make('span', { textContent: name })));
  const rows = counted(run).map((row, i) => {
    const total = row.reduce((a, b) => a + b, 0) || 1;
    return make('tr', {}, make('th', { scope: 'row', title: names[i], textContent: names[i] }),
      ...row.map((n, j) => builtCell(n, i, j, total)));
  });
  const table = make('table', { className: 'confusion compact' },
    make('caption', { textContent: 'Rows: true class. Columns: predicted class. Images.' }),
    make('thead', {}, make('tr', {}, make('td'), ...heads)), make('tbody', {}, ...rows));
  table.dataset.run = run.slug;
  return table;
};
const builtTools = (run) => {
  const radio = (value, text, checked) => make('label', {},
    make('input', { type: 'radio', name: `order-${run.slug}`, value, checked }), ` ${text}`);
  const tools = make('div', { className: 'tools' }, radio('class', 'by class', true),
    radio('together', 'confused classes together', false));
  tools.setAttribute('role', 'group');
  tools.setAttribute('aria-label', 'Order of the classes');
  return tools;
};
for (const button of document.querySelectorAll('[data-build]')) {
  button.addEventListener('click', () => {
    const run = known.runs.find((one) => one.slug === button.dataset.build);
    const table = builtMatrix(run);
    const frame = make('div', { className: 'scroll', tabIndex: 0 }, table);
    frame.setAttribute('role', 'region');
    frame.setAttribute('aria-label', `Confusion matrix of ${run.label}`);
    const drawing = button.parentElement.querySelector('.confusion-png');
    drawing.replaceWith(frame);
    button.replaceWith(builtTools(run));
    readyMatrix(table);
    table.querySelector('tbody button').focus();
  });
}
