// What fills the log, what a trail charges for it, and what could be left out.
import { ask } from "../api.js";
import { h, replace, safe, value } from "../dom.js";
import { count, percent, shortName, usd } from "../format.js";
import { asked } from "../state.js";
import { t } from "../texts.js";
import { callerCell, empty, hrefOf, into, panel, resourceCell, stat, table } from "../widgets.js";

const KINDS = ["caller", "resource", "event", "pattern"];
const NAMES = { caller: ["caller"], resource: ["resource_arn"], event: ["service", "event_name"], pattern: ["resource_arn", "key_pattern"] };

export async function show(main, signal) {
  const body = h("div"), suggested = h("div");
  replace(main, h("div", { class: "title" }, h("h1", {}, t("view.cost")), h("p", {}, t("cost.says"))), body, suggested);
  await Promise.all([into(body, () => charges(signal), signal), into(suggested, () => suggestions(signal), signal)]);
}

async function charges(signal) {
  const found = await ask("cost", asked({ limit: 12 }, { withFilters: false }), signal);
  if (!found.events) return empty(t("nothing_charged"));
  const twice = found.paid_twice;
  return [
    h("dl", { class: "stats" }, stat(t("usd_a_month"), usd(found.usd_a_month), { sub: t("days_n", { n: count(found.days) }), help: t("usd_a_month.help", { price: usd(found.price.usd), date: found.price.date ?? "" }) }),
      stat(t("charged_events"), count(found.events), { sub: t("charged_events.sub") }),
      stat(t("avoidable"), usd(found.avoidable.usd), { sub: t("avoidable.sub", { n: count(found.avoidable.events) }), help: t("avoidable.help") }),
      stat(t("paid_twice"), count(twice.network_activity + twice.duplicates), { help: t("paid_twice.help") })),
    h("div", { class: "grid two" }, KINDS.filter((kind) => found.groups[kind]?.lines.length).map((kind) => panel(t(`fills.${kind}`), { help: t("whole_days") }, list(kind, found.groups[kind])))),
  ];
}

function list(kind, group) {
  const most = Math.max(...group.lines.map((line) => line.events), 1);
  return h("ol", { class: "bars" }, group.lines.map((line) => {
    const [first, second] = NAMES[kind].map((name) => line[name]);
    const name = second ?? first;
    const href = kind === "pattern" ? (first ? hrefOf("resource", first) : null) : hrefOf(kind, name);
    const shown = name ? value(name, shortName(name)) : h("em", {}, t("none"));
    return h("li", {}, h("span", { class: "fill", style: { width: `${(100 * line.events) / most}%` }, "aria-hidden": "true" }),
      href ? h("a", { class: "name", href, "data-link": true }, shown) : h("span", { class: "name" }, shown),
      h("span", { class: "number", title: t("events") }, count(line.events)), h("span", { class: "share" }, percent(line.share)), h("span", { class: "usd", title: t("usd_a_month") }, usd(line.usd_a_month)));
  }), group.groups > group.lines.length ? h("li", { class: "more" }, t("and_more", { n: count(group.groups - group.lines.length) })) : null);
}

async function suggestions(signal) {
  const found = await ask("suggestions", asked({ limit: 10 }, { withFilters: false, withRange: false }), signal);
  const lines = found.lines ?? found.suggestions ?? [];
  return panel(t("suggestions"), { wide: true, help: t("suggestions.help") }, lines.length ? table([
    { name: t("kind.caller"), show: callerCell() }, { name: t("kind.event"), key: "event_name" }, { name: t("kind.resource"), show: resourceCell() }, { name: t("pattern"), key: "key_pattern" },
    { name: t("events"), key: "events", number: true }, { name: t("share"), number: true, show: (row) => percent(row.share) }, { name: t("usd_a_month"), number: true, show: (row) => usd(row.usd_trail) },
  ], lines, { caption: t("suggestions") }) : empty(t("no_suggestions")),
  lines.length ? h("details", {}, h("summary", {}, t("as_rules")), h("pre", { tabindex: "0" }, found.toml.slice(0, 20000).split("\n").map((line) => `${safe(line)}\n`))) : null);
}
