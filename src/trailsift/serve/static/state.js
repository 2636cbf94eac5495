// The page's state is its URL: view, time range, zone, filters, language.
export const FILTERS = ["service", "event", "caller", "resource", "account", "region", "error", "outcome"];
const KEPT = ["since", "until", "range", "timezone", "lang", ...FILTERS];
export const RANGES = { "24h": 24, "7d": 168, "30d": 720, all: null };

export let session = {};
export function setSession(found) { session = found; }

export function current() {
  const url = new URL(location.href);
  const view = url.pathname.split("/")[1] || "overview";
  return { view, query: url.searchParams };
}

export const zone = () => current().query.get("timezone") || session.timezone || "UTC";

// The time range as both ends (Date); without one in the URL, the newest week that the lake has.
export function range() {
  const { query } = current();
  if (query.get("since") && query.get("until")) {
    const [since, until] = [new Date(query.get("since")), new Date(query.get("until"))];
    if (!isNaN(since) && !isNaN(until) && since < until) return { since, until, name: null };
    return { since, until, name: null, wrong: true };
  }
  const name = query.get("range") in RANGES ? query.get("range") : "7d";
  const end = session.until ? new Date(session.until) : new Date();
  const start = session.since ? new Date(session.since) : end;
  const hours = RANGES[name];
  const since = hours === null ? start : new Date(Math.max(end - hours * 3600e3, start));
  return { since, until: end, name };
}

export function filters() {
  const { query } = current();
  return FILTERS.flatMap((name) => query.getAll(name).map((value) => [name, value]));
}

// Parameters of every question to the API: range, zone, filters, language.
export function asked(extra = {}, { withFilters = true, withRange = true } = {}) {
  const params = new URLSearchParams();
  const { since, until } = range();
  if (withRange) {
    params.set("since", iso(since));
    params.set("until", iso(until));
    params.set("timezone", zone());
  }
  if (withFilters) for (const [name, value] of filters()) params.append(name, value);
  const lang = current().query.get("lang");
  if (lang) params.set("lang", lang);
  for (const [name, value] of Object.entries(extra)) if (value !== null && value !== undefined) params.set(name, value);
  return params;
}

const iso = (date) => (isNaN(date) ? String(current().query.get("since")) : date.toISOString().replace(".000Z", "Z"));

// A link to a view that keeps the state; `changes`: name -> value, null removes, an array repeats.
export function link(view, changes = {}) {
  const params = new URLSearchParams();
  const { query } = current();
  for (const name of KEPT) if (!(name in changes)) for (const value of query.getAll(name)) params.append(name, value);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) params.append(name, one);
  }
  const text = params.toString();
  return `/${view}${text ? `?${text}` : ""}`;
}

// The same view with other parameters, those of the view itself kept.
export function change(changes) {
  const { view, query } = current();
  const own = {};
  for (const name of new Set(query.keys())) if (!KEPT.includes(name) && !(name in changes)) own[name] = query.getAll(name);
  return link(view, { ...own, ...changes });
}

export function withFilter(name, value) {
  const { query } = current();
  const values = query.getAll(name);
  return change({ [name]: values.includes(value) ? values : [...values, value] });
}

export function withoutFilter(name, value) {
  const values = current().query.getAll(name).filter((one) => one !== value);
  return change({ [name]: values.length ? values : null });
}

export function go(href, { replaced = false } = {}) {
  history[replaced ? "replaceState" : "pushState"](null, "", href);
  dispatchEvent(new Event("trailsift:go"));
}
