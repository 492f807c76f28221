// The explorer. Text of the data reaches the page as text nodes alone.

const byId = (id) => document.getElementById(id);
const range = (n) => Array.from({ length: n }, (_, k) => k);
const dark = matchMedia("(prefers-color-scheme: dark)");
const NO_LABEL = "–";
const VALUES = [
  ["v(N)", "v_all", "--link"],
  ["v(∅)", "v_none", "--soft"],
];
const DOUBT =
  "Do not trust these interactions: v(N) and v(∅) differ by less than a quarter of what other maskings " +
  "span. The effects mostly cancel, and are no reasons of the answer.";

async function unpack(name) {
  const packed = byId(`packed-${name}`).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function load(name) {
  const url = URL.createObjectURL(new Blob([await unpack(name)], { type: "text/javascript" }));
  try {
    return await import(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const shown = (value) => (value === null ? NO_LABEL : value.toFixed(3));

// A cell with a text of the data, and a button in it, so that the keyboard reaches its row.
function chooser(text) {
  return element("button", text, { type: "button", class: "choose", dir: "auto" });
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

class Explorer {
  constructor(data, jQuery) {
    Object.assign(this, { data, jQuery });
    this.Plotly = null; // it is large, and comes later
    this.run = data.runs[0];
    this.other = null; // a second run, shown beside the first
    this.places = new Map(); // of rows, see #rowsOf
    this.patterns = new Map(); // see #patternsOf
    this.step = 0;
    this.sample = 0;
    this.pattern = null;
    this.#makeControls();
    this.#makeTables();
    this.#chooseRun(0);
    this.#chooseStep(this.run.steps.length - 1); // before SFT nothing is removed or new
    dark.addEventListener("change", () => this.#draw());
  }

  // --- The rows of dynamics of what is chosen -------------------------------------------------

  // Places of rows by sample and checkpoint, made once a run.
  #rowsOf(run) {
    if (!this.places.has(run)) {
      const places = run.samples.map(() => run.steps.map(() => []));
      run.rows.sample.forEach((place, row) => places[place][run.rows.step[row]].push(row));
      this.places.set(run, places);
    }
    return this.places.get(run);
  }

  #isThere(row) {
    return this.data.classes[this.run.rows.class[row]] !== "removed";
  }

  #countsAt(run, sample, step, name) {
    const code = this.data.classes.indexOf(name);
    return this.#rowsOf(run)[sample][step].filter((row) => run.rows.class[row] === code).length;
  }

  // --- The second run ----------------------------------------------------------------------------

  // Place of the chosen prompt in the second run; -1 where that has it not, or with other players.
  get otherSample() {
    if (!this.other) return -1;
    const { id, words } = this.run.samples[this.sample];
    const same = (sample) => sample.id === id && sample.words.join("\n") === words.join("\n");
    return this.other.samples.findIndex(same);
  }

  // Place of a pattern of the first run in the second one; -1 where it is salient at none of its checkpoints.
  #inOther(pattern) {
    const place = this.otherSample;
    if (place < 0 || pattern === null) return -1;
    const { kind, pattern: masks } = this.run.patterns;
    return this.#patternsOf(this.other).get(`${place} ${kind[pattern]} ${masks[pattern]}`) ?? -1;
  }

  // Places of patterns by sample, kind and players, made once a run.
  #patternsOf(run) {
    if (!this.patterns.has(run)) {
      const { sample, kind, pattern: masks } = run.patterns;
      this.patterns.set(run, new Map(masks.map((mask, k) => [`${sample[k]} ${kind[k]} ${mask}`, k])));
    }
    return this.patterns.get(run);
  }

  // Class of a pattern of the second run at a step of the first one.
  #classInOther(pattern) {
    const place = this.otherSample;
    const step = this.other ? this.other.steps.indexOf(this.run.steps[this.step]) : -1;
    if (place < 0 || step < 0) return NO_LABEL;
    const found = this.#inOther(pattern);
    const rows = this.#rowsOf(this.other)[place][step];
    const row = rows.find((one) => this.other.rows.pattern[one] === found);
    return row === undefined ? "not there" : this.data.classes[this.other.rows.class[row]];
  }

  #words(pattern) {
    const { sample, kind, pattern: masks } = this.run.patterns;
    const { words } = this.run.samples[sample[pattern]];
    const members = words.filter((_, k) => (masks[pattern] >>> k) & 1);
    return members.join(this.data.kinds[kind[pattern]] === "and" ? " ∧ " : " ∨ ");
  }

  // --- Controls and tables ---------------------------------------------------------------------

  #makeControls() {
    const { data } = this;
    data.runs.forEach((run, k) => byId("run").append(element("option", run.label, { value: k })));
    data.runs.forEach((run, k) => byId("other").append(element("option", run.label, { value: k })));
    byId("other").closest("label").hidden = data.runs.length < 2;
    byId("run").addEventListener("change", (event) => this.#chooseRun(Number(event.target.value)));
    byId("other").addEventListener("change", (event) => this.#chooseOther(event.target.value));
    byId("step").addEventListener("input", (event) => this.#chooseStep(Number(event.target.value)));
    const fill = (name, values) => {
      const select = document.querySelector(`[data-filter="${name}"]`);
      values.forEach((value) => select.append(element("option", value, { value })));
    };
    fill("class", data.classes);
    fill("kind", data.kinds);
    const orders = new Set(data.runs.flatMap((run) => run.patterns.order));
    fill("order", [...orders].sort((a, b) => a - b));
    byId("filters").addEventListener("change", () => this.#listInteractions());
  }

  #makeTables() {
    const numeric = (title, data) => ({ title, data, render: { display: (v) => this.#short(v) } });
    const text = (title, data) => ({
      title,
      data,
      render: (value, type) => (type === "display" ? chooser(value) : value),
    });
    const plain = this.jQuery.fn.dataTable.render.text();
    this.samples = this.#table("samples", 5, [
      text("Prompt", "text"),
      { title: "Answer", data: "target", render: plain },
      numeric("Interactions there", "count"),
      numeric("Strength", "strength"),
      numeric("Gone or new since SFT", "change"),
      numeric("|v(N) − v(∅)|", "difference"),
      { title: "To be trusted", data: "trusted" },
    ]);
    this.interactions = this.#table("interactions", 10, [
      text("Words", "words"),
      { title: "Kind", data: "kind" },
      { title: "Order", data: "order" },
      numeric("Effect", "effect"),
      numeric("Size", "size"),
      { title: "Class", data: "class" },
      { title: "Other LLM has it", data: "general" },
      { title: "In the second run", data: "other", visible: false },
    ]);
    this.interactions.order([4, "desc"]);
    this.samples.on("draw", () => this.#markSamples());
    this.interactions.on("draw", () => this.#markInteractions());
    byId("samples").addEventListener("click", (event) => {
      const row = event.target.closest("tbody tr");
      const chosen = row && this.samples.row(row).data();
      if (chosen) this.#chooseSample(chosen.place);
    });
    byId("interactions").addEventListener("click", (event) => {
      const row = event.target.closest("tbody tr");
      const chosen = row && this.interactions.row(row).data();
      if (chosen) this.#choosePattern(chosen.pattern);
    });
  }

  #table(id, length, columns) {
    const made = this.jQuery(byId(id)).DataTable({
      columns,
      data: [],
      pageLength: length,
      lengthMenu: [5, 10, 25, 100],
      order: [],
      autoWidth: false,
      language: { emptyTable: "Nothing to show." },
    });
    for (const nav of document.querySelectorAll(`#${id}_wrapper nav`)) {
      nav.setAttribute("aria-label", `pages of ${id}`);
    }
    return made;
  }

  #short(value) {
    return Number.isInteger(value) ? String(value) : value.toFixed(3);
  }

  // --- Choices ---------------------------------------------------------------------------------

  #chooseRun(place) {
    const { id } = this.run.samples[this.sample];
    this.run = this.data.runs[place];
    this.pattern = null;
    this.sample = Math.max(0, this.run.samples.findIndex((sample) => sample.id === id));
    byId("run").value = place;
    byId("step").max = this.run.steps.length - 1;
    this.#chooseStep(Math.min(Number(byId("step").value), this.run.steps.length - 1));
  }

  #chooseOther(value) {
    this.other = value === "" ? null : this.data.runs[Number(value)];
    this.interactions.column(7).visible(this.other !== null);
    this.#chooseSample(this.sample, this.pattern);
  }

  #chooseStep(step) {
    this.step = step;
    byId("step").value = step;
    const name = this.run.steps[step];
    const title = step === 0 ? `step ${name}, before SFT` : `step ${name}`;
    byId("step-name").textContent = title;
    byId("step").setAttribute("aria-valuetext", title);
    this.#listSamples();
    this.#chooseSample(this.sample, this.pattern);
  }

  #listSamples() {
    const { rows, samples } = this.run;
    const listed = samples.map((sample, place) => {
      const there = this.#rowsOf(this.run)[place][this.step].filter((row) => this.#isThere(row));
      const changed = ["removed", "emerged"].map((c) => this.#countsAt(this.run, place, this.step, c));
      return {
        place,
        text: sample.text.length > 90 ? `${[...sample.text].slice(0, 90).join("")}…` : sample.text,
        target: sample.target,
        count: there.length,
        strength: there.reduce((sum, row) => sum + Math.abs(rows.effect[row]), 0),
        change: changed[0] + changed[1],
        difference: Math.abs(sample.v_all[this.step] - sample.v_none[this.step]),
        trusted: sample.small[this.step] ? "no" : "yes",
      };
    });
    this.samples.clear().rows.add(listed).draw(false);
  }

  // Rows of other pages have no element before they are shown, so every drawing marks anew.
  #mark(table, isChosen) {
    table.rows({ page: "current" }).every(function mark() {
      const row = this.node();
      row.classList.toggle("chosen", isChosen(this.data()));
      row.setAttribute("aria-selected", isChosen(this.data()));
    });
  }

  #markSamples() {
    this.#mark(this.samples, (row) => row.place === this.sample);
  }

  #markInteractions() {
    this.#mark(this.interactions, (row) => row.pattern === this.pattern);
  }

  #chooseSample(place, pattern = null) {
    this.sample = place;
    this.pattern = pattern;
    this.#markSamples();
    const sample = this.run.samples[place];
    byId("sample-name").textContent = `Prompt ${sample.id}`;
    byId("target").textContent = sample.target;
    byId("scored").textContent = sample.scored;
    const marks = sample.pieces.map(([text, player]) =>
      player < 0 ? document.createTextNode(text) : element("mark", text, { "data-player": player }),
    );
    byId("prompt").replaceChildren(...marks);
    this.#showValues(byId("values"), this.run, place);
    this.#showOther();
    this.#listInteractions();
    this.#choosePattern(pattern);
  }

  #showOther() {
    const place = this.otherSample;
    const box = byId("beside");
    box.hidden = !this.other;
    if (!this.other) return;
    const step = this.other.steps.indexOf(this.run.steps[this.step]);
    const here = this.run.steps[this.step];
    byId("beside-name").textContent = `${this.other.label}, step ${here}`;
    const told = byId("beside-told");
    if (place < 0) told.textContent = "This run has not this prompt with the same masked words.";
    else if (step < 0) told.textContent = "This run has no checkpoint at this step.";
    else {
      const counts = this.data.classes.map((c) => `${this.#countsAt(this.other, place, step, c)} ${c}`);
      told.textContent = `Interactions of this prompt there: ${counts.join(", ")}.`;
    }
    if (place >= 0 && step >= 0) this.#showValues(byId("beside-values"), this.other, place, step);
    else {
      byId("beside-values").replaceChildren();
      byId("beside-doubt").hidden = true;
    }
  }

  #showValues(list, run, place, step = this.step) {
    const sample = run.samples[place];
    const values = [
      ["v(N), all words", sample.v_all[step]],
      ["v(∅), all players masked", sample.v_none[step]],
      ["φ(N), of the interactions", sample.phi_all[step]],
      ["φ(∅), of the interactions", sample.phi_none[step]],
      ["largest |φ − v| over all maskings", sample.residual[step]],
      ["max v − min v over all maskings", sample.range[step]],
    ];
    list.replaceChildren(
      ...values.map(([name, value]) => {
        const both = document.createElement("div");
        both.append(element("dt", name), element("dd", shown(value)));
        return both;
      }),
    );
    const doubt = byId(list.id === "values" ? "doubt" : "beside-doubt");
    doubt.hidden = !sample.small[step];
    doubt.textContent = DOUBT;
  }

  #listInteractions() {
    const { rows, patterns } = this.run;
    const wanted = {};
    for (const select of document.querySelectorAll("[data-filter]")) {
      wanted[select.dataset.filter] = select.value;
    }
    const names = { true: "yes", false: "no", null: NO_LABEL };
    const listed = this.#rowsOf(this.run)[this.sample][this.step].map((row) => {
      const pattern = rows.pattern[row];
      const effect = rows.effect[row];
      return {
        pattern,
        words: this.#words(pattern),
        kind: this.data.kinds[patterns.kind[pattern]],
        order: patterns.order[pattern],
        effect,
        size: Math.abs(effect),
        sign: effect > 0 ? "+" : "-",
        class: this.data.classes[rows.class[row]],
        general: names[rows.general[row]],
        other: this.other ? this.#classInOther(pattern) : "",
      };
    });
    const kept = listed.filter((row) =>
      Object.entries(wanted).every(([name, value]) => !value || String(row[name]) === value),
    );
    this.interactions.clear().rows.add(kept).draw();
  }

  #choosePattern(pattern) {
    this.pattern = pattern;
    this.#markInteractions();
    const mask = pattern === null ? 0 : this.run.patterns.pattern[pattern];
    for (const mark of byId("prompt").querySelectorAll("mark")) {
      mark.classList.toggle("chosen", Boolean((mask >>> Number(mark.dataset.player)) & 1));
    }
    this.#tellAlong();
    this.#draw();
  }

  // --- Plots: numbers and fixed texts alone, since Plotly reads markup in its labels ---------------

  drawWith(Plotly) {
    this.Plotly = Plotly;
    this.#draw();
  }

  #draw() {
    if (!this.Plotly) return;
    const steps = this.run.steps.map(String);
    const sample = this.run.samples[this.sample];
    const line = (name, y, color, dash = "solid") => ({
      name,
      x: steps,
      y,
      mode: "lines+markers",
      line: { color, dash },
    });
    const ofClasses = this.data.classes.map((name) => {
      const counts = range(steps.length).map((step) => this.#countsAt(this.run, this.sample, step, name));
      return line(name, counts, css(`--${name}`));
    });
    const ofOther = this.#ofOther(this.data.classes, (place, name) => ({
      name: `${name}, second run`,
      y: this.other.steps.map((_, step) => this.#countsAt(this.other, place, step, name)),
      color: css(`--${name}`),
    }));
    this.#plot(
      "counts",
      [...ofClasses, ...ofOther],
      "count",
    );
    this.#plot(
      "course",
      [
        line("v(N)", sample.v_all, css("--link")),
        line("v(∅)", sample.v_none, css("--soft")),
        line("φ(N)", sample.phi_all, css("--emerged"), "dash"),
        ...this.#ofOther(VALUES, (place, [name, key, color]) => ({
          name: `${name}, second run`,
          y: this.other.samples[place][key],
          color: css(color),
        })),
      ],
      "log-odds",
    );
    const effects = this.run.patterns.effects.map((column) => column[this.pattern]);
    const along = this.pattern === null ? [] : [line("effect", effects, css("--link"))];
    const found = this.#inOther(this.pattern);
    const there = this.#ofOther(found < 0 ? [] : [found], (_, pattern) => ({
      name: "effect, second run",
      y: this.other.patterns.effects.map((column) => column[pattern]),
      color: css("--emerged"),
    }));
    this.#plot("along", [...along, ...there], "effect");
  }

  // Lines of the second run, dotted; none where it has not the chosen prompt.
  #ofOther(items, make) {
    const place = this.otherSample;
    if (place < 0) return [];
    return items.map((item) => {
      const { name, y, color } = make(place, item);
      const x = this.other.steps.map(String);
      const style = { line: { color, dash: "dot" }, marker: { symbol: "circle-open" } };
      return { name, x, y, mode: "lines+markers", showlegend: items.length === 1, ...style };
    });
  }

  #tellAlong() {
    const caption = byId("along-caption");
    const { pattern } = this;
    if (pattern === null) {
      caption.textContent = "Choose an interaction to follow it.";
      return;
    }
    const { rows, steps, patterns } = this.run;
    const told = steps.map((step, k) => {
      const here = this.#rowsOf(this.run)[this.sample][k].filter((row) => rows.pattern[row] === pattern);
      const names = here.map((row) => this.data.classes[rows.class[row]]);
      return names.length ? `step ${step}: ${names.join(", ")}` : `step ${step}: not salient`;
    });
    const kind = this.data.kinds[patterns.kind[pattern]].toUpperCase();
    const lacks = this.otherSample >= 0 && this.#inOther(pattern) < 0;
    const second = lacks ? " In the second run it is salient at no checkpoint." : "";
    caption.textContent = `${kind} of ${this.#words(pattern)}: its effect in log-odds. ${told.join("; ")}.${second}`;
  }

  #plot(id, traces, unit) {
    const drawn = new Set(traces.flatMap((trace) => trace.x).concat(this.run.steps.map(String)));
    const names = [...drawn].sort((a, b) => a - b);
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--soft"), automargin: true };
    const layout = {
      margin: { l: 45, r: 10, t: 10, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--text"), size: 12 },
      xaxis: {
        ...axis,
        type: "category",
        title: { text: "step" },
        categoryorder: "array",
        categoryarray: names,
        range: [-0.3, names.length - 0.7],
      },
      yaxis: { ...axis, title: { text: unit } },
      showlegend: traces.length > 1,
      legend: { orientation: "h", y: 1.15 },
      shapes: [
        {
          type: "line",
          xref: "x",
          yref: "paper",
          x0: names.indexOf(String(this.run.steps[this.step])),
          x1: names.indexOf(String(this.run.steps[this.step])),
          y0: 0,
          y1: 1,
          line: { color: css("--soft"), width: 1, dash: "dot" },
        },
      ],
    };
    this.Plotly.react(byId(id), traces, layout, { displayModeBar: false, responsive: true });
  }
}

// A link to a number opens what holds it.
function openTarget() {
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details");
  if (folded) {
    folded.open = true;
    target.scrollIntoView();
  }
}

addEventListener("hashchange", openTarget);
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("#answer details, #findings details")) one.open = true;
});
openTarget();

const followScheme = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", followScheme);
followScheme(); // the style of the tables goes by this class

try {
  const [data, { jQuery }] = await Promise.all([unpack("data"), load("datatables")]);
  const explorer = new Explorer(JSON.parse(data), jQuery);
  document.body.dataset.ready = "tables";
  await load("plotly");
  explorer.drawWith(window.Plotly);
  document.body.dataset.ready = "all";
} catch (error) {
  byId("failure").hidden = false;
  byId("failure").textContent = `The explorer could not be started in this browser: ${error}`;
  throw error;
}
