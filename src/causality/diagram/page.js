// The page around a drawing: pan, zoom, search, causes and effects. Its state is in the address, behind the #.
'use strict';
(() => {
  const told = JSON.parse(document.getElementById('told').textContent);
  const byId = (id) => document.getElementById(id);
  const [svg, stage, heads, search] = ['drawing', 'stage', 'heads', 'search'].map(byId);
  const whole = svg.viewBox.baseVal;
  const [width, height] = [whole.width, whole.height];
  const view = { x: 0, y: 0, scale: 1 };
  const state = { selected: '', search: '', hit: -1 };

  // Steps in an order in which each comes after its causes.
  const steps = told.steps.map(([point, lifeline, before, cause]) =>
    ({ id: 'p' + point, lifeline, causes: [before, cause].filter((n) => n >= 0), before, cause, effects: [], after: -1 }));
  steps.forEach((step, n) => {
    for (const cause of new Set(step.causes)) steps[cause].effects.push(n);
    if (step.before >= 0) steps[step.before].after = n;
  });
  const placeOf = new Map(steps.map((step, n) => [step.id, n]));

  // ---- what is seen of the drawing

  function show() {
    const [seenWidth, seenHeight] = [stage.clientWidth / view.scale, stage.clientHeight / view.scale];
    const within = (value, size, seen) => Math.min(Math.max(value, Math.min(0, size - seen)), Math.max(0, size - seen));
    view.x = within(view.x, width, seenWidth);
    view.y = within(view.y, height, seenHeight);
    svg.setAttribute('viewBox', `${view.x} ${view.y} ${seenWidth} ${seenHeight}`);
    // Whose line is whose stays in sight.
    heads.setAttribute('transform', `translate(0 ${Math.max(0, view.y - 50)})`);
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const scale = Math.min(Math.max(view.scale * factor, 0.05), 8);
    view.x += x / view.scale - x / scale;
    view.y += y / view.scale - y / scale;
    view.scale = scale;
    show();
  }

  function fit() {
    view.scale = Math.min(1, stage.clientWidth / width);
    view.x = 0;
    show();
  }

  function bringIntoSight(element) {
    const box = element.getBBox();
    const [w, h] = [stage.clientWidth / view.scale, stage.clientHeight / view.scale];
    if (box.x < view.x || box.x + box.width > view.x + w) view.x = box.x + box.width / 2 - w / 2;
    if (box.y < view.y + 60 || box.y + box.height > view.y + h) view.y = box.y - h / 3;
    show();
  }

  // ---- causes and effects

  function reach(start, next) {
    const reached = new Set();
    const waiting = [start];
    while (waiting.length) {
      for (const n of next(steps[waiting.pop()])) {
        if (!reached.has(n)) {
          reached.add(n);
          waiting.push(n);
        }
      }
    }
    return reached;
  }

  function clearMarks() {
    svg.classList.remove('selecting');
    for (const marked of svg.querySelectorAll('.past, .future, .selected')) {
      marked.classList.remove('past', 'future', 'selected');
    }
  }

  function select(id) {
    clearMarks();
    const place = placeOf.get(id);
    const element = id ? byId(id) : null;
    state.selected = element && element.classList.contains('step') ? id : '';
    byId('about').hidden = !state.selected;
    if (!state.selected) return;
    svg.classList.add('selecting');
    element.classList.add('selected');
    byId('words').textContent = element.querySelector('title').textContent;
    const past = place === undefined ? new Set() : reach(place, (step) => step.causes);
    const future = place === undefined ? new Set() : reach(place, (step) => step.effects);
    const idsOf = (places) => new Set([id, ...[...places].map((n) => steps[n].id)]);
    for (const [name, ids] of [['past', idsOf(past)], ['future', idsOf(future)]]) {
      for (const one of ids) if (one !== id) byId(one).classList.add(name);
      for (const arrow of svg.querySelectorAll('.arrow')) {
        if (ids.has(arrow.dataset.from) && ids.has(arrow.dataset.to)) arrow.classList.add(name);
      }
    }
    const others = steps.length - past.size - future.size - 1;
    const known = place !== undefined;
    byId('counts').textContent = known
      ? `${past.size} steps before it, ${future.size} after it, ${others} concurrent`
      : 'This step was not recorded: what it knew is not known.';
    const clock = new Map();
    if (known) for (const n of [...past, place]) clock.set(steps[n].lifeline, (clock.get(steps[n].lifeline) || 0) + 1);
    byId('clock').textContent = known
      ? 'vector clock: ' + [...clock].sort(([a], [b]) => a - b).map(([line, n]) => `${told.lifelines[line]} ${n}`).join(', ')
      : '';
    const event = element.closest('.event');
    const link = byId('trace');
    link.hidden = !told.jaeger;
    if (told.jaeger) link.href = `${told.jaeger}/trace/${event.dataset.trace}?uiFind=lamport`;
    Object.assign(svg.dataset, { past: past.size, future: future.size, concurrent: known ? others : '' });
    bringIntoSight(element);
  }

  function walk(key) {
    const step = steps[placeOf.get(state.selected)];
    if (!step) return select(steps.length ? steps[0].id : '');
    const effect = step.effects.find((n) => n !== step.after);
    const next = { ArrowUp: step.before, ArrowDown: step.after, ArrowLeft: step.cause, ArrowRight: effect }[key];
    if (next !== undefined && next >= 0) select(steps[next].id);
  }

  // ---- search

  function find(words) {
    state.search = words;
    state.hit = -1;
    const wanted = words.trim().toLowerCase();
    const named = new Set(told.lifelines.flatMap((name, n) => (wanted && name.toLowerCase() === wanted ? [n] : [])));
    let hits = 0;
    for (const event of told.events) {
      const hit = wanted !== '' && (event.text.toLowerCase().includes(wanted) || event.lifelines.some((n) => named.has(n)));
      byId('e' + event.id).classList.toggle('hit', hit);
      hits += hit;
    }
    svg.classList.toggle('searching', wanted !== '');
    byId('hits').textContent = wanted ? `${hits} of ${told.events.length} events` : '';
    svg.dataset.hits = wanted ? hits : '';
  }

  function nextHit() {
    // In the order of logical time, which is not the one they are drawn in.
    const hits = told.events.map((event) => byId('e' + event.id)).filter((event) => event.classList.contains('hit'));
    if (!hits.length) return;
    state.hit = (state.hit + 1) % hits.length;
    bringIntoSight(hits[state.hit].querySelector('.label'));
  }

  // ---- the address

  function remember() {
    const parts = new URLSearchParams();
    if (state.selected) parts.set('select', state.selected);
    if (state.search) parts.set('search', state.search);
    history.replaceState(null, '', parts.size ? '#' + parts : location.pathname + location.search);
  }

  function recall() {
    const parts = new URLSearchParams(location.hash.slice(1));
    search.value = parts.get('search') || '';
    find(search.value);
    select(parts.get('select') || '');
  }

  // ---- hands

  const pointers = new Map();
  let moved = false;
  stage.addEventListener('pointerdown', (event) => {
    moved = pointers.size > 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  stage.addEventListener('pointermove', (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    if (!moved && Math.hypot(now[0] - before[0], now[1] - before[1]) < 4) return;
    if (!moved) stage.setPointerCapture(event.pointerId);
    moved = true;
    stage.classList.add('moving');
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {
      const apart = (one) => Math.hypot(one[0] - other[1][0], one[1] - other[1][1]) || 1;
      const box = stage.getBoundingClientRect();
      zoom(apart(now) / apart(before), now[0] - box.left, now[1] - box.top);
    } else {
      view.x -= (now[0] - before[0]) / view.scale;
      view.y -= (now[1] - before[1]) / view.scale;
      show();
    }
    pointers.set(event.pointerId, now);
  });
  for (const end of ['pointerup', 'pointercancel']) {
    stage.addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      stage.classList.remove('moving');
    });
  }
  stage.addEventListener('click', (event) => {
    if (moved) return;
    const step = event.target.closest('.step');
    select(step ? step.id : '');
    remember();
  });
  stage.addEventListener('wheel', (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
    } else {
      view.x += (event.shiftKey ? event.deltaY : event.deltaX) / view.scale;
      view.y += (event.shiftKey ? 0 : event.deltaY) / view.scale;
      show();
    }
  }, { passive: false });

  search.addEventListener('input', () => { find(search.value); remember(); });
  byId('find').addEventListener('submit', (event) => { event.preventDefault(); nextHit(); });
  byId('in').addEventListener('click', () => zoom(1.25));
  byId('out').addEventListener('click', () => zoom(0.8));
  byId('fit').addEventListener('click', fit);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'Escape') {
      search.value = '';
      find('');
      select('');
      stage.focus();
    } else if (event.target === search) {
      return;
    } else if (event.key === '/') {
      search.focus();
    } else if (event.key.startsWith('Arrow')) {
      walk(event.key);
    } else if (event.key === '+' || event.key === '=') {
      zoom(1.25);
    } else if (event.key === '-') {
      zoom(0.8);
    } else if (event.key === '0') {
      fit();
    } else if (event.key === 'PageDown' || event.key === 'PageUp') {
      view.y += (event.key === 'PageDown' ? 0.8 : -0.8) * stage.clientHeight / view.scale;
      show();
    } else {
      return;
    }
    event.preventDefault();
    remember();
  });
  window.addEventListener('resize', show);
  window.addEventListener('hashchange', recall);

  fit();
  recall();
  document.body.dataset.ready = 'yes';
})();
