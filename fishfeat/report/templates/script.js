'use strict';
// The page reads without this: it opens what a link points to, and everything that is printed.
const opened = new Set();
const open = (details, note) => {
  if (note && !details.open) opened.add(details);
  details.open = true;
};
const follow = () => {
  const target = document.getElementById(location.hash.slice(1));
  const details = target && target.closest('details');
  if (details) { open(details); target.scrollIntoView(); }
};
addEventListener('hashchange', follow);
addEventListener('DOMContentLoaded', follow);
const byId = (id) => document.getElementById(id);
const make = (name, given = {}, ...inside) => {
  const element = Object.assign(document.createElement(name), given);
  element.append(...inside);
  return element;
};
const say = (text) => { byId('says').textContent = text; };
addEventListener('beforeprint', () => {
  for (const details of document.querySelectorAll('details.printed')) open(details, true);
});
addEventListener('afterprint', () => {
  for (const details of opened) details.open = false;
  opened.clear();
});

{% include "images.js" %}
{% include "matrix.js" %}
{% include "map.js" %}
