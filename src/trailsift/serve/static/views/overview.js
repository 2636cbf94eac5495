// What happened, how much of it was refused, who did it, and what is arriving now.
import { ask } from "../api.js";
import { ActivityChart, chartTable } from "../chart.js";
import { h, replace } from "../dom.js";
import { ago, bytes, count, isoOf, percent, seconds, time } from "../format.js";
import { follow } from "../live.js";
import { asked, change, current, go, link, session, setSession, zone } from "../state.js";
import { t } from "../texts.js";
import { tail } from "../tail.js";
import { bars, choice, delta, into, loading, panel, stat } from "../widgets.js";

const STACKS = ["service", "event", "caller", "account", "region", "resource", "error"];
const LISTS = ["caller", "resource", "event", "network", "error"];
// Seconds between two looks of a page that follows the lake.
const AGAIN = 10;

export async function show(main, signal) {
  const by = STACKS.includes(current().query.get("by")) ? current().query.get("by") : "service";
  const stats = h("dl", { class: "stats" }, loading());
  const chartPlace = h("div", { class: "chart-place" });
  const brush = h("div", { class: "brush", hidden: true });
  const tablePlace = h("div", { hidden: true });
  const lists = h("div", { class: "grid" });
  const feed = h("div");
  const asTable = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    tablePlace.hidden = !tablePlace.hidden;
    asTable.setAttribute("aria-pressed", String(!tablePlace.hidden));
    if (!tablePlace.hidden && data) replace(tablePlace, chartTable(data));
  } }, t("as_table"));
  const tailPlace = h("div");
  replace(main, h("h1", { class: "sr" }, t("view.overview")), stats,
    panel(t("events_over_time"), { wide: true, id: "chart", help: t("events_over_time.help"), actions: [choice(t("split_by"), STACKS.map((name) => [name, t(`by.${name}`)]), by, (chosen) => go(change({ by: chosen }))), asTable] }, chartPlace, brush, tablePlace),
    lists, panel(t("live"), { id: "live", wide: true, help: t("live.help") }, tailPlace));
  const fresh = panel(t("freshness"), { id: "freshness", help: t("freshness.help") }, feed);

  let data = null;
  const chart = new ActivityChart(chartPlace, { onBrush: (stretch) => {
    if (!stretch) { brush.hidden = true; return; }
    const [since, until] = stretch.map((at) => isoOf(new Date(at * 1000)));
    replace(brush, h("span", {}, `${time(since, zone())} – ${time(until, zone())}`),
      h("a", { class: "primary", href: link("explain", { since, until, range: null, from: isoOf(new Date(data.times[0] * 1000)), to: isoOf(new Date((data.times.at(-1) + data.step_seconds) * 1000)) }), "data-link": true }, t("explain_this")),
      h("a", { href: change({ since, until, range: null }), "data-link": true }, t("zoom")),
      h("button", { type: "button", onclick: () => { chart.clear(); brush.hidden = true; } }, t("clear")));
    brush.hidden = false;
  } });

  const load = async () => {
    const found = await ask("activity", asked({ by }), signal);
    data = found;
    chart.draw(found);
    if (!tablePlace.hidden) replace(tablePlace, chartTable(found));
    replace(stats, ...figures(found));
    const total = found.total.events;
    replace(lists, LISTS.map((kind) => panel(t(`top.${kind}`), { help: t(`top.${kind}.help`) },
      kind in found.left_out ? h("p", { class: "empty" }, t("left_out", { names: found.left_out[kind].map((name) => t(`kind.${name}`)).join(", ") }))
        : bars(kind, found.lists[kind] ?? [], { total, groups: found.groups[kind] }))), fresh);
    return total;
  };
  const failedPlace = h("div");
  main.prepend(failedPlace);
  const first = into(failedPlace, async () => { const total = await load(); return total ? [] : h("div", { class: "empty" }, h("p", {}, t("nothing_in_range")), h("a", { href: change({ range: "all", since: null, until: null }), "data-link": true }, t("range.all"))); }, signal);
  into(feed, () => freshness(signal), signal);
  const stopTail = tail(tailPlace);
  let looked = performance.now(), waiting = null;
  // New commits: look again, but not more often than every few seconds.
  const unfollow = follow((kind) => {
    if (kind !== "commit" || waiting || current().query.get("until")) return;
    waiting = setTimeout(async () => {
      waiting = null;
      looked = performance.now();
      try {
        setSession({ ...session, ...(await (await fetch("/api/v1/session", { signal })).json()) });
        await load();
        replace(feed, await freshness(signal));
      } catch { /* the next commit tries again, and the stream says what is wrong */ }
    }, Math.max(500, AGAIN * 1000 - (performance.now() - looked)));
  });
  await first;
  return () => { clearTimeout(waiting); unfollow(); stopTail(); chart.destroy(); };
}

function figures(found) {
  const { total, total_week_before: before } = found;
  const share = total.events ? total.denied / total.events : 0;
  const shareBefore = before && before.events ? before.denied / before.events : null;
  return [
    stat(t("events"), count(total.events), { sub: delta(total.events, before?.events), help: t("events.help") }),
    stat(t("denied"), percent(share), { sub: [t("of_events", { n: count(total.denied) }), shareBefore === null ? null : ` · ${t("was", { share: percent(shareBefore) })}`], help: t("denied.help"), tone: share > 0.02 ? "warn" : null, href: change({ outcome: "denied" }) }),
    stat(t("failed"), percent(total.events ? total.failed / total.events : 0), { sub: t("of_events", { n: count(total.failed) }), help: t("failed.help"), href: change({ outcome: "failed" }) }),
    stat(t("bytes_out"), bytes(total.bytes_out), { sub: delta(total.bytes_out, before?.bytes_out), help: t("bytes_out.help") }),
    stat(t("bytes_in"), bytes(total.bytes_in), { sub: delta(total.bytes_in, before?.bytes_in), help: t("bytes_in.help") }),
    stat(t("callers"), count(found.groups.caller ?? 0), { sub: t("resources_n", { n: count(found.groups.resource ?? 0) }), help: t("callers.help"), href: link("caller") }),
  ];
}

async function freshness(signal) {
  const status = await ask("status", asked({}, { withFilters: false, withRange: false }), signal);
  const { delivery } = status;
  const gaps = status.gaps ?? [];
  const rows = [
    [t("newest_event"), delivery.newest_event_time ? h("time", { datetime: delivery.newest_event_time, title: time(delivery.newest_event_time, zone(), true) }, ago(delivery.newest_event_time)) : "–"],
    [t("newest_delivery"), delivery.newest_delivery_time ? h("time", { datetime: delivery.newest_delivery_time, title: time(delivery.newest_delivery_time, zone(), true) }, ago(delivery.newest_delivery_time)) : t("unknown")],
    [t("behind"), seconds(delivery.lag_seconds)],
    [t("last_commit"), h("time", { datetime: status.committed_at, title: time(status.committed_at, zone(), true) }, ago(status.committed_at))],
    [t("stored_events"), count(status.events)],
    [t("size"), bytes(status.bytes)],
    [t("gaps"), gaps.length ? h("a", { href: link("pipeline"), "data-link": true }, t("gaps_n", { n: count(status.gaps_total ?? gaps.length) })) : t("no_gaps")],
  ];
  return h("dl", { class: "facts" }, rows.map(([name, shown]) => [h("dt", {}, name), h("dd", {}, shown)]));
}
