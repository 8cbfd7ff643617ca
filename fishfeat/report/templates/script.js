'use strict';
// The page can be read without this script. It opens what a link points to, and what is printed.
const openedForPrint = new Set();
const openDetails = (details) => { details.open = true; };
const followLink = () => {
  const target = document.getElementById(location.hash.slice(1));
  const details = target && target.closest('details');
  if (details) { openDetails(details); target.scrollIntoView(); }
};
addEventListener('hashchange', followLink);
addEventListener('DOMContentLoaded', followLink);
const byId = (id) => document.getElementById(id);
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};
const announce = (text) => { byId('status').textContent = text; };
addEventListener('beforeprint', () => {
  for (const details of document.querySelectorAll('details.printed')) {
    if (!details.open) openedForPrint.add(details);
    openDetails(details);
  }
});
addEventListener('afterprint', () => {
  for (const details of openedForPrint) details.open = false;
  openedForPrint.clear();
});

{% include "gallery.js" %}
{% include "matrix.js" %}
{% include "map.js" %}
