// How the logs come in: counts that add up, how far the lake is behind, gaps, what could not be stored, commits.
import { ask } from "../api.js";
import { h, replace, value } from "../dom.js";
import { ago, bytes, count, seconds, time } from "../format.js";
import { follow } from "../live.js";
import { asked, zone } from "../state.js";
import { t } from "../texts.js";
import { bytesCell, empty, into, panel, stat, table } from "../widgets.js";

export async function show(main, signal) {
  const body = h("div"), rejected = h("div");
  replace(main, h("div", { class: "title" }, h("h1", {}, t("view.pipeline"))), body, rejected);
  const load = () => into(body, () => state(signal), signal);
  let waiting = null;
  const unfollow = follow((kind) => { if (kind === "commit") waiting ??= setTimeout(() => { waiting = null; load(); }, 5000); });
  await Promise.all([load(), into(rejected, () => rejects(signal), signal)]);
  return () => { clearTimeout(waiting); unfollow(); };
}

async function state(signal) {
  const found = await ask("status", asked({}, { withFilters: false, withRange: false }), signal);
  const { totals } = found;
  const dropped = Object.values(totals.dropped ?? {}).reduce((sum, one) => sum + one, 0);
  const parts = [["stored", totals.stored], ["dropped", dropped], ["duplicates", totals.duplicates], ["malformed", totals.malformed]];
  const late = found.delivery.lag_seconds;
  return [
    h("dl", { class: "stats" }, stat(t("records_read"), count(totals.records), { sub: t("log_objects_n", { n: count(totals.log_objects) }), help: t("records_read.help") }),
      stat(t("adds_up"), found.reconciled ? t("yes") : t("no"), { tone: found.reconciled ? "good" : "warn", help: t("adds_up.help") }),
      stat(t("behind"), seconds(late), { sub: found.delivery.newest_delivery_time ? time(found.delivery.newest_delivery_time, zone()) : t("newest_event"), help: t("behind.help") }),
      stat(t("commits"), count(found.commits), { sub: ago(found.committed_at) }),
      stat(t("size"), bytes(found.bytes), { sub: t("stored_n", { n: count(found.events) }) })),
    found.to_do.length ? panel(t("to_do"), { wide: true }, h("ul", { class: "steps" }, found.to_do.map((one) => h("li", {}, h("p", {}, value(one.why)), h("code", {}, value(one.command)))))) : null,
    h("div", { class: "grid two" },
      panel(t("where_records_went"), { help: t("adds_up.help") }, sum(parts, totals.records)),
      panel(t("gaps"), { help: t("gaps.help") }, (found.gaps ?? []).length ? table([{ name: t("from"), show: (row) => time(row.first_time, zone()) }, { name: t("to"), show: (row) => time(row.end_time, zone()) }, { name: t("feeds"), key: "feeds", number: true }, { name: t("usual_per_hour"), key: "usual_events_per_hour", number: true }], found.gaps, { caption: t("gaps") }) : empty(t("no_gaps"))),
      panel(t("latest_commits"), {}, table([{ name: "#", key: "commit", number: true }, { name: t("time"), show: (row) => time(row.committed_at, zone(), true) }, { name: t("what"), show: (row) => t(`commit.${row.kind}`) }, { name: t("records_read"), key: "records", number: true }, { name: t("part.stored"), key: "stored", number: true }], found.latest_commits, { caption: t("latest_commits") })),
      panel(t("tables"), {}, table([{ name: t("table"), key: "name" }, { name: t("rows"), key: "rows", number: true }, { name: t("files"), key: "files", number: true }, { name: t("size"), number: true, show: bytesCell("bytes") }, { name: t("last_event"), show: (row) => time(row.last_time, zone()) }], found.tables, { caption: t("tables") }))),
  ];
}

function sum(parts, total) {
  const most = Math.max(total, 1);
  return h("ol", { class: "bars" }, parts.map(([name, number]) => h("li", {}, h("span", { class: "fill", style: { width: `${(100 * number) / most}%` } }), h("span", { class: "name" }, t(`part.${name}`)), h("span", { class: "number" }, count(number)))), h("li", { class: "total" }, h("span", { class: "name" }, t("records_read")), h("span", { class: "number" }, count(total))));
}

async function rejects(signal) {
  const found = await ask("rejects", asked({ limit: 50 }, { withFilters: false, withRange: false }), signal);
  const rows = found.rejects ?? found.lines ?? found.rows ?? [];
  return panel(t("rejects"), { wide: true, help: t("rejects.help") }, rows.length ? table([{ name: t("time"), show: (row) => time(row.ingested_at, zone()) }, { name: t("reason"), key: "reason" }, { name: t("log_object"), key: "log_object" }, { name: t("position"), key: "position", number: true }], rows, { caption: t("rejects") }) : empty(t("no_rejects")));
}
