// Numbers with units, and times in the reader's zone.
import { language, t } from "./texts.js";

const cached = new Map();
function maker(name, make) {
  const key = `${language} ${name}`;
  if (!cached.has(key)) cached.set(key, make());
  return cached.get(key);
}

export const count = (n) => maker("count", () => new Intl.NumberFormat(language)).format(n);
export const short = (n) =>
  Math.abs(n) < 10000 ? count(Math.round(n * 10) / 10)
    : maker("short", () => new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 })).format(n);
export const percent = (share) =>
  maker("percent", () => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 })).format(share);
export const usd = (n) =>
  n === null || n === undefined ? "–"
    : maker("usd", () => new Intl.NumberFormat(language, { style: "currency", currency: "USD", maximumSignificantDigits: 3 })).format(n);

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let place = 0;
  while (n >= 1000 && place < units.length - 1) { n /= 1000; place += 1; }
  return `${maker("bytes", () => new Intl.NumberFormat(language, { maximumSignificantDigits: 3 })).format(n)} ${units[place]}`;
}

export function seconds(n) {
  if (n === null || n === undefined) return "–";
  const steps = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const [size, unit] = steps.find(([size]) => n >= size) ?? [1, "second"];
  const digits = n / size < 10 ? 1 : 0;
  return maker(`in ${unit}${digits}`, () => new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: digits })).format(n / size);
}

function parts(date, zone) {
  const format = maker(`parts ${zone}`, () => new Intl.DateTimeFormat("en-CA", {
    timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  }));
  return Object.fromEntries(format.formatToParts(date).map((part) => [part.type, part.value]));
}

export const toDate = (time) => (time instanceof Date ? time : new Date(typeof time === "number" ? time * 1000 : time));

export function time(moment, zone, withSeconds = false) {
  if (moment === null || moment === undefined) return "–";
  const p = parts(toDate(moment), zone);
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}${withSeconds ? `:${p.second}` : ""}`;
}
export const clock = (moment, zone) => { const p = parts(toDate(moment), zone); return `${p.hour}:${p.minute}:${p.second}`; };
export const dayOf = (moment, zone) => { const p = parts(toDate(moment), zone); return `${p.month}-${p.day}`; };
export const localInput = (moment, zone) => { const p = parts(toDate(moment), zone); return `${p.year}-${p.month}-${p.day}T${p.hour}:${p.minute}`; };

export function ago(moment) {
  const passed = (Date.now() - toDate(moment).getTime()) / 1000;
  const steps = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const [size, unit] = steps.find(([size]) => Math.abs(passed) >= size) ?? [1, "second"];
  return maker("ago", () => new Intl.RelativeTimeFormat(language, { numeric: "auto" })).format(-Math.round(passed / size), unit);
}

export const isoOf = (date) => date.toISOString().replace(".000Z", "Z");

export function shortName(name) {
  if (name === null || name === undefined || name === "") return t("none");
  if (!name.startsWith("arn:")) return name;
  const parts = name.split(":");
  const rest = parts.slice(5).join(":");
  if (parts[2] === "s3") return rest;
  return rest.includes("/") ? rest.slice(rest.indexOf("/") + 1) : rest;
}
