"use strict";
// From the report's groups to what Plotly draws. Nothing here touches the page.
//
// A group is trials that differ in seed only: { rule, values, metric, best, seconds, chosen, troubles, curve, scores }.
// A figure is { id, title, caption, x, fits, series, … }: `x` is the key along its axis, `fits` says which groups
// have something to show, `series` makes lines of those that the selectors leave.

const LEARNING_RATE = "train.lr";
const BEST = "best";

// Okabe and Ito's colours, with grey for their yellow; lighter ones on a dark ground.
const LOOKS = {
  "normal": { light: "#1a1a1a", dark: "#f2f2f2", symbol: "circle", dash: "solid" },
  "last-layer": { light: "#7f7f7f", dark: "#9a9a9a", symbol: "x", dash: "dot" },
  "fa": { light: "#d55e00", dark: "#f47c3c", symbol: "triangle-up", dash: "dashdot" },
  "dfa": { light: "#e69f00", dark: "#f0b63a", symbol: "triangle-down", dash: "longdash" },
  "sign-symmetry": { light: "#cc79a7", dark: "#e39ac3", symbol: "star", dash: "longdashdot" },
  "align-ada": { light: "#0072b2", dark: "#3f9be8", symbol: "square", dash: "dash" },
  "align-zero": { light: "#56b4e9", dark: "#9bd8ff", symbol: "diamond", dash: "5px,2px" },
  "align-prop": { light: "#009e73", dark: "#20c997", symbol: "pentagon", dash: "10px,3px,2px,3px" },
};
const OTHER = { light: "#8c6d31", dark: "#cfae6d", symbol: "hexagon", dash: "solid" };
const LAYER_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px"];

const look = (rule) => LOOKS[rule] || OTHER;
const colour = (rule, theme) => look(rule)[theme];
const short = (key) => (key === "data.name" ? "data" : key.split(".").pop().replace(/_/g, " "));
const percent = (share) => (share === null ? null : Number((100 * share).toPrecision(6)));
// Plotly reads some tags in text; names are text only.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

function figureNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));
}

const shownValue = (value) => (typeof value === "number" ? figureNumber(value) : String(value));

function distinct(values) {
  const known = [...new Set(values.filter((v) => v !== null && v !== undefined))];
  const numeric = (a, b) => a - b;
  return known.every((v) => typeof v === "number") ? known.sort(numeric) : known.sort();
}

// One line of a figure; `points` are { x, y, deviation, seeds, text }.
function line(group, name, points, options = {}) {
  return { rule: group.rule, name, points, ...options };
}

// Groups of one rule as a line along `figure.x`.
function alongKey(figure, groups, value) {
  return distinct(groups.map((g) => g.rule)).map((rule) => {
    const own = groups.filter((g) => g.rule === rule && value(g));
    const point = (g) => ({ x: g.values[figure.x], group: g, ...value(g) });
    const points = own.map(point).sort((a, b) => a.x - b.x);
    return line({ rule }, rule, points);
  });
}

const accuracyOrLoss = (groups) => {
  const metrics = distinct(groups.map((g) => g.metric));
  if (metrics.length === 1) return metrics[0] === "accuracy" ? "Best accuracy, %" : "Best loss";
  return "Best accuracy, % (or loss)";
};

function best(group) {
  if (!group.best) return null;
  const scale = group.metric === "accuracy" ? percent : (v) => v;
  return { y: scale(group.best.mean), deviation: scale(group.best.deviation), seeds: group.best.seeds };
}

function seconds(group) {
  return group.seconds && { y: group.seconds.mean, deviation: group.seconds.deviation, seeds: group.seconds.seeds };
}

// A figure of best results along a key, which needs two values of it.
function bestAlong(id, key, title, axis) {
  return {
    id, title, x: key, xTitle: axis, logX: true, logY: false, least: 2,
    caption: "Best over epochs on the evaluated samples; mean over seeds, bars: ± standard deviation.",
    fits: (g) => g.best !== null && typeof g.values[key] === "number",
    yTitle: accuracyOrLoss,
    series: (figure, groups) => alongKey(figure, groups, best),
  };
}

function curveLines(figure, groups, choices) {
  const accuracy = choices.quantity === "accuracy";
  const scale = accuracy ? percent : (v) => v;
  const points = (curve, values) => curve.epoch.map((x, i) => ({ x, y: scale(values[i]), seeds: curve.seeds }));
  return groups.flatMap((g) => {
    const [evaluated, trained] = accuracy
      ? [g.curve.eval_accuracy, g.curve.train_accuracy]
      : [g.curve.eval_loss, g.curve.train_loss];
    return [
      line(g, g.rule, points(g.curve, evaluated), { part: "held-out", dash: "solid", sparse: true }),
      line(g, g.rule, points(g.curve, trained), { part: "training", dash: "dot", sparse: true, silent: true }),
    ];
  });
}

const lastEpoch = (g) => Math.max(...g.scores.map((s) => s.epoch));
const scorePoint = (x, s) => ({ x, y: s.score, deviation: s.deviation, seeds: s.seeds });

function scoresByLayer(figure, groups) {
  return groups.flatMap((g) => {
    const last = g.scores.filter((s) => s.epoch === lastEpoch(g));
    const permuted = last.map((s) => ({ x: s.layer, y: s.permuted, seeds: s.seeds }));
    return [
      line(g, g.rule, last.map((s) => scorePoint(s.layer, s)), { part: "score" }),
      line(g, g.rule, permuted, { part: "permuted weights", dash: "dot", silent: true, faint: true }),
    ];
  });
}

function scoresByEpoch(figure, groups, choices) {
  return groups.flatMap((g) => {
    const layers = distinct(g.scores.map((s) => s.layer));
    const shown = layers.filter((layer) => choices.layer === "all" || choices.layer === layer);
    return shown.map((layer) => {
      const own = g.scores.filter((s) => s.layer === layer);
      const dash = shown.length > 1 ? LAYER_DASHES[(layer - 1) % LAYER_DASHES.length] : undefined;
      const points = own.map((s) => scorePoint(s.epoch, s));
      return line(g, `${g.rule}, layer ${layer}`, points, { part: `layer ${layer}`, dash, sparse: true });
    });
  });
}

const FIGURES = [
  bestAlong("width", "network.width", "Best result against width", "Width"),
  bestAlong("lr", LEARNING_RATE, "Best result against learning rate", "Learning rate"),
  bestAlong("points", "data.train_points", "Best result against training points", "Training points"),
  {
    id: "curves", title: "Learning curves", x: null, xTitle: "Epoch", logX: false, logY: false, least: 1,
    caption: "Solid: held-out, dotted: training. Mean over the seeds that completed; over all where none did.",
    subtitle: "solid: held-out, dotted: training",
    fits: (g) => g.curve !== null,
    extra: (groups) => {
      const known = groups.some((g) => g.curve.train_accuracy.some((v) => v !== null));
      return known ? [{ name: "quantity", values: ["loss", "accuracy"], start: "loss" }] : [];
    },
    yTitle: (groups, choices) => (choices.quantity === "accuracy" ? "Accuracy, %" : "Loss"),
    series: curveLines,
  },
  {
    id: "alignment-layers", title: "Alignment by layer", x: null, xTitle: "Layer", logX: false, logY: false, least: 1,
    caption: "Score after the last scored epoch; bars: ± standard deviation over seeds. Dotted: with permuted weights.",
    subtitle: "dotted: permuted weights",
    fits: (g) => g.scores.length > 0,
    yTitle: () => "Alignment score",
    series: scoresByLayer,
    whole: true,
  },
  {
    id: "alignment-time", title: "Alignment over time", x: null, xTitle: "Epoch", logX: false, logY: false, least: 1,
    caption: "Mean over seeds, bars: ± standard deviation.",
    fits: (g) => distinct(g.scores.map((s) => s.epoch)).length > 1,
    extra: (groups) => {
      const layers = distinct(groups.flatMap((g) => g.scores.map((s) => s.layer)));
      const rules = distinct(groups.map((g) => g.rule));
      return [{ name: "layer", values: ["all", ...layers], start: rules.length > 1 ? layers[layers.length - 1] : "all" }];
    },
    yTitle: () => "Alignment score",
    series: scoresByEpoch,
  },
  {
    id: "seconds", title: "Seconds per epoch", x: "network.width", xTitle: "Width", logX: true, logY: true, least: 1,
    caption: "Training and evaluation: each trial's own work, and what it shares with others in full; mean over seeds, bars: ± standard deviation.",
    fits: (g) => g.seconds !== null && typeof g.values["network.width"] === "number",
    yTitle: () => "Seconds per epoch",
    series: (figure, groups) => alongKey(figure, groups, seconds),
  },
];

// The selectors of a figure: keys that differ among its groups, and its own; each starts where most groups are.
function selectors(figure, groups, keys) {
  let left = groups;
  const found = [];
  for (const key of keys.filter((k) => k !== figure.x)) {
    const values = distinct(groups.map((g) => g.values[key]));
    if (values.length < 2) continue;
    if (key === LEARNING_RATE) {
      found.push({ name: key, values: [BEST, ...values], start: BEST });
      continue;
    }
    const start = commonest(left, key, values);
    left = left.filter((g) => g.values[key] === start);
    found.push({ name: key, values, start });
  }
  return found.concat(figure.extra ? figure.extra(groups) : []);
}

// Of values, the one that most groups have; of equals the last.
function commonest(groups, key, values) {
  const count = (value) => groups.filter((g) => g.values[key] === value).length;
  return values.reduce((a, b) => (count(b) >= count(a) ? b : a));
}

const agrees = (g, key, asked) => {
  const own = g.values[key];
  return asked === undefined || asked === BEST || own === null || own === undefined || own === asked;
};

// After one choice, the others where they leave nothing: they take the value that most groups have.
function settle(groups, keys, choices, chosen) {
  let left = groups.filter((g) => agrees(g, chosen, choices[chosen]));
  for (const key of keys.filter((k) => k !== chosen && k in choices)) {
    if (!left.some((g) => agrees(g, key, choices[key]))) {
      const values = distinct(left.map((g) => g.values[key]));
      choices[key] = key === LEARNING_RATE ? BEST : commonest(left, key, values);
    }
    left = left.filter((g) => agrees(g, key, choices[key]));
  }
}

// The groups that the selectors leave. Of several learning rates `best` takes the best, or the first that fits.
function selected(groups, keys, choices) {
  const left = groups.filter((g) => keys.every((key) => agrees(g, key, choices[key])));
  if (choices[LEARNING_RATE] !== BEST) return left;
  const alike = new Map();
  for (const g of left) {
    const others = keys.filter((k) => k !== LEARNING_RATE).map((k) => g.values[k]);
    const id = JSON.stringify([g.rule, others]);
    if (!alike.has(id) || g.chosen) alike.set(id, g);
  }
  return [...alike.values()];
}

// What cannot be drawn because nothing completed: `fa at width 8 (2 diverged)`.
function undrawn(figure, all, drawn, keys, choices) {
  if (figure.x === null) return [];
  const place = (g) => JSON.stringify([g.rule, g.values[figure.x]]);
  const there = new Set(drawn.map(place));
  const empty = selected(all.filter((g) => g.best === null && g.troubles), keys, choices);
  const words = empty.filter((g) => !there.has(place(g))).map((g) => {
    const at = g.values[figure.x];
    const where = at === null || at === undefined ? "" : ` at ${short(figure.x)} ${shownValue(at)}`;
    return `${g.rule}${where} (${g.troubles})`;
  });
  return [...new Set(words)];
}
