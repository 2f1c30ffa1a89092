// Tooltips that follow the pointer without the browser's delay. Without this script, <title> elements still work.
'use strict';
const tip = document.createElement('div');
tip.id = 'tip';
tip.hidden = true;
document.body.append(tip);

for (const title of document.querySelectorAll('svg title')) {
  const group = title.parentNode;
  group.dataset.tip = title.textContent;
  group.setAttribute('aria-label', title.textContent);
  title.remove();
}

function place(event) {
  const margin = 14;
  const box = tip.getBoundingClientRect();
  const right = event.clientX + margin + box.width > window.innerWidth;
  const below = event.clientY + margin + box.height > window.innerHeight;
  tip.style.left = `${Math.max(4, event.clientX + (right ? -margin - box.width : margin))}px`;
  tip.style.top = `${Math.max(4, event.clientY + (below ? -margin - box.height : margin))}px`;
}

document.addEventListener('pointermove', (event) => {
  const group = event.target.closest ? event.target.closest('[data-tip]') : null;
  tip.hidden = !group;
  if (group) {
    if (tip.textContent !== group.dataset.tip) tip.textContent = group.dataset.tip;
    place(event);
  }
});

// The chosen scenario is part of the address, so that links can point to it.
const picks = [...document.querySelectorAll('.picker > input')];
const wanted = picks.find((pick) => `#${pick.id}` === location.hash);
if (wanted) {
  wanted.checked = true;
  document.getElementById('latency').scrollIntoView();
}
for (const pick of picks) {
  pick.addEventListener('change', () => history.replaceState(null, '', `#${pick.id}`));
}
