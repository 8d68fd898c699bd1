"use strict";
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const byId = id => document.getElementById(id);

// A click on the head of a column sorts the bodies of its table, a second one the other way round, and a third
// one brings the first order back.
function sortable(table) {
  const bodies = [...table.tBodies];
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = {none: "ascending", ascending: "descending"}[head.ariaSort ?? "none"];
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.ariaSort = order;
      const sorted = order ? bodies.toSorted(by(column, order)) : bodies;
      sorted.forEach(body => table.insertBefore(body, table.tFoot));
    });
  });
}

function by(column, order) {
  const key = body => body.rows[0].cells[column]?.textContent.trim() ?? "";
  const isEmpty = text => ["", "-", "missing"].includes(text);
  const number = text => /^[-+]?\d/.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN;
  return (one, other) => {
    const [a, b] = [key(one), key(other)];
    if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
    const difference = number(a) - number(b);
    const sign = order === "ascending" ? 1 : -1;
    return sign * (Number.isNaN(difference) ? a.localeCompare(b, "en", {numeric: true}) : difference);
  };
}

// The filters hide bodies; the counts below a table are of all its rows, so they go too.
function filter(form) {
  const chosen = all("select", form).filter(select => select.value);
  const differs = body => chosen.some(select => body.dataset[select.name] !== select.value);
  const bodies = all("tbody[data-dataset]");
  bodies.forEach(body => { body.hidden = differs(body); });
  all("tfoot").forEach(foot => { foot.hidden = chosen.length > 0; });
  all("table").forEach(table => {
    table.classList.toggle("none", table.tBodies.length > 0 && [...table.tBodies].every(body => body.hidden));
  });
  const left = bodies.filter(body => !body.hidden).length;
  byId("left").textContent = chosen.length ? `${left} of ${bodies.length} lines` : "";
}

// What a link points to is shown, also where it is folded.
function openTarget() {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target?.scrollIntoView();
}

// The diagram. The ECE is in hundredths of a percent; shares, confidences and accuracies of the bins are
// thousandths, in two digits to the base of 36 each.
function decoded(bins) {
  const numbers = bins.match(/../g).map(digits => parseInt(digits, 36));
  const size = numbers.length / 3;
  return [numbers.slice(0, size), numbers.slice(size, 2 * size), numbers.slice(2 * size)];
}

function node(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

function panel(label, [xLabel, yLabel], x, y, xTicks, yTicks) {
  const svg = node(byId("drawing"), "svg", {viewBox: "0 0 360 300", role: "img", "aria-label": label});
  node(svg, "path", {d: "M44 20V256H350", class: "axis"});
  const unit = value => String(Number(value.toPrecision(2)));
  xTicks.forEach(tick => node(svg, "text", {x: x(tick), y: 272, class: "middle"}, unit(tick)));
  yTicks.forEach(tick => node(svg, "text", {x: 38, y: y(tick) + 4, class: "end"}, unit(tick)));
  node(svg, "text", {x: 197, y: 292, class: "middle"}, xLabel);
  node(svg, "text", {x: 4, y: 12}, yLabel);
  return svg;
}

function drawReliability(bins) {
  const [shares, confidences, accuracies] = decoded(bins);
  const [x, y] = [share => 44 + 306 * share, share => 256 - 236 * share];
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const width = Math.max(306 / shares.length - 2, 0.5);
  const bound = i => Number((i / shares.length).toFixed(3));
  const svg = panel("Reliability diagram", ["Confidence", "Accuracy"], x, y, ticks, ticks);
  shares.forEach((share, i) => {
    if (!share && !confidences[i]) return;
    const [confidence, accuracy] = [confidences[i] / 1000, accuracies[i] / 1000];
    const left = x(i / shares.length) + 1;
    const bin = node(svg, "g", {class: share < 10 ? "faint" : ""});
    node(bin, "title", {}, `Confidence ${bound(i)} to ${bound(i + 1)}, mean ${confidence}: accuracy ${accuracy}, `
      + `${share / 10} % of the predictions`);
    const low = Math.min(confidence, accuracy);
    const between = 236 * Math.abs(confidence - accuracy);
    node(bin, "rect", {x: left, y: y(accuracy), width, height: 236 * accuracy, class: "bar"});
    node(bin, "rect", {x: left, y: y(low) - between, width, height: between, class: "gap"});
    node(bin, "path", {d: `M${left} ${y(confidence)}h${width}`, class: "confidence"});
  });
  node(svg, "path", {d: "M44 256L350 20", class: "diagonal"});
}

function drawCurve(temperatures, ece, t, methods) {
  const last = temperatures.length - 1;
  const [low, high] = [Math.log(temperatures[0]), Math.log(temperatures[last])];
  const top = Math.max(...ece) / 100;
  const x = value => 44 + 306 * (Math.log(value) - low) / (high - low);
  const y = value => 256 - 150 * value / top;
  const svg = panel("ECE by temperature", ["T", "ECE in %"], x, y, [0.25, 0.5, 1, 2, 4], [0, top / 2, top]);
  node(svg, "path", {d: "M" + ece.map((value, i) => `${x(temperatures[i])} ${y(value / 100)}`).join("L"), class: "curve"});
  if (t >= temperatures[0] && t <= temperatures[last]) node(svg, "path", {d: `M${x(t)} 20V256`, class: "now"});
  const inside = methods.filter(method => method.t >= temperatures[0] && method.t <= temperatures[last]);
  inside.toSorted((a, b) => a.t - b.t).forEach((method, i) => {
    const [at, label] = [x(method.t), 30 + 12 * (i % 6)];
    node(svg, "path", {d: `M${at} ${label + 2}V${y(method.ece / 100)}`, class: "leader"});
    node(svg, "circle", {cx: at, cy: y(method.ece / 100), r: 3.5, class: "method"});
    node(svg, "text", {x: at > 260 ? at - 3 : at + 3, y: label, class: at > 260 ? "end" : ""}, method.title);
  });
}

function explorer(sweeps) {
  const [rows, choice, slider] = [byId("of-row"), byId("of-method"), byId("t")];
  const percent = ece => `${(ece / 100).toFixed(1)} %`;
  let isMoved = false;
  function chooseRow() {
    const before = choice.value;
    const {methods} = sweeps[rows.value];
    choice.replaceChildren(...Object.entries(methods).map(([key, method]) => new Option(method.title, key)));
    choice.value = before in methods ? before : Object.keys(methods)[0];
    chooseMethod();
  }
  function chooseMethod() {
    isMoved = false;
    const {sweep, methods} = sweeps[rows.value];
    slider.disabled = !sweep?.groups[methods[choice.value].group];
    if (!slider.disabled) {
      const distances = sweep.t.map(t => Math.abs(Math.log(t / methods[choice.value].t)));
      slider.max = sweep.t.length - 1;
      slider.value = distances.indexOf(Math.min(...distances));
    }
    draw();
  }
  function draw() {
    const {networks, images, methods, sweep} = sweeps[rows.value];
    const method = methods[choice.value];
    const group = sweep?.groups[method.group];
    const i = Number(slider.value);
    const now = isMoved ? {t: sweep.t[i], ece: group.ece[i], bins: group.bins[i]} : method;
    byId("drawing").replaceChildren();
    drawReliability(now.bins);
    const sameNetworks = Object.values(methods).filter(other => other.group === method.group);
    if (group) drawCurve(sweep.t, group.ece, now.t, sameNetworks);
    byId("of-t").textContent = now.t.toFixed(2);
    slider.ariaValueText = `T = ${now.t.toFixed(2)}`;
    const what = isMoved ? `the networks of ${method.title}` : method.title;
    byId("said").textContent = `ECE ${percent(now.ece)} at T = ${now.t.toFixed(2)}: ${what}, mean of ${networks} networks on `
      + `${images.toLocaleString("en")} test images (Raw ${percent(methods.raw.ece)}).`
      + (group ? "" : " The results of this row have no other temperatures.");
  }
  rows.addEventListener("change", chooseRow);
  choice.addEventListener("change", chooseMethod);
  slider.addEventListener("input", () => { isMoved = true; draw(); });
  chooseRow();
}

all("table").filter(table => table.tHead).forEach(sortable);
all("form").forEach(form => {
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
});
if (byId("filters")) byId("filters").addEventListener("change", () => filter(byId("filters")));
if (byId("sweeps")) explorer(JSON.parse(byId("sweeps").textContent));
addEventListener("hashchange", openTarget);
openTarget();
