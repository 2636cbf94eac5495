// The live tail: the newest events as they are committed, their rate, and a pause.
import { h, replace, value } from "./dom.js";
import { clock, count, shortName } from "./format.js";
import { connection, follow } from "./live.js";
import { link, zone } from "./state.js";
import { t } from "./texts.js";

const ROWS = 40, WINDOW = 60_000;

export function tail(place) {
  const list = h("ol", { class: "tail", "aria-live": "off", tabindex: "0", "aria-label": t("live") });
  const rate = h("b", { class: "rate" }, "–");
  const state = h("span", { class: "connection", role: "status" });
  const missed = h("span", { class: "quiet" });
  const arrived = [];
  let paused = false, held = [], heldEvents = 0, skipped = 0;
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? t("go_on") : t("pause");
    if (!paused) { add(held); held = []; heldEvents = 0; told(); }
  } }, t("pause"));

  function told() {
    missed.textContent = paused && heldEvents ? t("held", { n: count(heldEvents) }) : skipped ? t("skipped", { n: count(skipped) }) : "";
  }
  function connected() {
    state.textContent = t(`connection.${connection}`);
    state.dataset.state = connection;
  }
  function add(rows) {
    const made = rows.slice(0, ROWS).map(line);
    if (made.length) list.querySelector(".empty")?.remove();
    list.prepend(...made);
    while (list.childElementCount > ROWS) list.lastElementChild.remove();
  }
  function measure() {
    const now = performance.now();
    while (arrived.length && now - arrived[0][0] > WINDOW) arrived.shift();
    const events = arrived.reduce((sum, [, number]) => sum + number, 0);
    rate.textContent = t("rate", { n: count(Math.round((events / (WINDOW / 1000)) * 10) / 10) });
  }

  let first = true;
  const unfollow = follow((kind, data) => {
    if (kind === "connection") { connected(); return; }
    if (kind !== "commit") { missed.textContent = data.message ?? ""; return; }
    // What was there before the page was opened has not arrived now.
    if (!first) { arrived.push([performance.now(), data.stored]); skipped += data.skipped; }
    first = false;
    if (paused) { held = [...data.rows, ...held].slice(0, ROWS); heldEvents += data.stored; }
    else add(data.rows);
    list.dataset.commit = data.commit;
    told();
    measure();
  });
  const ticking = setInterval(measure, 1000);
  list.append(h("li", { class: "empty" }, t("live_empty")));
  connected();
  measure();
  replace(place, h("div", { class: "tail-head" }, rate, state, missed, pause), list);
  return () => { clearInterval(ticking); unfollow(); };
}

function line(row) {
  return h("li", { class: row.error_code ? "error" : null },
    h("time", { datetime: row.event_time, title: row.event_time }, clock(row.event_time, zone())),
    h("b", {}, value(row.event_name)),
    row.caller ? h("a", { href: link("caller", { name: row.caller }), "data-link": true }, value(row.caller, shortName(row.caller))) : h("em", {}, t("none.caller")),
    h("span", { class: "what" }, value(row.resource_arn, shortName(row.resource_arn ?? "")), row.object_key ? [" / ", value(row.object_key)] : null),
    row.error_code ? h("span", { class: "code" }, value(row.error_code)) : null);
}
