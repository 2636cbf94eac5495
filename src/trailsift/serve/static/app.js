// The frame around all views: navigation, time range, zone, filters, language, colours, the token.
import { h, replace, safe, value } from "./dom.js";
import { localInput, shortName, time } from "./format.js";
import { RANGES, change, current, filters, go, link, range, session, setSession, withoutFilter, zone } from "./state.js";
import { language, loadTexts, t } from "./texts.js";
import { choice, dialog, failed } from "./widgets.js";

// View -> its module, in the order of the navigation. A view without a `link` is reached from others.
const VIEWS = {
  overview: { linked: true },
  findings: { linked: true },
  caller: { linked: true },
  resource: { linked: true },
  cost: { linked: true },
  pipeline: { linked: true },
  sql: { linked: true },
  explain: {},
};
const ZONES = ["UTC", "Asia/Seoul", "Europe/London", "Europe/Berlin", "America/New_York", "America/Los_Angeles"];
let leave = null;
let controller = null;

async function start() {
  addEventListener("popstate", render);
  addEventListener("trailsift:go", render);
  addEventListener("trailsift:token", askForToken);
  document.addEventListener("click", followed);
  document.addEventListener("keydown", shortcut);
  await loadTexts(current().query.get("lang"));
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname + location.search);
    await enter(given);
  }
  await open();
}

async function open() {
  const lang = current().query.get("lang");
  const answer = await fetch(`/api/v1/session${lang ? `?lang=${lang}` : ""}`, { credentials: "same-origin" });
  setSession(await answer.json());
  if (!session.known) { frame(); askForToken(); return; }
  await render();
}

async function enter(token) {
  const answer = await fetch(`/api/v1/session?lang=${language}`, { method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }) });
  return answer.ok ? null : (await answer.json().catch(() => ({}))).error ?? { title: t("error.defect") };
}

function askForToken() {
  if (document.querySelector("dialog.token")) return;
  const field = h("input", { type: "password", autocomplete: "current-password", id: "token", required: true });
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    const error = await enter(field.value);
    if (error) { problem.textContent = error.title; field.select(); return; }
    box.close();
    await open();
  } }, h("label", { htmlFor: "token" }, t("token_label")), field, problem, h("button", { class: "primary" }, t("token_enter")));
  const box = dialog(t("token_title"), form, []);
  box.classList.add("token");
  field.focus();
}

// Links within the page are followed without loading it again.
function followed(event) {
  const anchor = event.target.closest?.("a[data-link]");
  if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
}

function shortcut(event) {
  if (event.target.matches?.("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
  const linked = Object.keys(VIEWS).filter((name) => VIEWS[name].linked);
  const place = "123456789".indexOf(event.key);
  if (place >= 0 && linked[place]) go(link(linked[place]));
  if (event.key === "?") dialog(t("keys"), h("dl", { class: "keys" }, linked.map((name, number) => [h("dt", {}, h("kbd", {}, number + 1)), h("dd", {}, t(`view.${name}`))]), h("dt", {}, h("kbd", {}, "← →")), h("dd", {}, t("keys_chart")), h("dt", {}, h("kbd", {}, "Shift ← →")), h("dd", {}, t("keys_brush"))), [h("button", { onclick: (click) => click.target.closest("dialog").close() }, t("close"))]);
}

async function render() {
  const wanted = current().query.get("lang");
  if (wanted && wanted !== language) await loadTexts(wanted);
  const { view } = current();
  const main = frame();
  controller?.abort();
  leave?.();
  leave = null;
  controller = new AbortController();
  if (session.error) replace(main, failed({ title: session.error.title, message: session.error.message, toDo: session.error.to_do }, () => open()));
  else if (!(view in VIEWS)) replace(main, h("div", { class: "empty" }, h("h1", {}, t("no_such_view")), h("a", { href: link("overview"), "data-link": true }, t("view.overview"))));
  else if (range().wrong) replace(main, failed({ title: t("error.bad_range"), message: "", toDo: t("error.bad_range.to_do") }));
  else {
    const mine = controller;
    try {
      const module = await import(`./views/${view}.js`);
      if (mine.signal.aborted) return;
      leave = (await module.show(main, mine.signal)) ?? null;
    } catch (error) {
      if (mine.signal.aborted) return;
      console.error(error);
      replace(main, failed(error, render));
    }
    if (mine.signal.aborted) { leave?.(); leave = null; }
  }
  document.title = `${t(view in VIEWS ? `view.${view}` : "no_such_view")} · trailsift`;
}

function frame() {
  const { view } = current();
  const main = h("main", { id: "main", tabindex: "-1" });
  const linked = Object.keys(VIEWS).filter((name) => VIEWS[name].linked);
  replace(document.getElementById("app"),
    h("a", { class: "skip", href: "#main" }, t("skip")),
    h("header", { class: "top" },
      h("a", { class: "brand", href: link("overview"), "data-link": true, "aria-label": "trailsift" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), h("b", {}, "trailsift")),
      h("nav", { "aria-label": t("views") }, linked.map((name) => h("a", { href: link(name), "data-link": true, "aria-current": name === view ? "page" : null }, t(`view.${name}`)))),
      h("div", { class: "tools" }, languageSwitch(), themeSwitch())),
    h("div", { class: "bar" }, rangePicker(), chips(), h("span", { class: "lake", title: safe(session.lake ?? "") }, session.redact ? h("b", {}, t("redacted")) : null, h("bdi", {}, safe((session.lake ?? "").split("/").pop())))),
    main);
  return main;
}

function rangePicker() {
  const { since, until, name } = range();
  const names = Object.keys(RANGES).map((one) => [one, t(`range.${one}`)]);
  const options = name === null ? [["", t("range.own")], ...names] : names;
  const own = () => {
    const from = h("input", { type: "datetime-local", id: "from", value: localInput(since, zone()), required: true });
    const to = h("input", { type: "datetime-local", id: "to", value: localInput(until, zone()), required: true });
    const problem = h("p", { class: "problem", role: "alert" });
    const use = () => {
      const [start, end] = [inZone(from.value), inZone(to.value)];
      if (!start || !end || start >= end) { problem.textContent = t("error.bad_range.to_do"); return; }
      box.close();
      go(change({ range: null, since: iso(start), until: iso(end) }));
    };
    const box = dialog(t("range.own_title", { zone: zone() }), h("div", { class: "fields" }, h("label", { htmlFor: "from" }, t("range.from")), from, h("label", { htmlFor: "to" }, t("range.to")), to, problem),
      [h("button", { onclick: () => box.close() }, t("cancel")), h("button", { class: "primary", onclick: use }, t("range.use"))]);
  };
  const zones = [...new Set([zone(), session.timezone ?? "UTC", Intl.DateTimeFormat().resolvedOptions().timeZone, ...ZONES])];
  return h("div", { class: "range" },
    choice(t("range"), options, name ?? "", (chosen) => chosen && go(change({ since: null, until: null, range: chosen }))),
    h("button", { type: "button", class: "span", onclick: own, title: t("range.own_title", { zone: zone() }) }, `${time(since, zone())} – ${time(until, zone())}`),
    choice(t("zone"), zones.map((one) => [one, one]), zone(), (chosen) => go(change({ timezone: chosen }))));
}

const iso = (date) => date.toISOString().replace(".000Z", "Z");

// A time typed without an offset, in the reader's zone: the offset is found by looking at what it would show.
function inZone(text) {
  const asUtc = new Date(`${text}Z`);
  if (isNaN(asUtc)) return null;
  let guess = asUtc;
  for (let round = 0; round < 2; round += 1) guess = new Date(guess.getTime() + (asUtc - new Date(`${localInput(guess, zone())}Z`)));
  return guess;
}

function chips() {
  return h("ul", { class: "chips", "aria-label": t("filters") }, filters().map(([name, one]) => h("li", {}, h("span", {}, t(`kind.${name}`), ": "), one === "" ? h("em", {}, t(`none.${name}`)) : name === "outcome" ? t(`outcome.${one}`) : value(one, shortName(one)),
    h("a", { href: withoutFilter(name, one), "data-link": true, "aria-label": t("remove_filter", { name: t(`kind.${name}`) }) }, "×"))));
}

function languageSwitch() {
  return h("div", { class: "switch", role: "group", "aria-label": t("language") }, [["en", "EN"], ["ko", "한국어"]].map(([code, text]) => h("a", { href: change({ lang: code }), "data-link": true, lang: code, "aria-current": code === language ? "true" : null }, text)));
}

function themeSwitch() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = h("button", { type: "button", class: "theme", "aria-pressed": String(dark()), "aria-label": t("dark"), title: t("dark"), onclick: () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("trailsift.theme", document.documentElement.dataset.theme); } catch { /* it holds for this page */ }
    button.setAttribute("aria-pressed", String(dark()));
    dispatchEvent(new Event("trailsift:theme"));
  } }, "◐");
  return button;
}

start().catch((error) => replace(document.getElementById("app"), failed(error, () => location.reload())));
