// --- what is known of every image, and the window that shows some of them ---
const known = JSON.parse(byId('explore').textContent);
const number = new Intl.NumberFormat('en');
const many = (n, noun) => `${number.format(n)} ${noun}${n === 1 ? '' : 's'}`;
const className = (code) => (code < 0 ? 'no label' : known.classes[code]);
const fileName = (row) => known.keys[row].split('/').pop();

// The thumbnails are most of the page: they are taken apart when one is first wanted.
let thumbs;
const thumb = (row) => {
  thumbs ??= byId('thumbs').textContent.split('\n');
  return thumbs[row] ? `data:${known.mime};base64,${thumbs[row]}` : '';
};
const tile = (row) => {
  const address = thumb(row);
  return address
    ? make('div', { className: 'tile' }, make('img', { src: address, alt: known.keys[row] }))
    : make('div', { className: 'tile lost' }, make('span', { textContent: 'not held in the page' }));
};
const answer = (run, row) => {
  const predicted = run.predicted[row];
  if (predicted < 0) return make('span', { className: 'soft', textContent: 'not scored' });
  const right = predicted === known.y[row];
  const name = `${right ? '✓' : '✗'}\u00a0${className(predicted)}`;
  return make('span', { className: right ? 'is-right' : 'is-wrong', textContent: name });
};
const figure = (row, run) => {
  const group = known.groups && known.groups[row];
  const margin = run.predicted[row] < 0 ? '' : `margin ${run.margin[row].toFixed(2)}`;
  const caption = make('figcaption', {}, className(known.y[row]), make('br'), answer(run, row),
    make('span', { className: 'file', textContent: fileName(row) }),
    make('span', { className: 'soft', textContent: [margin, group && `group ${group}`].filter(Boolean).join('; ') }));
  return make('figure', { title: known.keys[row] }, tile(row), caption);
};

const dialog = byId('images');
const AT_ONCE = 120;
let waiting = [];
const showMore = (run) => {
  const next = waiting.splice(0, AT_ONCE);
  byId('images-list').append(...next.map((row) => make('li', {}, figure(row, run))));
  byId('images-more').hidden = waiting.length === 0;
  byId('images-more').textContent = `Show more (${number.format(waiting.length)})`;
};
const showImages = (title, rows, run, note) => {
  byId('images-title').textContent = title;
  byId('images-note').textContent = note;
  byId('images-list').replaceChildren();
  waiting = [...rows];
  showMore(run);
  byId('images-more').onclick = () => showMore(run);
  dialog.showModal();
  dialog.scrollTop = 0;
  byId('images-title').focus();
};
byId('images-close').addEventListener('click', () => dialog.close());
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });

// i and j count in the run's own classes.
const showCell = (run, i, j) => {
  const [given, taken] = [run.classes[i], run.classes[j]];
  const rows = [...run.predicted.keys()]
    .filter((row) => run.predicted[row] === taken && known.y[row] === given)
    .sort((a, b) => run.margin[b] - run.margin[a] || a - b);
  const what = i === j ? 'named rightly' : `taken for ${className(taken)}`;
  const held = rows.filter(thumb).length;
  const missing = held < rows.length ? `; thumbnails of ${number.format(held)} are in this page` : '';
  showImages(`${many(rows.length, 'image')} of ${className(given)} ${what}`, rows, run,
    `${run.label}; the surest answer first${missing}.`);
};
const runOf = (element) => known.runs.find((run) => run.slug === element.dataset.run);
for (const place of document.querySelectorAll('[data-cell]')) {
  const [i, j] = place.dataset.cell.split(' ').map(Number);
  const button = make('button', { type: 'button', className: 'opens', textContent: place.textContent });
  button.title = 'Show these images';
  button.addEventListener('click', () => showCell(runOf(place), i, j));
  place.replaceChildren(button);
}
for (const tool of document.querySelectorAll('.needs-script')) tool.hidden = false;
