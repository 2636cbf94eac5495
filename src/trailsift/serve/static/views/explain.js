// What is different in a stretch of time: the values that explain it, ranked.
import { ask } from "../api.js";
import { h, replace, value } from "../dom.js";
import { count, percent, shortName, time } from "../format.js";
import { asked, change, current, go, link, range, withFilter, zone } from "../state.js";
import { t } from "../texts.js";
import { choice, empty, into, panel, stat } from "../widgets.js";

export async function show(main, signal) {
  const { query } = current();
  const against = query.get("against") === "weeks" ? "weeks" : "before";
  const body = h("div");
  const { since, until } = range();
  const back = query.get("from") && query.get("to") ? link("overview", { since: query.get("from"), until: query.get("to") }) : link("overview");
  replace(main, h("div", { class: "title" }, h("h1", {}, t("explain_title")), h("p", {}, `${time(since, zone())} – ${time(until, zone())}`),
    h("div", { class: "actions" }, choice(t("compare_with"), ["before", "weeks"].map((name) => [name, t(`against.${name}`)]), against, (chosen) => go(change({ against: chosen }))),
      h("a", { class: "button", href: back, "data-link": true }, t("back_to_overview")), h("a", { class: "button", href: link("overview"), "data-link": true }, t("zoom")))), body);
  await into(body, async () => page(await ask("explain", asked({ against }), signal)), signal);
}

function page(found) {
  const expected = found.expected_events;
  const factor = expected ? found.events / expected : null;
  const stats = h("dl", { class: "stats" },
    stat(t("events_in_stretch"), count(found.events), { sub: t("hours_n", { n: count(found.hours[0]) }) }),
    stat(t("expected"), expected === null ? "–" : count(Math.round(expected)), { sub: t(`against.${found.against}`), help: t("expected.help") }),
    stat(t("factor"), factor === null ? "–" : `×${count(Math.round(factor * 100) / 100)}`, { sub: factor === null ? "" : factor > 1.1 ? t("more_than_usual") : factor < 0.9 ? t("less_than_usual") : t("about_usual") }));
  if (!found.compared_with.length) return [stats, empty(t("nothing_to_compare"))];
  const notes = [t("explain_days", { n: count(found.days[0]) })];
  for (const [name, missing] of Object.entries(found.left_out)) notes.push(t("explain_left_out", { name: t(`dimension.${name}`), filters: missing.map((one) => t(`kind.${one}`)).join(", ") }));
  const list = found.differences.length ? h("ol", { class: "differences" }, found.differences.map(difference)) : empty(t("no_difference"));
  return [stats, panel(t("what_explains"), { wide: true, id: "differences", help: t("explain_help") }, list, h("ul", { class: "notes" }, notes.map((note) => h("li", {}, note))))];
}

const LINKS = { caller: (names) => link("caller", { name: names[0] }), resource: (names) => link("resource", { name: names[0] }), event: (names) => withFilter("event", names[1] ?? ""), error: (names) => withFilter("error", names[0] ?? "") };

function difference(one) {
  const most = Math.max(one.share, one.share_before, 0.001);
  const last = one.names.at(-1);
  const name = last === null ? h("em", {}, t(one.dimension === "error" ? "none.error" : "none")) : value(last, shortName(last));
  const href = last !== null && LINKS[one.dimension]?.(one.names);
  const bar = (share, side) => h("div", { class: `side ${side}` }, h("i", { style: { width: `${(100 * share) / most}%` } }));
  return h("li", { class: `difference ${one.kind}` },
    h("div", { class: "what" }, h("span", { class: "dimension" }, t(`dimension.${one.dimension}`)), href ? h("a", { href, "data-link": true }, name) : name,
      one.names.length > 1 && one.names[0] ? h("small", {}, value(one.names[0], shortName(one.names[0]))) : null),
    h("span", { class: `kind ${one.kind}` }, t(`difference.${one.kind}`)),
    h("div", { class: "sides" },
      h("span", { class: "label" }, t("now")), bar(one.share, "now"), h("span", { class: "number" }, t("n_and_share", { n: count(one.now), share: percent(one.share) })),
      h("span", { class: "label" }, t("before")), bar(one.share_before, "before"), h("span", { class: "number", title: t("before_in_all", { n: count(one.before) }) }, t("n_and_share", { n: count(Math.round(one.expected)), share: percent(one.share_before) }))),
    h("div", { class: "moved" }, h("b", {}, percent(one.moved)), h("small", {}, one.by_day ? t("moved_by_day") : t("moved"))));
}
