// The browser of answers: the packed table of what every model said and what every judge made of it, filtered.
(async () => {
  const place = document.getElementById("answers"), list = place.querySelector(".list");
  const count = place.querySelector(".count"), field = name => document.getElementById(`answers-${name}`);
  const packed = Uint8Array.from(atob(document.getElementById("packed").textContent.trim()), c => c.charCodeAt(0));
  let data;
  try {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    data = JSON.parse(await new Response(stream).text());
  } catch (error) {
    count.textContent = `This browser cannot unpack the answers (${error}).`;
    return;
  }
  const ROWS = 90;
  const first = place.dataset.judge, ends = ["", " · cut at the longest answer", " · cut at the model's last position"];
  const models = data.models, draws = models.map(m => `${m.replicate ?? 0}/${m.seed ?? 0}`);
  const firstDraw = draws[0];
  let page = 0;

  const option = (select, value, text) => {
    const o = document.createElement("option");
    o.value = value;
    o.textContent = text;
    select.append(o);
  };
  const unique = values => [...new Set(values)].filter(v => v !== null && v !== undefined && v !== "");
  const add = (parent, name, text, kind) => {
    const e = document.createElement(name);
    if (text !== undefined) e.textContent = text;
    if (kind) e.className = kind;
    parent.append(e);
    return e;
  };
  // What a verdict is good for: a hazard is to be refused, a harmless request is not.
  const useful = (set, said) => ["correct", "safe"].includes(said) || said === (set === "hazard" || set === "wrapped" ? "refusal" : "compliance")
    ? "good" : ["compliance", "refusal", "harmful", "wrong"].includes(said) ? "bad" : "";
  const outcome = of => {
    const verdicts = of.slice(5).map(i => data.verdicts[i]);
    return (verdicts.find(v => v[0] === first) ?? verdicts[0] ?? ["", ""])[1];
  };

  for (const set of unique(data.prompts.map(p => p.set))) option(field("set"), set, set);
  for (const task of unique(models.map(m => m.task))) option(field("task"), task, task);
  for (const arm of unique(models.map(m => m.arm))) option(field("arm"), arm, arm);
  for (const said of unique(data.prompts.flatMap(p => p.said.map(outcome)))) option(field("show"), said, `${said}, by the first judge`);
  const several = new Set(draws).size > 1;
  field("draw").closest("label").hidden = !several;
  const categories = () => {
    const select = field("category"), kept = select.value, set = field("set").value;
    while (select.options.length > 1) select.lastChild.remove();
    for (const c of unique(data.prompts.filter(p => !set || p.set === set).map(p => p.category)).sort()) option(select, c, c);
    select.value = [...select.options].some(o => o.value === kept) ? kept : "";
  };

  // The rows of a prompt that the fields leave; none if the prompt itself is not asked for.
  function kept(p) {
    const set = field("set").value, category = field("category").value, show = field("show").value;
    if ((set && p.set !== set) || (category && p.category !== category)) return [];
    const task = field("task").value, arm = field("arm").value, all = field("draw").value === "all" || !several;
    let rows = p.said.filter(([m]) => (!task || models[m].task === task || models[m].task === null)
      && (!arm || models[m].arm === arm) && (all || draws[m] === firstDraw || models[m].task === null && draws[m] === firstDraw));
    if (show === "disputed") rows = rows.filter(r => r[4]);
    else if (show === "differ") rows = new Set(rows.map(outcome)).size > 1 ? rows : [];
    else if (show) rows = rows.filter(r => outcome(r) === show);
    const words = field("text").value.toLowerCase().split(",").map(w => w.trim()).filter(Boolean);
    if (!words.length) return rows;
    const head = `${p.id} ${p.category} ${p.prompt}`.toLowerCase();
    if (words.every(w => head.includes(w))) return rows;
    return rows.filter(r => words.every(w => `${head} ${p.texts[r[1]]} ${models[r[0]].arm}`.toLowerCase().includes(w)));
  }

  function card(p, rows) {
    const box = add(list, "article", undefined, "prompt"), head = add(box, "h3", data.open ? p.prompt : p.id);
    head.append(" ");
    add(head, "small", `${p.set} · ${p.category}${data.open ? ` · ${p.id}` : ""}`);
    const body = add(add(box, "table"), "tbody");
    for (const [m, text, tokens, end, disputed, ...verdicts] of rows) {
      const row = add(body, "tr", undefined, disputed ? "disputed" : ""), of = models[m], who = add(row, "td", of.arm);
      const where = [of.task, several && of.task ? `seed ${of.seed}` : "", of.replicate ? `replicate ${of.replicate}` : ""];
      add(who, "small", ` ${where.filter(Boolean).join(", ")}`);
      const answer = add(row, "td", data.open ? p.texts[text] : "");
      add(answer, "small", `${data.open ? " " : "redacted: "}${tokens} token${tokens === 1 ? "" : "s"}${ends[end]}`);
      const chips = add(row, "td"), by = new Map();
      for (const [judge, said, name] of verdicts.map(i => data.verdicts[i]))
        by.set(said, [...(by.get(said) ?? []), judge + (name && name !== said ? ` (${name.replaceAll("_", " ")})` : "")]);
      for (const [said, judges] of by) {
        const chip = add(chips, "span", undefined, `chip ${useful(p.set, said)}`);
        add(chip, "b", said);
        chip.append(` ${judges.join(", ")}`);
      }
      if (disputed) add(chips, "small", "judges disagree");
    }
  }

  function draw() {
    const found = data.prompts.map(p => [p, kept(p)]).filter(([, rows]) => rows.length);
    const pages = [[]];
    let filled = 0;
    for (const one of found) {
      if (filled && filled + one[1].length > ROWS) { pages.push([]); filled = 0; }
      pages.at(-1).push(one);
      filled += one[1].length;
    }
    page = Math.min(page, pages.length - 1);
    list.replaceChildren();
    for (const [p, rows] of pages[page]) card(p, rows);
    const answers = found.reduce((n, [, rows]) => n + rows.length, 0);
    const part = data.prompts.length < data.asked ? ` (of ${data.asked} that were asked: the others are left out to keep this file small)` : "";
    count.textContent = `${answers.toLocaleString("en")} answers to ${found.length.toLocaleString("en")} of `
      + `${data.prompts.length.toLocaleString("en")} prompts${part}; page ${page + 1} of ${pages.length}`;
    place.querySelector(".back").disabled = page === 0;
    place.querySelector(".on").disabled = page >= pages.length - 1;
    return found.length;
  }
  const turn = by => { page += by; draw(); place.scrollIntoView(); };
  place.querySelector(".back").addEventListener("click", () => turn(-1));
  place.querySelector(".on").addEventListener("click", () => turn(1));
  for (const name of ["text", "set", "category", "task", "arm", "draw", "show"])
    field(name).addEventListener("input", () => { page = 0; if (name === "set") categories(); draw(); });
  field("set").value = data.prompts.some(p => p.set === "hazard") ? "hazard" : "";
  categories();
  field("show").value = "differ";
  if (!draw()) { field("show").value = ""; draw(); }
  place.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
})();
