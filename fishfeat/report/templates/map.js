// --- the map of the features ---
const canvas = byId('map-canvas');
const drawMap = () => {
  const map = data.map;
  const tip = byId('map-tip');
  const n = map.rows.length;
  const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0) || 1;
  const [width, extent] = [largest(map.x), largest(map.y)];
  let run = data.runs[0];
  let highlighted = -1; // the class that is highlighted
  let pointed = -1; // the mark that is pointed at
  let [x, y] = [new Float32Array(n), new Float32Array(n)];

  const colour = (code, dark) => {
    if (code < 0) return dark ? '#777' : '#999';
    const few = data.classes.length <= 16;
    const hue = (code * (few ? 360 / data.classes.length : 137.508) + 20) % 360;
    const light = (dark ? 68 : 52) + [-8, 8][code % 2];
    return `oklch(${light}% 0.15 ${hue})`;
  };
  // A shape beside the colour, for people who see few colours.
  const shapes = [
    (g, a, b, r) => g.arc(a, b, r, 0, 7),
    (g, a, b, r) => g.rect(a - r * 0.85, b - r * 0.85, r * 1.7, r * 1.7),
    (g, a, b, r) => { g.moveTo(a, b - r * 1.2); g.lineTo(a + r * 1.1, b + r * 0.8); g.lineTo(a - r * 1.1, b + r * 0.8); g.closePath(); },
    (g, a, b, r) => { g.moveTo(a, b - r * 1.3); g.lineTo(a + r * 1.3, b); g.lineTo(a, b + r * 1.3); g.lineTo(a - r * 1.3, b); g.closePath(); },
  ];
  const isIncorrect = (row) => run.predicted[row] >= 0 && run.predicted[row] !== data.labels[row];
  const isHighlighted = (k) => highlighted < 0 || data.labels[map.rows[k]] === highlighted;
  const isShown = (k) => !byId('map-errors').checked || isIncorrect(map.rows[k]);
  const isReachable = (k) => isShown(k) && isHighlighted(k); // by the pointer and the arrow keys
  const isDark = () => matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches;
  const radius = n > 4000 ? 2.2 : n > 800 ? 3 : 4;

  const layOut = () => {
    const wide = canvas.parentElement.clientWidth;
    const high = Math.max(260, Math.min(wide * Math.max(0.5, Math.min(extent / width, 0.8)), innerHeight * 0.8));
    const scale = devicePixelRatio || 1;
    canvas.style.height = `${high}px`;
    [canvas.width, canvas.height] = [wide * scale, high * scale];
    const fit = Math.min((wide - 30) / width, (high - 30) / extent);
    const [left, top] = [(wide - fit * width) / 2, (high - fit * extent) / 2];
    for (let k = 0; k < n; k += 1) {
      x[k] = left + map.x[k] * fit;
      y[k] = high - top - map.y[k] * fit;
    }
  };
  const prepare = (layer) => {
    const g = layer.getContext('2d');
    const scale = devicePixelRatio || 1;
    g.setTransform(scale, 0, 0, scale, 0, 0);
    return g;
  };
  const drawMark = (g, k, alpha, dark) => {
    const row = map.rows[k];
    const code = data.labels[row];
    g.globalAlpha = alpha;
    g.fillStyle = colour(code, dark);
    g.beginPath();
    shapes[code < 0 ? 0 : code % 4](g, x[k], y[k], radius);
    g.fill();
    if (isIncorrect(row)) {
      g.strokeStyle = dark ? '#fff' : '#000';
      g.lineWidth = 1.4;
      g.beginPath();
      g.arc(x[k], y[k], radius + 2.6, 0, 7);
      g.stroke();
    }
  };
  // All marks are drawn once on a separate layer. Pointing draws the layer and one mark on top.
  const layer = document.createElement('canvas');
  const show = () => {
    const g = canvas.getContext('2d');
    const dark = isDark();
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, canvas.width, canvas.height);
    if (layer.width && layer.height) g.drawImage(layer, 0, 0);
    if (pointed < 0) return;
    prepare(canvas);
    drawMark(g, pointed, 1, dark);
    g.strokeStyle = dark ? '#fff' : '#000';
    g.lineWidth = 2;
    g.strokeRect(x[pointed] - radius - 6, y[pointed] - radius - 6, 2 * radius + 12, 2 * radius + 12);
  };
  const draw = () => {
    [layer.width, layer.height] = [canvas.width, canvas.height];
    const g = prepare(layer);
    const dark = isDark();
    const drawn = [...map.rows.keys()].filter(isShown);
    for (const k of drawn) if (!isHighlighted(k)) drawMark(g, k, 0.12, dark);
    for (const k of drawn) if (isHighlighted(k)) drawMark(g, k, 0.8, dark);
    show();
  };

  const describe = (row) => {
    const predicted = run.predicted[row];
    const result = predicted < 0 ? 'not scored' : isIncorrect(row) ? `classified as ${className(predicted)}` : 'classified correctly';
    return `${className(data.labels[row])}, ${result}, ${fileName(row)}`;
  };
  const point = (k, isAnnounced) => {
    if (k === pointed) return;
    pointed = k;
    show();
    tip.hidden = k < 0;
    if (k < 0) return;
    const row = map.rows[k];
    tip.replaceChildren(makeFigure(row, run));
    tip.dataset.row = row;
    const wide = canvas.parentElement.clientWidth;
    tip.style.left = `${Math.max(0, Math.min(x[k] + 14, wide - tip.offsetWidth))}px`;
    const above = y[k] - tip.offsetHeight - 14;
    tip.style.top = `${above > -60 ? above : y[k] + 14}px`;
    if (isAnnounced) announce(describe(row));
  };
  const findNearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [a, b] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [-1, 18 ** 2];
    for (let k = 0; k < n; k += 1) {
      const far = (x[k] - a) ** 2 + (y[k] - b) ** 2;
      if (far < distance && isReachable(k)) [best, distance] = [k, far];
    }
    return best;
  };
  const openImage = () => {
    if (pointed < 0) return;
    const row = map.rows[pointed];
    const predictions = data.runs.filter((other) => other.predicted[row] >= 0)
      .map((other) => `${other.label}: ${className(other.predicted[row])}`).join('; ');
    showImages(fileName(row), [row], run, `${data.paths[row]}. ${predictions}.`);
  };
  const step = (key) => {
    const [dy, dx] = moves[key];
    const [a, b] = pointed < 0 ? [canvas.clientWidth / 2, canvas.clientHeight / 2] : [x[pointed], y[pointed]];
    let [best, distance] = [-1, Infinity];
    for (let k = 0; k < n; k += 1) {
      const [u, v] = [x[k] - a, y[k] - b];
      const along = u * dx + v * dy;
      const aside = Math.abs(u * dy) + Math.abs(v * dx);
      if (k === pointed || !isReachable(k) || (pointed >= 0 && (along <= 0 || aside > 2 * along))) continue;
      if (u * u + v * v < distance) [best, distance] = [k, u * u + v * v];
    }
    if (best >= 0) point(best, true);
  };

  canvas.addEventListener('pointermove', (event) => point(findNearest(event), false));
  canvas.addEventListener('pointerleave', () => point(-1, false));
  canvas.addEventListener('click', (event) => { point(findNearest(event), false); openImage(); });
  canvas.addEventListener('keydown', (event) => {
    if (moves[event.key]) { event.preventDefault(); step(event.key); }
    if (event.key === 'Enter') { event.preventDefault(); openImage(); }
    if (event.key === 'Escape') point(-1, false);
  });
  byId('map-run').addEventListener('change', (event) => { run = data.runs[Number(event.target.value)]; point(-1); draw(); });
  byId('map-errors').addEventListener('change', () => { point(-1); draw(); });

  const swatches = [];
  const colourLegend = () => swatches.forEach(([swatch, code]) => { swatch.style.background = colour(code, isDark()); });
  const presentClasses = [...new Set(map.rows.map((row) => data.labels[row]))].sort((a, b) => a - b);
  for (const code of presentClasses) {
    const swatch = make('i', { className: `swatch s${code < 0 ? 0 : code % 4}` });
    const button = make('button', { type: 'button', className: 'plain-button' }, swatch, className(code));
    button.setAttribute('aria-pressed', 'false');
    button.addEventListener('click', () => {
      highlighted = highlighted === code ? -1 : code;
      for (const other of byId('map-legend').querySelectorAll('button')) {
        other.setAttribute('aria-pressed', String(other === button && highlighted === code));
      }
      point(-1);
      draw();
    });
    swatches.push([swatch, code]);
    byId('map-legend').append(make('li', {}, button));
  }
  const redraw = () => { layOut(); colourLegend(); draw(); };
  new ResizeObserver(() => { layOut(); draw(); }).observe(canvas.parentElement);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  matchMedia('print').addEventListener('change', redraw);
  redraw();
};
if (canvas && data.map) drawMap();
