// The catalogue of texts in the reader's language.
let texts = {};
export let language = "en";

export async function loadTexts(wanted) {
  const answer = await fetch(`/api/v1/texts${wanted ? `?lang=${wanted}` : ""}`);
  texts = await answer.json();
  language = texts["language.code"] ?? "en";
  document.documentElement.lang = language;
}

export function t(name, values = {}) {
  const text = texts[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

export const has = (name) => name in texts;
