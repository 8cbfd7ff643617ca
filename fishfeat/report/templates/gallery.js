// --- the data of every image, and the window that shows images ---
const data = JSON.parse(byId('page-data').textContent);
const numberFormat = new Intl.NumberFormat('en');
const countNoun = (n, noun) => `${numberFormat.format(n)} ${noun}${n === 1 ? '' : 's'}`;
const className = (code) => (code < 0 ? 'no label' : data.classes[code]);
const fileName = (row) => data.paths[row].split('/').pop();

// The thumbnails are most of the page, so they are parsed only when one is needed.
let thumbnailLines;
const thumbnailUri = (row) => {
  thumbnailLines ??= byId('thumbnails').textContent.split('\n');
  return thumbnailLines[row] ? `data:${data.mime};base64,${thumbnailLines[row]}` : '';
};
const makeTile = (row) => {
  const uri = thumbnailUri(row);
  return uri
    ? make('div', { className: 'tile' }, make('img', { src: uri, alt: data.paths[row] }))
    : make('div', { className: 'tile missing' }, make('span', { textContent: 'not held in the page' }));
};
const makePrediction = (run, row) => {
  const predicted = run.predicted[row];
  if (predicted < 0) return make('span', { className: 'soft', textContent: 'not scored' });
  const isCorrect = predicted === data.labels[row];
  const text = `${isCorrect ? '✓' : '✗'}\u00a0${className(predicted)}`;
  return make('span', { className: isCorrect ? 'is-correct' : 'is-incorrect', textContent: text });
};
const makeFigure = (row, run) => {
  const group = data.groups && data.groups[row];
  const margin = run.predicted[row] < 0 ? '' : `margin ${run.margin[row].toFixed(2)}`;
  const details = [margin, group && `group ${group}`].filter(Boolean).join('; ');
  const caption = make('figcaption', {}, className(data.labels[row]), make('br'), makePrediction(run, row),
    make('span', { className: 'file', textContent: fileName(row) }),
    make('span', { className: 'soft', textContent: details }));
  return make('figure', { title: data.paths[row] }, makeTile(row), caption);
};

const dialog = byId('images');
const BATCH = 120;
let remainingRows = [];
const showMore = (run) => {
  const batch = remainingRows.splice(0, BATCH);
  byId('images-list').append(...batch.map((row) => make('li', {}, makeFigure(row, run))));
  byId('images-more').hidden = remainingRows.length === 0;
  byId('images-more').textContent = `Show more (${numberFormat.format(remainingRows.length)})`;
};
const showImages = (title, rows, run, note) => {
  byId('images-title').textContent = title;
  byId('images-note').textContent = note;
  byId('images-list').replaceChildren();
  remainingRows = [...rows];
  showMore(run);
  byId('images-more').onclick = () => showMore(run);
  dialog.showModal();
  dialog.scrollTop = 0;
  byId('images-title').focus();
};
byId('images-close').addEventListener('click', () => dialog.close());
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });

// i and j are indices of the run's own classes.
const describeCell = (run, i, j) => (i === j
  ? `of ${className(run.classes[i])} classified correctly`
  : `of ${className(run.classes[i])} classified as ${className(run.classes[j])}`);
const showCell = (run, i, j) => {
  const [label, predicted] = [run.classes[i], run.classes[j]];
  const rows = [...run.predicted.keys()]
    .filter((row) => run.predicted[row] === predicted && data.labels[row] === label)
    .sort((a, b) => run.margin[b] - run.margin[a] || a - b);
  const nHeld = rows.filter(thumbnailUri).length;
  const missing = nHeld < rows.length ? `; thumbnails of ${numberFormat.format(nHeld)} are in this page` : '';
  showImages(`${countNoun(rows.length, 'image')} ${describeCell(run, i, j)}`, rows, run,
    `${run.label}; the most confident first${missing}.`);
};
const findRun = (element) => data.runs.find((run) => run.slug === element.dataset.run);
for (const place of document.querySelectorAll('[data-cell]')) {
  const [i, j] = place.dataset.cell.split(' ').map(Number);
  const button = make('button', { type: 'button', className: 'opens', textContent: place.textContent });
  button.title = 'Show these images';
  button.addEventListener('click', () => showCell(findRun(place), i, j));
  place.replaceChildren(button);
}
for (const tool of document.querySelectorAll('.needs-script')) tool.hidden = false;
