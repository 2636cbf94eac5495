// Elements, and texts from logs made harmless. Nothing here or elsewhere parses HTML: texts are text nodes.

const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "className", "tabIndex", "hidden", "htmlFor", "type"]);

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, props, children);
  return element;
}

export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, props, children);
  return element;
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "class") element.setAttribute("class", value);
    else if (PROPERTIES.has(name) && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

// What steers a line of text, or cannot be seen: controls, directions, zero-width signs, fillers, tags.
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0]/gu;
const LONGEST = 2000;

export function safe(text) {
  const cut = String(text);
  return (cut.length > LONGEST ? cut.slice(0, LONGEST) + "…" : cut).replace(UNSAFE, (sign) => {
    const code = sign.codePointAt(0);
    return code < 0x10000 ? "\\u" + code.toString(16).padStart(4, "0") : "\\u{" + code.toString(16) + "}";
  });
}

// A value of a log: isolated, so that its direction does not change what stands around it; whole on hover.
export function value(text, shown = text, props = {}) {
  if (text === null || text === undefined || text === "") return h("span", { class: "none" }, "–");
  const full = safe(text);
  return h("bdi", { title: full, ...props }, safe(shown));
}
