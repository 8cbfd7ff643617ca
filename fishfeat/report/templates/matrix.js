// --- confusion matrices: cells open their images, classes change places ---
// A row holds its cells with images by column. Between them are empty cells: one per class, or,
// with many classes, one cell that spans them.
const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const prepareMatrix = (table) => {
  const run = findRun(table);
  const head = table.tHead.rows[0];
  const headCells = [...head.cells].slice(1);
  const rows = [...table.tBodies[0].rows];
  const nClasses = rows.length;
  const spansEmpty = table.classList.contains('many');
  const cellsOfRow = rows.map((row) => new Map(
    [...row.querySelectorAll('[data-column]')].map((cell) => [Number(cell.dataset.column), cell])));
  let order = [...rows.keys()];

  cellsOfRow.forEach((cells, i) => cells.forEach((cell, j) => {
    const label = `${cell.firstChild.textContent.trim()} ${describeCell(run, i, j)}`;
    const button = make('button', { type: 'button', tabIndex: -1, title: label }, ...cell.childNodes);
    button.setAttribute('aria-label', `${label}: show the images`);
    button.addEventListener('click', () => showCell(run, i, j));
    button.dataset.place = `${i} ${j}`;
    cell.append(button);
  }));
  // One cell at a time takes part in tabbing; the arrow keys go to the next cell with images.
  const firstButton = table.querySelector('tbody button');
  if (firstButton) firstButton.tabIndex = 0;
  table.addEventListener('keydown', (event) => {
    const step = moves[event.key];
    if (!step || !event.target.dataset.place) return;
    event.preventDefault();
    const [i, j] = event.target.dataset.place.split(' ').map((index) => order.indexOf(Number(index)));
    let [row, column] = [i + step[0], j + step[1]];
    while (row >= 0 && row < nClasses && column >= 0 && column < nClasses) {
      const cell = cellsOfRow[order[row]].get(order[column]);
      if (cell) {
        const button = cell.querySelector('button');
        event.target.tabIndex = -1;
        button.tabIndex = 0;
        button.focus();
        return;
      }
      [row, column] = [row + step[0], column + step[1]];
    }
  });

  const makeEmptyCells = (n) => {
    if (spansEmpty) return n ? [make('td', { className: 'zero', colSpan: n })] : [];
    return Array.from({ length: n }, () => make('td', { className: 'zero', textContent: '0' }));
  };
  const reorder = () => {
    head.append(...order.map((j) => headCells[j]));
    for (const i of order) {
      const cells = [];
      let nEmpty = 0;
      for (const j of order) {
        const cell = cellsOfRow[i].get(j);
        if (cell) {
          cells.push(...makeEmptyCells(nEmpty), cell);
          nEmpty = 0;
        } else {
          nEmpty += 1;
        }
      }
      rows[i].replaceChildren(rows[i].cells[0], ...cells, ...makeEmptyCells(nEmpty));
    }
    table.tBodies[0].append(...order.map((i) => rows[i]));
  };
  for (const radio of document.getElementsByName(`order-${run.slug}`)) {
    radio.addEventListener('change', () => {
      const isSimilar = radio.value === 'similar';
      order = isSimilar ? [...run.similarOrder] : [...rows.keys()];
      reorder();
      announce(isSimilar ? 'Confused classes are together.' : 'The classes are in order.');
    });
  }
};
for (const table of document.querySelectorAll('table.confusion')) {
  // A table of many classes is closed at first; its buttons are made when it opens.
  const details = table.closest('details.matrix');
  if (details) details.addEventListener('toggle', () => prepareMatrix(table), { once: true });
  else prepareMatrix(table);
}
