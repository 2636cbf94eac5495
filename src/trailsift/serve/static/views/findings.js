// What is unusual, the most important first; one finding with its evidence; a verdict on it.
import { ask, change as post } from "../api.js";
import { h, replace, value } from "../dom.js";
import { time } from "../format.js";
import { asked, change, current, go, link, zone } from "../state.js";
import { language, t } from "../texts.js";
import { callerCell, dialog, empty, into, panel, resourceCell, table } from "../widgets.js";

export async function show(main, signal) {
  const id = current().query.get("id");
  const body = h("div");
  replace(main, h("div", { class: "title" }, h("h1", {}, t(id ? "finding" : "view.findings")), id && h("div", { class: "actions" }, h("a", { class: "button", href: change({ id: null }), "data-link": true }, t("all_findings")))), body);
  await into(body, () => (id ? one(id, signal) : list(signal)), signal);
}

async function list(signal) {
  const muted = current().query.get("muted") === "true";
  const found = await ask("findings", asked({ lang: language, muted }, { withFilters: false }), signal);
  const shown = h("label", { class: "check" }, h("input", { type: "checkbox", checked: muted, onchange: (event) => go(change({ muted: event.target.checked ? "true" : null })) }), t("muted_too"));
  const items = found.findings.map((finding) => h("li", { class: `finding ${finding.severity}` },
    h("span", { class: `severity ${finding.severity}` }, t(`severity.${finding.severity}`)),
    h("div", { class: "what" }, h("a", { href: change({ id: finding.id }), "data-link": true }, value(finding.title)),
      h("p", {}, `${time(finding.first_time, zone())} – ${time(finding.last_time, zone())}`, finding.caller ? [" · ", callerCell()(finding)] : null, finding.resource_arn ? [" · ", resourceCell()(finding)] : null),
      h("ul", {}, finding.reasons.slice(0, 3).map((reason) => h("li", {}, value(reason)))))));
  return [shown, items.length ? h("ol", { class: "findings" }, items) : empty(t("no_findings")),
    found.not_judged.length ? panel(t("not_judged"), {}, h("ul", { class: "notes" }, found.not_judged.map((text) => h("li", {}, value(text))))) : null,
    found.problems.length ? panel(t("detection_problems"), {}, h("ul", { class: "notes" }, found.problems.map((problem) => h("li", {}, value(Object.values(problem).join(": ")))))) : null];
}

async function one(id, signal) {
  const finding = await ask("finding", asked({ id, lang: language, since: null, until: null }, { withFilters: false, withRange: false }), signal);
  const judge = (word) => h("button", { type: "button", onclick: () => verdict(word, finding) }, t(`do.${word}`));
  const around = link("explain", { since: hour(finding.first_time, 0), until: hour(finding.last_time, 1), range: null });
  return [
    h("div", { class: `finding single ${finding.severity}` }, h("span", { class: `severity ${finding.severity}` }, t(`severity.${finding.severity}`)),
      h("div", { class: "what" }, h("h2", {}, value(finding.title)), h("p", {}, `${time(finding.first_time, zone(), true)} – ${time(finding.last_time, zone(), true)}`, finding.caller ? [" · ", callerCell()(finding)] : null),
        finding.meaning ? h("p", {}, value(finding.meaning)) : null, h("ul", {}, finding.reasons.map((reason) => h("li", {}, value(reason)))),
        h("p", { class: "tags" }, Object.entries(finding.technique_names ?? {}).map(([code, name]) => h("span", { title: name }, `${code} ${name}`)))),
      h("div", { class: "actions" }, judge("confirm"), judge("mute"), h("a", { class: "button", href: around, "data-link": true }, t("explain_this")), h("a", { class: "button", href: link("sql", { sql: finding.query }), "data-link": true }, t("all_rows")))),
    panel(t("evidence"), { wide: true, id: "evidence", help: t("evidence.help") }, finding.events.length ? table([
      { name: t("time"), show: (row) => time(row.event_time, zone(), true) }, { name: t("kind.event"), key: "event_name" }, { name: t("kind.resource"), show: resourceCell() },
      { name: t("object_key"), key: "object_key" }, { name: t("source_ip"), key: "source_ip" }, { name: t("client"), key: "user_agent" }, { name: t("kind.error"), key: "error_code" },
    ], finding.events, { caption: t("evidence"), className: "rows" }) : empty(finding.events_removed_before ? t("events_removed", { day: finding.events_removed_before }) : t("no_events_stored"))),
    panel(t("in_summaries"), { wide: true, help: t("in_summaries.help") }, table([
      { name: t("hour"), show: (row) => time(row.hour, zone()) }, { name: t("kind.service"), key: "service" }, { name: t("kind.event"), key: "event_name" }, { name: t("kind.resource"), show: resourceCell() }, { name: t("kind.error"), key: "error_code" }, { name: t("events"), key: "events", number: true },
    ], finding.summary, { caption: t("in_summaries") })),
    finding.next?.length ? panel(t("next_steps"), { wide: true }, h("ul", { class: "steps" }, finding.next.map((step) => h("li", {}, Object.values(step).filter((part) => typeof part === "string").map((part, place) => (place ? h("code", {}, value(part)) : h("p", {}, value(part)))))))) : null,
  ];
}

const hour = (text, add) => new Date((Math.floor(new Date(text) / 3600e3) + add) * 3600e3).toISOString().replace(".000Z", "Z");

function verdict(word, finding) {
  const reason = h("textarea", { id: "reason", required: true, rows: 3, maxlength: 1000 });
  const problem = h("p", { class: "problem", role: "alert" });
  const send = h("button", { class: "primary", type: "button", onclick: async () => {
    if (!reason.value.trim()) { problem.textContent = t("reason_needed"); reason.focus(); return; }
    send.disabled = true;
    try {
      await post(`finding/${word}`, { id: finding.id, reason: reason.value.trim() });
      box.close();
      go(word === "mute" ? change({ id: null }) : change({}));
    } catch (error) { problem.textContent = `${error.title}: ${error.message}`; send.disabled = false; }
  } }, t(`do.${word}`));
  const box = dialog(t(`do.${word}.title`), h("div", { class: "fields" }, h("p", {}, value(finding.title)), h("p", {}, t(`do.${word}.help`)), h("label", { htmlFor: "reason" }, t("reason")), reason, problem), [h("button", { type: "button", onclick: () => box.close() }, t("cancel")), send]);
  reason.focus();
}
