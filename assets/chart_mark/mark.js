// What is selected in a chart, drawn into it while the chart itself stays as it is; and what is clicked in it.
//
// Places are in the chart's own numbers and its own axes find them, after every plot: so the mark stands right in a
// page that is resized, in full screen and in another theme. It lies inside the chart's picture; what has something to
// say of itself is pointed at, nothing takes a click.

const SVG = "http://www.w3.org/2000/svg";
const OUTLINES = {
  circle: (r) => `M${r},0A${r},${r} 0 1,1 0,${-r}A${r},${r} 0 0,1 ${r},0Z`,
  diamond: (r) => `M${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0L0,${-1.3 * r}Z`, // as wide as plotly's
};
const LEAST_BELOW = 0.3; // of a letter's size, between its line and what stands below it

function add(parent, name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// A group of ours in one of the chart's layers, empty.
function emptied(chart, layer) {
  const place = chart.querySelector(`.main-svg > ${layer}`);
  place?.querySelector(":scope > .patchbay-mark")?.remove();
  return place && add(place, "g", { class: "patchbay-mark", "pointer-events": "none" });
}

function along(axis, value) {
  const at = axis.d2p(value);
  return at > -1 && at < axis._length + 1 ? axis._offset + at : null;
}

function paint(chart, data) {
  const { xaxis, yaxis, font } = chart._fullLayout;
  const below = emptied(chart, ".layer-below");
  const above = emptied(chart, ".layer-above");
  if (!below || !above || !xaxis || !yaxis) return;
  const top = yaxis._offset;
  for (const { x, colour, width } of data.lines) {
    const at = along(xaxis, x);
    if (at === null) continue;
    const ends = { x1: at, x2: at, y1: top, y2: top + yaxis._length };
    add(below, "line", { ...ends, stroke: colour, "stroke-width": width, "data-x": x });
  }
  for (const { from, to, colour, width } of data.ways) {
    const [x1, x2, y1, y2] = [from[0], to[0]].map((x) => along(xaxis, x)).concat([from[1], to[1]].map((y) => along(yaxis, y)));
    if ([x1, x2, y1, y2].includes(null)) continue;
    add(below, "line", { x1, x2, y1, y2, stroke: colour, "stroke-width": width });
  }
  for (const { x, y, colour, size, width, symbol, said } of data.dots) {
    const [cx, cy] = [along(xaxis, x), along(yaxis, y)];
    if (cx === null || cy === null) continue;
    const look = { fill: symbol.endsWith("-open") ? "none" : colour, stroke: colour, "stroke-width": width };
    const outline = (OUTLINES[symbol.replace("-open", "")] ?? OUTLINES.circle)(size / 2);
    const dot = add(above, "path", { d: outline, transform: `translate(${cx},${cy})`, ...look, "data-x": x, "data-y": y });
    if (!said) continue;
    dot.setAttribute("pointer-events", "all");
    add(dot, "title", {}).textContent = said;
  }
  for (const { x0, x1, y0, y1, colour, width } of data.frames) {
    const [left, right] = [x0, x1].map((x) => xaxis._offset + xaxis.d2p(x)).sort((a, b) => a - b);
    const [upper, lower] = [y0, y1].map((y) => yaxis._offset + yaxis.d2p(y)).sort((a, b) => a - b);
    const frame = { x: left, y: upper, width: right - left, height: lower - upper, fill: "none" };
    add(above, "rect", { ...frame, stroke: colour, "stroke-width": width, "data-x": (x0 + x1) / 2, "data-y": (y0 + y1) / 2 });
  }
  for (const { x, text, size, up } of data.names) {
    const at = along(xaxis, x);
    if (at === null) continue;
    const style = `font-family: ${font.family}; font-size: ${size}px; font-weight: 700`;
    const place = { x: at, y: top - up - LEAST_BELOW * size, "text-anchor": "middle", style };
    add(above, "text", { class: "annotation-text", ...place }).textContent = text;
  }
}

class Mark {
  constructor() {
    this.chart = null;
    this.mounts = 0;
    this.plotted = () => this.chart?._fullLayout && paint(this.chart, this.data);
    this.clicked = (event) =>
      this.data.takes && this.tell("clicked", event.points.map(({ customdata }) => [...(customdata ?? [])]));
    this.observer = new MutationObserver(() => this.find());
  }

  show(data, tell, block) {
    const before = JSON.stringify(this.data);
    [this.data, this.tell] = [data, tell];
    if (this.block !== block) {
      this.observer.disconnect();
      this.observer.observe(block, { childList: true, subtree: true });
      this.block = block;
    }
    if (!this.find() && before !== JSON.stringify(data)) this.plotted();
  }

  // Take hold of the chart once it is plotted, or of the one that has taken its place; whether it is another one.
  find() {
    if (this.chart?.isConnected && this.chart.parentElement === this.place) return false;
    this.leave();
    const chart = [...document.querySelectorAll(`.st-key-${CSS.escape(this.data.of)} .js-plotly-plot`)].at(-1);
    if (!chart?._fullLayout?.xaxis?.d2p || !chart.on || !chart.querySelector(".layer-above")) return false;
    [this.chart, this.place] = [chart, chart.parentElement];
    chart.on("plotly_afterplot", this.plotted);
    chart.on("plotly_click", this.clicked);
    this.plotted();
    return true;
  }

  leave() {
    this.chart?.removeListener?.("plotly_afterplot", this.plotted);
    this.chart?.removeListener?.("plotly_click", this.clicked);
    for (const drawn of this.chart?.querySelectorAll(".patchbay-mark") ?? []) drawn.remove();
    this.chart = null;
  }
}

const marks = new WeakMap();

export default function mount({ data, parentElement, setTriggerValue }) {
  if (!marks.has(parentElement)) marks.set(parentElement, new Mark());
  const mark = marks.get(parentElement);
  mark.mounts += 1;
  const mounted = mark.mounts;
  mark.show(data, setTriggerValue, parentElement.closest(`.st-key-${CSS.escape(data.key)}`).parentElement);
  return () => {
    if (mark.mounts !== mounted) return; // a later mount has taken its place
    mark.observer.disconnect();
    mark.leave();
    marks.delete(parentElement);
  };
}
