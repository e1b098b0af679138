"use strict";
// The page's controls: theme, rules, selectors, axes, saving; and the drawing of figures with Plotly.

const report = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const hidden = new Set();
const shown = [];

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const button = (text, label, onclick) =>
  element("button", { type: "button", "aria-label": label, onclick }, text);

// ---- theme ----

const darkWished = window.matchMedia("(prefers-color-scheme: dark)");
const theme = () => root.dataset.theme || (darkWished.matches ? "dark" : "light");

function themeChanged() {
  const toggle = document.getElementById("theme");
  toggle.hidden = false;
  toggle.textContent = theme() === "dark" ? "Light" : "Dark";
  toggle.setAttribute("aria-label", `Use the ${toggle.textContent.toLowerCase()} theme`);
  for (const label of document.querySelectorAll("#rules label")) {
    label.style.setProperty("--rule", colour(label.dataset.rule, theme()));
  }
  drawAll();
}

// ---- one figure ----

function traceOf(series, xTitle) {
  const { rule, name, points, part, dash, sparse, silent, faint } = series;
  const own = { color: colour(rule, theme()), width: faint ? 1.5 : 2.2, dash: dash || look(rule).dash };
  const bars = points.some((p) => typeof p.deviation === "number");
  const text = (p) => {
    const deviation = typeof p.deviation === "number" ? ` ± ${figureNumber(p.deviation)}` : "";
    const seeds = p.seeds ? ` (${p.seeds} ${p.seeds === 1 ? "seed" : "seeds"})` : "";
    const lr = p.group && p.group.values[LEARNING_RATE];
    const rate = typeof lr === "number" ? `<br>lr ${lr}` : "";
    const head = part && !name.includes(part) ? `${name}, ${part}` : name;
    return `${plain(head)}<br>${xTitle} ${p.x}: ${figureNumber(p.y)}${deviation}${seeds}${rate}`;
  };
  return {
    type: "scatter",
    meta: rule,
    mode: points.length > 1 ? "lines+markers" : "markers",
    name: plain(name),
    visible: !hidden.has(rule),
    showlegend: !silent,
    x: points.map((p) => p.x),
    y: points.map((p) => p.y),
    error_y: { type: "data", array: points.map((p) => p.deviation || 0), visible: bars, thickness: 1.3, width: 4, color: `${own.color}a0` },
    line: own,
    marker: { symbol: look(rule).symbol, size: faint || silent ? 5 : 9, color: own.color, maxdisplayed: sparse ? 8 : 0 },
    opacity: faint ? 0.7 : 1,
    connectgaps: true,
    text: points.map(text),
    hovertemplate: "%{text}<extra></extra>",
  };
}

function axis(title, log, ink, grid) {
  return {
    title: { text: title, standoff: 8 },
    type: log ? "log" : "linear",
    automargin: true,
    gridcolor: grid, linecolor: ink, tickcolor: ink, zeroline: false, ticks: "outside", showline: true,
  };
}

// Breaks text between words so that no line is longer than fits.
function wrapped(words, width) {
  const longest = Math.max(24, Math.floor(width / 7.5));
  const lines = [""];
  for (const word of words) {
    const last = lines.length - 1;
    const longer = lines[last] ? `${lines[last]}; ${word}` : word;
    if (lines[last] && longer.length > longest) lines.push(word);
    else lines[last] = longer;
  }
  return lines.map(plain);
}

function layoutOf(view, all) {
  const { figure, choices, logs, canvas } = view;
  const style = getComputedStyle(root);
  const [ground, ink, grid] = ["--ground", "--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const named = view.selectors.filter(({ name }) => name !== "quantity");
  const said = named.map(({ name }) => `${short(name)} ${shownValue(choices[name])}`);
  const width = root.dataset.printing ? 640 : canvas.clientWidth || 640;
  const title = wrapped([...said, ...(figure.subtitle ? [figure.subtitle] : [])], width);
  const xaxis = axis(figure.xTitle, logs.x, ink, grid);
  const places = distinct(all.flatMap((s) => s.points.map((p) => p.x)));
  if (figure.x !== null && places.length <= 10) {
    Object.assign(xaxis, { tickvals: places, ticktext: places.map(figureNumber) });
  } else if (figure.whole || (places.length && places.length <= 10)) {
    Object.assign(xaxis, { dtick: logs.x ? undefined : 1 });
  }
  const yaxis = axis(figure.yTitle(view.left, choices), logs.y, ink, grid);
  if (logs.y) {
    const sizes = all.flatMap((s) => s.points.map((p) => p.y)).filter((y) => y > 0);
    const decades = Math.log10(Math.max(...sizes) / Math.min(...sizes));
    Object.assign(yaxis, { tickformat: "~g", dtick: decades < 3 ? "D2" : 1 });
  }
  const head = {
    text: title.join("<br>"), font: { size: 12.5 }, showarrow: false, align: "left",
    x: 0, xref: "paper", xanchor: "left", y: 1, yref: "paper", yanchor: "bottom", yshift: 6,
  };
  const layout = {
    annotations: [head],
    margin: { l: 50, r: 14, t: 14 + 17 * title.length, b: 40 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
    paper_bgcolor: ground, plot_bgcolor: ground,
    hovermode: "closest",
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    legend: {
      orientation: "h", x: 0, xref: "container", y: 0, yref: "container", yanchor: "bottom",
      font: { size: width < 420 ? 11 : 13 },
      itemclick: false, itemdoubleclick: false,
    },
    showlegend: true,
    xaxis, yaxis,
  };
  if (root.dataset.printing) Object.assign(layout, { width: 640, height: 400, autosize: false });
  return layout;
}

function draw(view) {
  const { figure, groups, choices } = view;
  const left = selected(groups, report.keys, choices);
  view.left = left;
  view.series = figure.series(figure, left, choices);
  view.series.sort((a, b) => rules.indexOf(a.rule) - rules.indexOf(b.rule));
  const missing = undrawn(figure, report.groups, left, report.keys, choices);
  view.missing.textContent = missing.length ? `Not drawn, nothing completed: ${missing.join("; ")}.` : "";
  const config = { displayModeBar: false, responsive: true, displaylogo: false };
  return Plotly.react(view.canvas, view.series.map((s) => traceOf(s, figure.xTitle)), layoutOf(view, view.series), config);
}

function drawAll() {
  shown.forEach(draw);
}

// ---- saving ----

function csv(view) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const { figure, choices } = view;
  const asked = view.selectors.map(({ name }) => name);
  const head = ["rule", "part", ...asked, figure.xTitle, figure.yTitle(view.left, choices), "deviation", "seeds"];
  const rows = view.series.filter((s) => !hidden.has(s.rule)).flatMap((s) => s.points.map((p) => {
    const values = asked.map((name) => {
      const own = p.group && p.group.values[name];
      return own === undefined || own === null ? choices[name] : own;
    });
    return [s.rule, s.part || "", ...values, p.x, p.y, p.deviation, p.seeds];
  }));
  return [head, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function saveCsv(view) {
  const address = URL.createObjectURL(new Blob([csv(view)], { type: "text/csv" }));
  element("a", { href: address, download: `sansprop-${view.figure.id}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function saveSvg(view) {
  const options = { format: "svg", width: 800, height: 520, filename: `sansprop-${view.figure.id}` };
  Plotly.downloadImage(view.canvas, options);
}

// ---- building the page ----

function selectorOf(view, { name, values, start }) {
  view.choices[name] = start;
  const options = values.map((value, i) => {
    const option = element("option", { value: i }, shownValue(value));
    option.selected = value === start;
    return option;
  });
  const choose = (event) => {
    view.choices[name] = values[Number(event.target.value)];
    settle(view.groups, report.keys, view.choices, name);
    view.refresh.forEach((refresh) => refresh());
    draw(view);
  };
  const select = element("select", { "data-key": name, onchange: choose }, ...options);
  view.refresh.push(() => { select.value = values.indexOf(view.choices[name]); });
  return element("label", {}, short(name), select);
}

function logOf(view, which) {
  const toggle = (event) => {
    view.logs[which] = event.target.checked;
    draw(view);
  };
  const box = element("input", { type: "checkbox", "data-log": which, onchange: toggle });
  box.checked = view.logs[which];
  return element("label", {}, box, `log ${which}`);
}

function build(figure) {
  const groups = report.groups.filter(figure.fits);
  const places = figure.x === null ? groups.length : distinct(groups.map((g) => g.values[figure.x])).length;
  if (places < figure.least) return;
  const view = { figure, groups, refresh: [], choices: {}, logs: { x: figure.logX, y: figure.logY } };
  view.selectors = selectors(figure, groups, report.keys);
  const titleId = `title-${figure.id}`;
  view.canvas = element("div", { class: "canvas", id: `plot-${figure.id}`, role: "img", "aria-labelledby": titleId });
  view.missing = element("p", { class: "missing" });
  const save = element("span", { class: "save" },
    button("SVG", `Save “${figure.title}” as SVG`, () => saveSvg(view)),
    button("CSV", `Save the data of “${figure.title}” as CSV`, () => saveCsv(view)));
  const controls = element("div", { class: "controls" },
    ...view.selectors.map((s) => selectorOf(view, s)), logOf(view, "x"), logOf(view, "y"), save);
  document.getElementById("figures").append(element("figure", { "aria-labelledby": titleId },
    element("h3", { id: titleId }, figure.title), controls, view.canvas,
    element("figcaption", {}, figure.caption), view.missing));
  shown.push(view);
}

const drawable = (g) => FIGURES.some((figure) => figure.fits(g));
const rank = (rule) => (rule in LOOKS ? Object.keys(LOOKS).indexOf(rule) : Infinity);
const rules = [...new Set(report.groups.filter(drawable).map((g) => g.rule))].sort((a, b) => (rank(a) < rank(b) ? -1 : 1));

function buildRules() {
  const field = document.getElementById("rules");
  field.hidden = rules.length === 0;
  const show = (rule, wanted) => (wanted ? hidden.delete(rule) : hidden.add(rule));
  const boxes = rules.map((rule) => {
    const toggle = (event) => {
      show(rule, event.target.checked);
      drawAll();
    };
    const box = element("input", { type: "checkbox", "data-rule": rule, onchange: toggle });
    box.checked = true;
    field.append(element("label", { "data-rule": rule }, box, element("span", { class: "swatch", "aria-hidden": "true" }), rule));
    return box;
  });
  const all = (wanted) => () => {
    rules.forEach((rule) => show(rule, wanted));
    boxes.forEach((box) => { box.checked = wanted; });
    drawAll();
  };
  if (rules.length > 2) field.append(button("All", "Show all rules", all(true)), button("None", "Hide all rules", all(false)));
}

buildRules();
FIGURES.forEach(build);
document.getElementById("plots").hidden = shown.length === 0;
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = theme() === "dark" ? "light" : "dark";
  themeChanged();
});
darkWished.addEventListener("change", themeChanged);

// How the text of figures is broken depends on the width.
let resizing;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(drawAll, 150);
});

// Paper is white and narrow: figures are drawn for it, and afterwards for the screen again.
let themeBefore;
window.addEventListener("beforeprint", () => {
  themeBefore = root.dataset.theme;
  root.dataset.theme = "light";
  root.dataset.printing = "yes";
  drawAll();
});
window.addEventListener("afterprint", () => {
  if (themeBefore) root.dataset.theme = themeBefore;
  else delete root.dataset.theme;
  delete root.dataset.printing;
  drawAll();
});

themeChanged();
