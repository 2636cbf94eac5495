// All callers, or one: what it does, where, when, from where, and what it was refused.
import { ask } from "../api.js";
import { h, replace, value } from "../dom.js";
import { bytes, count, percent, shortName, time } from "../format.js";
import { asked, current, link, zone } from "../state.js";
import { language, t } from "../texts.js";
import { bytesCell, callerCell, empty, findingsAbout, heat, into, panel, resourceCell, sqlText, stat, table } from "../widgets.js";

export async function show(main, signal) {
  const name = current().query.get("name");
  const body = h("div");
  replace(main, h("div", { class: "title" }, h("h1", {}, name ? value(name, shortName(name)) : t("view.caller")), name && h("p", { class: "full" }, value(name)),
    name && h("div", { class: "actions" }, h("a", { class: "button", href: link("overview", { caller: name }), "data-link": true }, t("over_time")), h("a", { class: "button", href: link("caller"), "data-link": true }, t("all_callers")))), body);
  await into(body, () => (name ? one(name, signal) : all(signal)), signal);
}

async function all(signal) {
  const found = await ask("callers", asked({}, { withFilters: false }), signal);
  return found.callers.length ? table([
    { name: t("kind.caller"), show: callerCell() }, { name: t("events"), key: "events", number: true }, { name: t("share"), number: true, show: (row) => percent(row.share) },
    { name: t("denied"), key: "denied", number: true }, { name: t("services"), show: (row) => value(row.services.join(", ")) }, { name: t("resources"), key: "resources", number: true },
    { name: t("bytes_out"), number: true, show: bytesCell("bytes_out") }, { name: t("last_seen"), show: (row) => time(row.last_time, zone()) },
  ], found.callers, { caption: t("view.caller"), className: "tall" }) : empty(t("nothing_in_range"));
}

async function one(name, signal) {
  const params = asked({ name }, { withFilters: false });
  const found = await ask("caller", params, signal);
  const origins = Map.groupBy ? Map.groupBy(found.origins, (row) => row.dimension) : group(found.origins);
  const rows = `SELECT event_time, event_name, resource_arn, object_key, source_ip, user_agent, error_code, event_id FROM events WHERE caller = ${sqlText(found.caller)} AND event_time >= TIMESTAMPTZ '${params.get("since")}' AND event_time < TIMESTAMPTZ '${params.get("until")}' ORDER BY event_time DESC LIMIT 1000`;
  const total = found.events || 1;
  return [
    h("dl", { class: "stats" }, stat(t("events"), count(found.events), { sub: t("share_of_all", { share: percent(found.share) }), href: link("sql", { sql: rows }) }),
      stat(t("denied"), percent(found.denied / total), { sub: t("of_events", { n: count(found.denied) }), help: t("denied.help"), tone: found.denied / total > 0.05 ? "warn" : null }),
      stat(t("resources"), count(found.resources.length), { sub: t("actions_n", { n: count(found.actions.length) }) }),
      stat(t("bytes_out"), bytes(found.actions.reduce((sum, row) => sum + row.bytes_out, 0)), { help: t("bytes_out.help") })),
    findingsAbout(() => ask("findings", asked({ lang: language }, { withFilters: false }), signal), (finding) => finding.callers.includes(found.caller), signal),
    h("div", { class: "grid two" },
      panel(t("heat"), { help: t("heat.help", { zone: zone() }), id: "heat" }, heat(found.weekday_hours.monday_first, t("heat"))),
      panel(t("actions"), { help: t("actions.help") }, table([{ name: t("kind.event"), key: "event_name" }, { name: t("kind.service"), key: "service" }, { name: t("events"), key: "events", number: true }, { name: t("errors"), key: "errors", number: true }, { name: t("denied"), key: "denied", number: true }], found.actions, { caption: t("actions") })),
      panel(t("resources"), {}, table([{ name: t("kind.resource"), show: resourceCell() }, { name: t("events"), key: "events", number: true }, { name: t("writes"), key: "writes", number: true }, { name: t("object_keys"), key: "object_keys", number: true }, { name: t("denied"), key: "denied", number: true }], found.resources, { caption: t("resources") })),
      panel(t("patterns"), { help: t("patterns.help") }, table([{ name: t("pattern"), key: "key_pattern" }, { name: t("kind.resource"), show: resourceCell() }, { name: t("events"), key: "events", number: true }], found.key_patterns, { caption: t("patterns") })),
      ...[...origins].map(([dimension, list]) => panel(t(`origin.${dimension}`), { help: t("by_day.help") }, table([{ name: t(`origin.${dimension}`), key: "value" }, { name: t("events"), key: "events", number: true }, { name: t("denied"), key: "denied", number: true }, { name: t("first_seen"), show: (row) => time(row.first_time, zone()) }, { name: t("last_seen"), show: (row) => time(row.last_time, zone()) }], list, { caption: t(`origin.${dimension}`) }))),
      found.refused.length ? panel(t("refused"), { help: t("denied.help") }, table([{ name: t("kind.event"), key: "event_name" }, { name: t("kind.resource"), show: resourceCell() }, { name: t("kind.error"), key: "error_code" }, { name: t("events"), key: "events", number: true }, { name: t("last_seen"), show: (row) => time(row.last_time, zone()) }], found.refused, { caption: t("refused") })) : null),
  ];
}

function group(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.dimension, [...(found.get(row.dimension) ?? []), row]);
  return found;
}
