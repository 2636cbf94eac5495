// Parts that several views have.
import { append, h, replace, safe, svg, value } from "./dom.js";
import { bytes, count, percent, shortName } from "./format.js";
import { link, withFilter } from "./state.js";
import { language, t } from "./texts.js";

export function panel(title, { help, actions, wide, id } = {}, ...body) {
  const name = `panel-${id ?? Math.random().toString(36).slice(2)}`;
  return h("section", { class: `panel${wide ? " wide" : ""}`, "aria-labelledby": name, id },
    h("header", {}, h("h2", { id: name }, title, help && hint(help)), actions && h("div", { class: "actions" }, actions)),
    ...body);
}

// An explanation on hover and on focus.
export function hint(text) {
  return h("button", { class: "hint", type: "button", "aria-label": text, "data-tip": text }, "?");
}

export const loading = () => h("div", { class: "loading", role: "status" }, h("span", { class: "sr" }, t("loading")),
  ...[90, 70, 80].map((width) => h("i", { style: { width: `${width}%` } })));

export const empty = (text, ...more) => h("div", { class: "empty" }, h("p", {}, text), ...more);

export function failed(error, again) {
  return h("div", { class: "failed", role: "alert" },
    h("strong", {}, error.title ?? t("error.defect")),
    h("p", { class: "detail" }, safe(error.message ?? "")),
    h("p", {}, error.toDo ?? t("error.defect.to_do")),
    again && h("button", { type: "button", onclick: again }, t("again")));
}

// Show what `work` makes in `place`: first that it loads, then it, or what failed.
export async function into(place, work, signal) {
  const started = setTimeout(() => place.childElementCount || replace(place, loading()), 120);
  place.setAttribute("aria-busy", "true");
  try {
    const made = await work();
    if (!signal?.aborted) replace(place, made);
  } catch (error) {
    if (error.name !== "AbortError" && !signal?.aborted) {
      if (!error.code) console.error(error);
      replace(place, failed(error, () => into(place, work, signal)));
    }
  } finally {
    clearTimeout(started);
    place.removeAttribute("aria-busy");
  }
}

export function stat(label, shown, { sub, help, tone, href } = {}) {
  const number = href ? h("a", { href, "data-link": true }, shown) : shown;
  return h("div", { class: `stat${tone ? ` ${tone}` : ""}` }, h("dt", {}, label, help && hint(help)), h("dd", {}, number), sub && h("dd", { class: "sub" }, sub));
}

// The change against the week before, in words for who does not see the colour.
export function delta(now, before) {
  if (before === null || before === undefined) return h("span", { class: "quiet" }, t("no_week_before"));
  if (!before) return h("span", { class: "quiet" }, now ? t("new_this_week") : t("same_as_week_before"));
  const factor = now / before;
  const text = factor > 1.995 ? `×${count(Math.round(factor * 10) / 10)}` : `${factor >= 1 ? "+" : "−"}${percent(Math.abs(factor - 1))}`;
  return h("span", { class: Math.abs(factor - 1) < 0.02 ? "quiet" : factor > 1 ? "up" : "down" }, `${text} ${t("against_week_before")}`);
}

// Where a name of a kind leads to: its own view, or the filter.
export function hrefOf(kind, name) {
  if (kind === "caller" && name) return link("caller", { name });
  if (kind === "resource" && name) return link("resource", { name });
  if (kind === "network") return name ? sqlLink(`SELECT caller, sum(events) AS events, sum(denied) AS denied FROM access WHERE source_network = ${sqlText(name)} GROUP BY 1 ORDER BY 2 DESC`) : null;
  return withFilter(kind, name ?? "");
}

export const sqlText = (text) => `'${String(text).replaceAll("'", "''")}'`;
export const sqlLink = (sql) => link("sql", { sql });

// A list with bars: [{name, events, denied?, before?}].
export function bars(kind, lines, { total, measure = "events", shown = count, groups } = {}) {
  if (!lines.length) return empty(t("nothing_here"));
  const most = Math.max(...lines.map((line) => line[measure] ?? 0), 1);
  const list = h("ol", { class: "bars" });
  for (const line of lines) {
    const href = hrefOf(kind, line.name);
    const name = line.name === null || line.name === "" ? h("em", {}, t(`none.${kind}`)) : value(line.name, shortName(line.name));
    const width = (100 * (line[measure] ?? 0)) / most;
    list.append(h("li", {},
      h("span", { class: "fill", style: { width: `${width}%` }, "aria-hidden": "true" }),
      href ? h("a", { class: "name", href, "data-link": true }, name) : h("span", { class: "name" }, name),
      line.denied ? h("span", { class: "denied", title: t("denied_count", { n: count(line.denied) }) }, t("denied_short", { n: count(line.denied) })) : null,
      h("span", { class: "number" }, shown(line[measure] ?? 0)),
      total ? h("span", { class: "share" }, percent((line[measure] ?? 0) / total)) : null));
  }
  if (groups && groups > lines.length) list.append(h("li", { class: "more" }, t("and_more", { n: count(groups - lines.length) })));
  return list;
}

// A table: columns [{name, key | show(row), number}], its rows as many as there are.
export function table(columns, rows, { caption, className } = {}) {
  if (!rows.length) return empty(t("nothing_here"));
  return h("div", { class: `scroll ${className ?? ""}`, tabindex: "0", role: "region", "aria-label": caption ?? t("table") },
    h("table", {}, caption && h("caption", { class: "sr" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.number ? "number" : null }, column.name, column.help && hint(column.help))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => h("td", { class: column.number ? "number" : null },
        column.show ? column.show(row) : column.number ? count(row[column.key] ?? 0) : value(row[column.key]))))))));
}

export const callerCell = (key = "caller") => (row) =>
  row[key] ? h("a", { href: link("caller", { name: row[key] }), "data-link": true }, value(row[key], shortName(row[key]))) : h("em", {}, t("none.caller"));
export const resourceCell = (key = "resource_arn") => (row) =>
  row[key] ? h("a", { href: link("resource", { name: row[key] }), "data-link": true }, value(row[key], shortName(row[key]))) : "–";
export const bytesCell = (key) => (row) => bytes(row[key] ?? 0);

// Events by weekday (Monday first) and hour of the day.
export function heat(grid, label) {
  const most = Math.max(1, ...grid.flat());
  const days = [...Array(7).keys()].map((day) => new Intl.DateTimeFormat(language, { weekday: "short", timeZone: "UTC" }).format(new Date(Date.UTC(2024, 0, 1 + day))));
  const head = h("tr", {}, h("td", {}), [...Array(24).keys()].map((hour) => h("th", { scope: "col" }, hour % 3 ? h("span", { class: "sr" }, hour) : hour)));
  const body = grid.map((row, day) => h("tr", {}, h("th", { scope: "row" }, days[day]), row.map((events, hour) =>
    h("td", { class: "cell", title: t("heat_cell", { day: days[day], hour, n: count(events) }), style: { "--level": events ? 0.12 + 0.88 * Math.sqrt(events / most) : 0 } }, h("span", { class: "sr" }, events)))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", { class: "heat" }, h("caption", { class: "sr" }, label), h("thead", {}, head), h("tbody", {}, body)));
}

// A small line without axes.
export function spark(values, label) {
  const most = Math.max(1, ...values);
  const points = values.map((one, place) => `${(100 * place) / Math.max(1, values.length - 1)},${30 - (28 * one) / most}`).join(" ");
  return svg("svg", { class: "spark", viewBox: "0 0 100 32", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("polyline", { points, fill: "none", "vector-effect": "non-scaling-stroke" }));
}

export function choice(label, options, chosen, onchange) {
  const select = h("select", { onchange: (event) => onchange(event.target.value), "aria-label": label });
  append(select, options.map(([name, text]) => h("option", { value: name, selected: name === chosen }, text)));
  return select;
}

export function dialog(title, body, buttons) {
  const box = h("dialog", { "aria-label": title }, h("h2", {}, title), body, h("div", { class: "buttons" }, buttons));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}
