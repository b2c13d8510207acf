// The plot of trade-offs: any two quantities of the table against each other, a panel per task. The nearest point, or
// the one that the arrow keys lead to, says its name and intervals; a family of the legend comes forward.
(() => {
  const found = JSON.parse(document.getElementById("points").textContent);
  const figure = document.getElementById("plot"), panels = figure.querySelector(".panels");
  const readout = figure.querySelector(".readout"), choice = name => document.getElementById(`plot-${name}`);
  const axes = Object.fromEntries(found.axes.map(a => [a.key, a]));
  const WIDTH = 460, HEIGHT = 330, LEFT = 46, RIGHT = 12, TOP = 26, BOTTOM = 40;
  const FEW = 8, CROWD = 24, NAMED = 6, REACH = 30;
  const pinned = new Set();
  const SHAPES = [
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z", "M-4.5,-4.5h9v9h-9z", "M0,-6L6,0L0,6L-6,0z", "M0,-6L5.5,4.5H-5.5z",
    "M0,6L5.5,-4.5H-5.5z", "M-2,-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z", "M-5.5,-3L0,-6L5.5,-3V3L0,6L-5.5,3z",
    "M0,-7L1.8,-2H7L2.8,1.2L4.3,6.2L0,3.2L-4.3,6.2L-2.8,1.2L-7,-2H-1.8z", "M-6,0L4.5,-5.5V5.5z", "M6,0L-4.5,-5.5V5.5z",
    "M-5,-5L0,-2L5,-5L2,0L5,5L0,2L-5,5L-2,0z",
  ];
  const looks = Object.fromEntries(found.families.map((f, i) => [f.name, { role: f.role, colour: f.colour,
    shape: f.role ? SHAPES[["base", "aligned", "unaligned"].indexOf(f.name) % 3] : SHAPES[f.shape % SHAPES.length] }]));

  const make = (name, where, attributes = {}, text) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    where.append(e);
    return e;
  };
  const number = (v, axis) => v === null ? "–"
    : axis.unit === "%" ? v.toFixed(1) : Number(v.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const said = (of, axis) => {
    const [v, low, high] = of;
    const unit = axis.unit ? ` ${axis.unit}` : "";
    return `${axis.label} ${number(v, axis)}${unit}${low === null ? "" : ` [${number(low, axis)}, ${number(high, axis)}]`}`;
  };

  // Shares begin at zero and end at a hundred, nothing begins below zero; a logarithmic axis is as wide as its values.
  function scale(axis, values, from, to, whole) {
    const lows = values.map(v => v[1] ?? v[0]), highs = values.map(v => v[2] ?? v[0]);
    let low = Math.min(...lows), high = Math.max(...highs), ticks = [];
    const least = low;
    if (axis.log) {
      const positive = values.map(v => v[0]).filter(v => v > 0);
      low = Math.log10(Math.min(...positive)) - 0.15;
      high = Math.log10(Math.max(...positive)) + 0.15;
      if (high - low < 1) [low, high] = [(low + high) / 2 - 0.5, (low + high) / 2 + 0.5];
      for (let d = Math.floor(low); d <= high; d++)
        for (const m of [1, 2, 5]) if (Math.log10(m) + d >= low && Math.log10(m) + d <= high) ticks.push(m * 10 ** d);
      if (ticks.length > 7) ticks = ticks.filter(t => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
      const at = v => from + (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low) * (to - from);
      return { at, ticks };
    }
    const share = axis.unit === "%", pad = Math.max((high - low) * 0.08, share ? 2 : high * 0.05, 1e-9);
    low = whole && share ? 0 : low - pad;
    high = whole && share ? 100 : share ? Math.min(100, high + pad) : high + pad;
    if (least >= 0 && low < 0.15 * high) low = 0; // also what a margin would put below it
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= rough);
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9; t += step) ticks.push(Number(t.toPrecision(6)));
    return { at: v => from + (v - low) / (high - low) * (to - from), ticks };
  }

  function panel(task, xAxis, yAxis) {
    const rows = found.points.filter(p => p.task === task && p.values[xAxis.key] && p.values[yAxis.key]
      && (!xAxis.log || p.values[xAxis.key][0] > 0) && (!yAxis.log || p.values[yAxis.key][0] > 0));
    const svg = make("svg", panels, { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "group" });
    const metric = key => key === "utility" ? ` (${found.metrics[task]})` : "";
    svg.setAttribute("aria-label", `${task}: ${yAxis.label} against ${xAxis.label}, ${rows.length} models. `
      + "Arrow keys go from one to the next, Enter leads to where its numbers come from.");
    make("text", svg, { x: LEFT, y: 14, "font-weight": 600 }, task);
    if (!rows.length) { make("text", svg, { x: LEFT, y: 60, class: "soft" }, "no model has both"); return; }
    if (rows.length > CROWD) svg.classList.add("crowd");
    const x = scale(xAxis, rows.map(p => p.values[xAxis.key]), LEFT + 4, WIDTH - RIGHT, false);
    const y = scale(yAxis, rows.map(p => p.values[yAxis.key]), HEIGHT - BOTTOM - 4, TOP, true);
    for (const t of x.ticks) {
      make("line", svg, { x1: x.at(t), x2: x.at(t), y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" });
      make("text", svg, { x: x.at(t), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle", class: "soft" },
        Number(t).toLocaleString("en", { maximumSignificantDigits: 3 }));
    }
    for (const t of y.ticks) {
      make("line", svg, { x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(t), y2: y.at(t), class: "grid" });
      make("text", svg, { x: LEFT - 5, y: y.at(t) + 4, "text-anchor": "end", class: "soft" },
        Number(t).toLocaleString("en", { maximumSignificantDigits: 3 }));
    }
    make("path", svg, { d: `M${LEFT},${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`, class: "frame", fill: "none" });
    const title = axis => axis.label + metric(axis.key) + (axis.unit ? `, ${axis.unit}` : "");
    make("text", svg, { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, title(xAxis));
    make("text", svg, { transform: `translate(12,${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" },
      title(yAxis));
    const onFront = xAxis.key === "utility" && yAxis.key === found.refused;
    if (onFront) step(svg, rows.filter(p => p.front), x, y);

    const marks = rows.map(p => {
      const look = looks[p.family], [vx, lx, hx] = p.values[xAxis.key], [vy, ly, hy] = p.values[yAxis.key];
      const at = [x.at(vx), y.at(vy)];
      const g = make("g", svg, { class: `mark${look.role ? " role" : ""}`, style: `--of: ${look.colour}` });
      g.dataset.family = p.family;
      if (p.region && onFront) region(g, p.region, at, x, y);
      let bars = "";
      if (lx !== null) bars += `M${x.at(lx)},${at[1]}H${x.at(hx)}`;
      if (ly !== null) bars += `M${at[0]},${y.at(ly)}V${y.at(hy)}`;
      if (bars) make("path", g, { d: bars, class: "bar" });
      make("path", g, { d: look.shape, transform: `translate(${at})`, class: "shape" });
      return { p, g, at };
    });
    label(svg, marks, onFront);

    const order = [...marks].sort((a, b) => a.at[0] - b.at[0] || b.at[1] - a.at[1]);
    let current = -1;
    const show = i => {
      current = i;
      marks.forEach(m => m.g.classList.remove("near"));
      const m = order[i];
      if (!m) { rest(); return; }
      m.g.classList.add("near");
      m.g.parentNode.append(m.g);
      const keys = [...new Set([yAxis.key, xAxis.key, found.refused, found.over])];
      readout.textContent = `${m.p.arm} on ${task}: ` + keys.map(k => m.p.values[k]
        ? said(m.p.values[k], axes[k]) : `${axes[k] ? axes[k].label : "harmless refused"} not asked`).join(" · ");
    };
    const lead = m => { if (m && document.getElementById(m.p.cell)) location.hash = m.p.cell; };
    const nearest = e => {
      const box = svg.getBoundingClientRect(), k = WIDTH / box.width;
      const px = (e.clientX - box.left) * k, py = (e.clientY - box.top) * k;
      let best = -1, far = REACH;
      order.forEach((m, i) => { const d = Math.hypot(m.at[0] - px, m.at[1] - py); if (d < far) [best, far] = [i, d]; });
      return best;
    };
    svg.addEventListener("pointermove", e => { const i = nearest(e); if (i !== current) show(i); });
    svg.addEventListener("pointerleave", () => show(-1));
    svg.addEventListener("click", e => lead(order[nearest(e)]));
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible") && current < 0) show(0); });
    svg.addEventListener("blur", () => show(-1));
    svg.addEventListener("keydown", e => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
      if (by) { e.preventDefault(); show((current + by + order.length) % order.length); }
      if (e.key === "Home") { e.preventDefault(); show(0); }
      if (e.key === "End") { e.preventDefault(); show(order.length - 1); }
      if (e.key === "Enter") lead(order[current]);
    });
  }

  function step(svg, front, x, y) {
    const points = front.map(p => [p.values.utility[0], p.values[found.refused][0]]).sort((a, b) => a[0] - b[0]);
    if (!points.length) return;
    let d = `M${LEFT},${y.at(points[0][1])}`;
    points.forEach(([u], i) => { d += `H${x.at(u)}V${y.at(i + 1 < points.length ? points[i + 1][1] : 0)}`; });
    make("path", svg, { d: `${d}H${LEFT}z`, class: "step" });
  }

  // The ellipse that 95 % of the bootstrap's draws fill, were they normal: the root of chi-squared's quantile is 2.448.
  function region(g, [su, sr, rho], at, x, y) {
    const kx = x.at(1) - x.at(0), ky = y.at(1) - y.at(0);
    const points = Array.from({ length: 40 }, (_, i) => {
      const a = i / 40 * 2 * Math.PI, u = Math.cos(a), v = rho * u + Math.sqrt(1 - rho * rho) * Math.sin(a);
      return `${at[0] + 2.448 * su * kx * u},${at[1] + 2.448 * sr * ky * v}`;
    });
    make("path", g, { d: `M${points.join("L")}z`, class: "region" });
  }

  // Names beside points: of all where they are few, else of the first of the front; where there is no room, none.
  function label(svg, marks, onFront) {
    const named = marks.length <= FEW ? marks : onFront
      ? marks.filter(m => m.p.front || looks[m.p.family].role).sort((a, b) => a.at[1] - b.at[1]).slice(0, NAMED) : [];
    const taken = marks.map(m => [m.at[0] - 6, m.at[1] - 6, m.at[0] + 6, m.at[1] + 6]);
    const clear = ([a, b, c, d]) => a > LEFT && c < WIDTH - 2 && b > TOP - 8 && d < HEIGHT - BOTTOM
      && !taken.some(([e, f, g, h]) => a < g && c > e && b < h && d > f);
    for (const { p, at: [px, py] } of named) {
      const look = looks[p.family];
      const text = make("text", svg, { class: "name", style: `--of: ${look.role ? "var(--ink)" : look.colour}` }, p.arm);
      const wide = text.getComputedTextLength() || p.arm.length * 6.5; // nothing is measured where nothing is shown
      const places = [[px + 6, py - 17], [px - 6 - wide, py - 17], [px + 6, py + 6], [px - 6 - wide, py + 6],
        [px + 9, py - 5], [px - 9 - wide, py - 5], [px - wide / 2, py - 19], [px - wide / 2, py + 8]];
      const spot = places.map(([a, b]) => [a, b, a + wide, b + 11]).find(clear);
      if (!spot) { text.remove(); continue; }
      taken.push(spot);
      text.setAttribute("x", spot[0]);
      text.setAttribute("y", spot[3] - 2);
    }
  }

  function light(families) {
    panels.querySelectorAll(".mark").forEach(g =>
      g.classList.toggle("far", families.size > 0 && !families.has(g.dataset.family)));
  }
  const rest = () => { readout.textContent = "Point at a model, or go to a panel with Tab and through it with the arrow keys."; };

  function draw() {
    panels.replaceChildren();
    const task = choice("task").value, tasks = task ? [task] : [...new Set(found.points.map(p => p.task))];
    for (const t of tasks) panel(t, axes[choice("x").value], axes[choice("y").value]);
    light(pinned);
    rest();
  }

  for (const name of ["task", "x", "y"]) choice(name).addEventListener("change", draw);
  const legend = figure.querySelector(".legend");
  for (const { name } of found.families) {
    const item = document.createElement("li"), button = document.createElement("button"), look = looks[name];
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const swatch = make("svg", button, { viewBox: "-8 -8 16 16", "aria-hidden": "true", class: `swatch${look.role ? " role" : ""}`,
      style: `--of: ${look.colour}` });
    make("path", swatch, { d: look.shape });
    button.append(` ${name}`);
    button.addEventListener("click", () => {
      if (!pinned.delete(name)) pinned.add(name);
      button.setAttribute("aria-pressed", String(pinned.has(name)));
      light(pinned);
    });
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => light(new Set([...pinned, name])));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => light(pinned));
    item.append(button);
    legend.append(item);
  }
  draw();
})();
