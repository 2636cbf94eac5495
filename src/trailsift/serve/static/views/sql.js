// SQL over the lake: an editor, the tables beside it, a grid, and files to download. The statement is in the URL.
import { ask } from "../api.js";
import { h, replace, safe, value } from "../dom.js";
import { count, seconds } from "../format.js";
import { asked, change, current, go, session } from "../state.js";
import { t } from "../texts.js";
import { empty, into, panel } from "../widgets.js";

const FIRST = "SELECT service, event_name, sum(events) AS events\nFROM hourly\nGROUP BY ALL\nORDER BY events DESC\nLIMIT 20";

export async function show(main, signal) {
  const sql = current().query.get("sql");
  const field = h("textarea", { id: "sql", rows: 7, spellcheck: "false", autocomplete: "off", "aria-label": t("statement"), onkeydown: (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  } });
  field.value = sql ?? FIRST;
  const result = h("div"), tables = h("div");
  const run = () => (field.value.trim() === sql ? load() : go(change({ sql: field.value.trim() })));
  const load = () => into(result, () => rows(sql, signal), signal);
  replace(main, h("h1", { class: "sr" }, t("view.sql")),
    h("div", { class: "sql" },
      h("div", { class: "editor" }, field, h("div", { class: "actions" }, h("button", { type: "button", class: "primary", id: "run", onclick: run }, t("run")), h("span", { class: "quiet" }, t("run_key"))), result),
      panel(t("tables"), { id: "tables" }, tables)));
  if (session.redact) replace(result, empty(t("sql_redacted")));
  else if (sql) load();
  else replace(result, empty(t("sql_first")));
  await into(tables, () => schema(field, signal), signal);
}

async function rows(sql, signal) {
  const found = await ask("query", asked({ sql, limit: 1000 }, { withFilters: false, withRange: false }), signal);
  const files = h("p", { class: "files" }, t("download"), ["csv", "parquet", "json", "arrow"].map((format) => h("a", { href: `/api/v1/query?${asked({ sql, format, limit: 1000000 }, { withFilters: false, withRange: false })}`, download: `trailsift.${format}` }, format.toUpperCase())));
  if (!found.rows.length) return [empty(t("no_rows")), found.why_empty ? h("p", { class: "notes" }, safe(found.why_empty)) : null];
  const numeric = found.columns.map((column) => /INT|DOUBLE|FLOAT|DECIMAL/.test(column.type) && !column.type.endsWith("]"));
  const cell = (one) => (one === null ? h("span", { class: "none" }, "–") : typeof one === "number" ? count(one) : typeof one === "string" ? value(one, one.length > 200 ? `${one.slice(0, 200)}…` : one) : value(JSON.stringify(one)));
  return [h("p", { class: "said", role: "status" }, t(found.more ? "rows_first" : "rows_n", { n: count(found.rows.length), time: seconds(found.seconds) })), files,
    h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": t("result") }, h("table", { class: "rows" },
      h("thead", {}, h("tr", {}, found.columns.map((column, place) => h("th", { scope: "col", title: column.type, class: numeric[place] ? "number" : null }, safe(column.name))))),
      h("tbody", {}, found.rows.map((row) => h("tr", {}, row.map((one, place) => h("td", { class: numeric[place] ? "number" : null }, cell(one))))))))];
}

async function schema(field, signal) {
  const found = await ask("tables", asked({}, { withFilters: false, withRange: false }), signal);
  const put = (text) => { field.setRangeText(text, field.selectionStart, field.selectionEnd, "end"); field.focus(); };
  return found.tables.map((one) => h("details", {}, h("summary", {}, h("b", {}, one.name)), h("p", {}, one.says),
    h("ul", { class: "columns" }, one.columns.map((column) => h("li", {}, h("button", { type: "button", title: `${column.type}: ${column.says}`, onclick: () => put(column.name) }, column.name), h("small", {}, column.type))))));
}
