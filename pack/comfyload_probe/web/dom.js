// Elements, made and kept up to date without markup: whatever a server sends becomes text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name, then children. A child that is a string becomes text. */
export function h(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children);
  return element;
}

/** Set an attribute where it differs; null takes it off. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value))
    element.setAttribute(name, value === true ? "" : String(value));
}

/** Set custom properties of CSS, one by one: a style attribute is what a strict content policy refuses. */
export function paint(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    const text = String(value);
    if (element.style.getPropertyValue(name) !== text) element.style.setProperty(name, text);
  }
}

/** Write text where it differs, so that a selection in it survives. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, shown) {
  element.hidden = !shown;
}

/** One child for each item, in order, made once for each key: focus, selection and what is unfolded stay. */
export function each(parent, items, key, make, update) {
  const old = parent.kept ?? new Map();
  parent.kept = new Map();
  items.forEach((item, at) => {
    let name = String(key(item, at));
    while (parent.kept.has(name)) name += "'";
    const part = old.get(name) ?? make(item);
    parent.kept.set(name, part);
    update(part, item);
    const here = parent.children[at] ?? null;
    if (here !== part.root) parent.insertBefore(part.root, here);
  });
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}
