// All resources, or one: who reads, writes, deletes and lists it, and from where.
import { ask } from "../api.js";
import { h, replace, value } from "../dom.js";
import { bytes, count, percent, shortName, time } from "../format.js";
import { asked, current, link, zone } from "../state.js";
import { language, t } from "../texts.js";
import { bytesCell, callerCell, empty, findingsAbout, heat, into, panel, resourceCell, stat, table } from "../widgets.js";

export async function show(main, signal) {
  const name = current().query.get("name");
  const body = h("div");
  replace(main, h("div", { class: "title" }, h("h1", {}, name ? value(name, shortName(name)) : t("view.resource")), name && h("p", { class: "full" }, value(name)),
    name && h("div", { class: "actions" }, h("a", { class: "button", href: link("overview", { resource: name }), "data-link": true }, t("over_time")), h("a", { class: "button", href: link("resource"), "data-link": true }, t("all_resources")))), body);
  await into(body, () => (name ? one(name, signal) : all(signal)), signal);
}

async function all(signal) {
  const found = await ask("summary", asked({ by: "resource", limit: 500 }, { withFilters: false }), signal);
  const rows = (found.lines ?? []).filter((row) => row.resource_arn);
  return rows.length ? table([
    { name: t("kind.resource"), show: resourceCell() }, { name: t("events"), key: "events", number: true }, { name: t("denied"), key: "denied", number: true }, { name: t("errors"), key: "errors", number: true },
    { name: t("addresses"), key: "source_ips", number: true }, { name: t("object_keys"), key: "object_keys", number: true }, { name: t("bytes_out"), number: true, show: bytesCell("bytes_out") }, { name: t("last_seen"), show: (row) => time(row.last_time, zone()) },
  ], rows, { caption: t("view.resource"), className: "tall" }) : empty(t("nothing_in_range"));
}

async function one(name, signal) {
  const found = await ask("resource", asked({ name }, { withFilters: false }), signal);
  const kinds = found.kinds ?? [];
  const sum = (key) => kinds.reduce((total, row) => total + (row[key] ?? 0), 0);
  const total = found.events || 1;
  return [
    h("p", { class: "notes" }, t("whole_days")),
    h("dl", { class: "stats" }, stat(t("events"), count(found.events), { sub: found.copies ? t("copies_n", { n: count(found.copies) }) : null, href: link("overview", { resource: found.resource_arn }) }),
      stat(t("denied"), percent(sum("denied") / total), { sub: t("of_events", { n: count(sum("denied")) }), help: t("denied.help") }),
      stat(t("callers"), count(found.callers.length), { sub: t("networks_n", { n: count(found.networks.length) }) }),
      stat(t("bytes_out"), bytes(sum("bytes_out")), { sub: t("bytes_in_n", { n: bytes(sum("bytes_in")) }), help: t("bytes_out.help") })),
    findingsAbout(() => ask("findings", asked({ lang: language }, { withFilters: false }), signal), (finding) => finding.resource_arn === found.resource_arn, signal),
    h("div", { class: "grid two" },
      panel(t("kinds_of_use"), { help: t("kinds_of_use.help") }, table([{ name: t("use"), show: (row) => t(`use.${row.kind}`) }, { name: t("events"), key: "events", number: true }, { name: t("denied"), key: "denied", number: true }, { name: t("callers"), key: "callers", number: true }, { name: t("bytes_out"), number: true, show: bytesCell("bytes_out") }], kinds, { caption: t("kinds_of_use") })),
      found.hours?.length ? panel(t("heat"), { help: t("heat.help", { zone: zone() }) }, heat(grid(found.hours), t("heat"))) : null,
      panel(t("callers"), {}, table([{ name: t("kind.caller"), show: callerCell() }, { name: t("events"), key: "events", number: true }, { name: t("use.read"), key: "reads", number: true }, { name: t("use.write"), key: "writes", number: true }, { name: t("use.delete"), key: "deletes", number: true }, { name: t("denied"), key: "denied", number: true }], found.callers, { caption: t("callers") })),
      panel(t("origin.source_network"), { help: t("by_day.help") }, table([{ name: t("origin.source_network"), key: "source_network" }, { name: t("events"), key: "events", number: true }, { name: t("denied"), key: "denied", number: true }, { name: t("callers"), key: "callers", number: true }, { name: t("first_seen"), show: (row) => time(row.first_time, zone()) }], found.networks, { caption: t("origin.source_network") })),
      panel(t("patterns"), { help: t("patterns.help") }, table([{ name: t("pattern"), key: "key_pattern" }, { name: t("events"), key: "events", number: true }, { name: t("callers"), key: "callers", number: true }], found.key_patterns ?? found.patterns ?? [], { caption: t("patterns") })),
      found.firsts?.length ? panel(t("firsts"), { help: t("firsts.help") }, table([{ name: t("first_seen"), show: (row) => time(row.first_time, zone()) }, { name: t("what"), show: (row) => value(row.value, shortName(row.value ?? "")) }, { name: t("events"), key: "events", number: true }], found.firsts, { caption: t("firsts") })) : null),
  ];
}

function grid(hours) {
  const cells = [...Array(7)].map(() => Array(24).fill(0));
  const format = new Intl.DateTimeFormat("en-US", { timeZone: zone(), weekday: "short", hour: "numeric", hourCycle: "h23" });
  const days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
  for (const row of hours) {
    const parts = Object.fromEntries(format.formatToParts(new Date(row.hour)).map((part) => [part.type, part.value]));
    cells[days.indexOf(parts.weekday)][Number(parts.hour)] += row.events;
  }
  return cells;
}
