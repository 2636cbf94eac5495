// Events over time: stacked bars, the same hours a week before as a line, a brush, and the same as a table.
import { h, replace, safe } from "./dom.js";
import { count, dayOf, short, shortName, time } from "./format.js";
import { zone } from "./state.js";
import { t } from "./texts.js";

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { series: [1, 2, 3, 4, 5, 6, 7].map((n) => read(`--series-${n}`)), rest: read("--series-rest"), ghost: read("--ghost"), axis: read("--quiet"), grid: read("--grid") };
};

export const nameOf = (series, kind) => (series.rest ? t("rest") : series.name === null ? t(`none.${kind}`) : shortName(series.name));

// data: an answer of /activity. onBrush(since, until) in seconds, or null.
export class ActivityChart {
  constructor(place, { onBrush, height = 260 }) {
    this.place = place;
    this.onBrush = onBrush;
    this.height = height;
    this.canvas = h("div", { class: "chart", tabindex: "0", role: "application", "aria-roledescription": t("chart"), onkeydown: (event) => this.key(event) });
    this.tip = h("div", { class: "tip", hidden: true });
    this.legend = h("ul", { class: "legend" });
    this.said = h("p", { class: "sr", role: "status" });
    replace(place, this.canvas, this.legend, this.said);
    this.canvas.append(this.tip);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.canvas);
    this.onTheme = () => this.data && this.draw(this.data);
    addEventListener("trailsift:theme", this.onTheme);
  }

  destroy() {
    this.observer.disconnect();
    removeEventListener("trailsift:theme", this.onTheme);
    this.plot?.destroy();
    this.plot = null;
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
  }

  draw(data) {
    this.data = data;
    const palette = colours();
    const kind = data.by;
    const times = data.times;
    const step = data.step_seconds;
    // Stacked from below: the largest first. Drawn from the top of the stack down, each over what is above it.
    const sums = [];
    let below = times.map(() => 0);
    for (const series of data.series) {
      below = below.map((sum, place) => sum + series.events[place]);
      sums.push(below);
    }
    const colour = (place) => (data.series[place].rest ? palette.rest : palette.series[place % 7]);
    const order = [...data.series.keys()].reverse();
    const bars = uPlot.paths.bars({ size: [0.86, 64], align: 1, gap: 0 });
    const series = [{}, ...order.map((place) => ({ label: nameOf(data.series[place], kind), fill: colour(place), stroke: colour(place), width: 0, paths: bars, points: { show: false } }))];
    const columns = [times, ...order.map((place) => sums[place])];
    if (data.week_before) {
      series.push({ label: t("week_before"), stroke: palette.ghost, width: 1.5, dash: [5, 4], points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) });
      columns.push(data.week_before);
    }
    const zoneName = zone();
    const options = {
      width: this.canvas.clientWidth || 600,
      height: this.height,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zoneName),
      padding: [10, 26, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false }, y: false },
      select: { show: true },
      scales: { x: { time: true, range: () => [times[0], times.at(-1) + step] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.06)] } },
      axes: [
        { stroke: palette.axis, grid: { show: false }, ticks: { stroke: palette.grid, size: 4 }, values: axisValues, space: 70 },
        { stroke: palette.axis, grid: { stroke: palette.grid, width: 1 }, ticks: { show: false }, size: 56, values: (_, ticks) => ticks.map(short) },
      ],
      series,
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)], setSelect: [(plot) => this.brushed(plot)] },
    };
    this.plot?.destroy();
    this.plot = times.length ? new uPlot(options, columns, this.canvas) : null;
    this.canvas.setAttribute("aria-label", t("chart_says", { from: time(times[0], zoneName), to: time((times.at(-1) ?? 0) + step, zoneName) }));
    replace(this.legend, data.series.map((one, place) => h("li", {}, h("i", { style: { background: colour(place) } }), safe(nameOf(one, kind)))),
      data.week_before && h("li", {}, h("i", { class: "dashed" }), t("week_before")));
    this.at = null;
  }

  // What is at a step, beside the pointer.
  point(place) {
    const data = this.data;
    if (place === null || place === undefined || !data.times.length) { this.tip.hidden = true; return; }
    const total = data.series.reduce((sum, one) => sum + one.events[place], 0);
    const lines = data.series.map((one, number) => [one, number]).filter(([one]) => one.events[place]);
    replace(this.tip, h("strong", {}, time(data.times[place], zone())),
      lines.map(([one, number]) => h("div", {}, h("i", { style: { background: one.rest ? "var(--series-rest)" : `var(--series-${number % 7 + 1})` } }), h("span", {}, safe(nameOf(one, data.by)).slice(0, 48)), h("b", {}, count(one.events[place])))),
      h("div", { class: "sum" }, h("span", {}, t("events")), h("b", {}, count(total))),
      data.denied[place] ? h("div", { class: "sum" }, h("span", {}, t("denied")), h("b", {}, count(data.denied[place]))) : null,
      data.week_before ? h("div", { class: "sum" }, h("span", {}, t("week_before")), h("b", {}, count(data.week_before[place]))) : null);
    this.tip.hidden = false;
    const left = this.plot.valToPos(data.times[place], "x") + this.plot.bbox.left / devicePixelRatio;
    const room = this.canvas.clientWidth;
    this.tip.style.left = `${left > room / 2 ? Math.max(0, left - this.tip.offsetWidth - 16) : Math.min(left + 28, room - this.tip.offsetWidth)}px`;
  }

  brushed(plot) {
    const { left, width } = plot.select;
    if (width < 3) { this.onBrush(null); return; }
    const step = this.data.step_seconds;
    const snap = (position) => {
      const seconds = plot.posToVal(position, "x");
      const place = this.data.times.findLastIndex((start) => start <= seconds);
      return Math.max(0, place);
    };
    const from = snap(left), to = Math.max(snap(left + width - 0.5), from);
    this.onBrush([this.data.times[from], this.data.times[to] + step]);
  }

  select(from, to) {
    const left = this.plot.valToPos(this.data.times[from], "x");
    const right = this.plot.valToPos(this.data.times[to] + this.data.step_seconds, "x");
    this.plot.setSelect({ left, width: Math.max(4, right - left), top: 0, height: this.plot.bbox.height / devicePixelRatio }, true);
  }

  clear() {
    this.plot?.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.anchor = null;
  }

  // Arrows move, with Shift they select, Escape clears.
  key(event) {
    const times = this.data?.times ?? [];
    if (!times.length || !this.plot) return;
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -times.length, End: times.length };
    if (event.key === "Escape") { this.clear(); this.onBrush(null); return; }
    if (!(event.key in moves)) return;
    event.preventDefault();
    const before = this.at ?? (event.key === "ArrowLeft" ? times.length : -1);
    this.at = Math.min(times.length - 1, Math.max(0, before + moves[event.key]));
    const left = this.plot.valToPos(times[this.at], "x");
    this.plot.setCursor({ left: left + 1, top: 10 });
    if (event.shiftKey) {
      this.anchor ??= Math.min(times.length - 1, Math.max(0, before));
      this.select(Math.min(this.anchor, this.at), Math.max(this.anchor, this.at));
    } else this.anchor = null;
    const total = this.data.series.reduce((sum, one) => sum + one.events[this.at], 0);
    this.said.textContent = t("chart_at", { time: time(times[this.at], zone()), n: count(total) });
  }
}

function axisValues(_, ticks, __, ___, step) {
  const name = zone();
  let last = "";
  return ticks.map((tick) => {
    const day = dayOf(tick, name);
    const text = step >= 86400 ? day : day === last ? time(tick, name).slice(11) : `${time(tick, name).slice(11)}\n${day}`;
    last = day;
    return text;
  });
}

export function chartTable(data) {
  const shown = data.times.map((start, place) => [start, data.series.reduce((sum, one) => sum + one.events[place], 0), place]).filter(([, total]) => total);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("as_table") }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("time")), data.series.map((one) => h("th", { scope: "col", class: "number" }, safe(nameOf(one, data.by)))), h("th", { scope: "col", class: "number" }, t("events")))),
    h("tbody", {}, shown.map(([start, total, place]) => h("tr", {}, h("td", {}, time(start, zone())), data.series.map((one) => h("td", { class: "number" }, count(one.events[place]))), h("td", { class: "number" }, count(total)))))));
}
