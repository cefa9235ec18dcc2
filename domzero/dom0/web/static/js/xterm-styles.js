// SPDX-License-Identifier: Apache-2.0
// xterm.js under a policy of `style-src 'self'`: it writes <style> elements and `style` attributes, which the policy
// refuses. Constructed style sheets and the CSSOM, which scripts may use, do the same; to be imported before xterm.js.

const createElement = Document.prototype.createElement;
const setAttribute = Element.prototype.setAttribute;

/** In the place of a <style>: keeps its rules in a constructed sheet, from when it has text until it is removed. */
function styleElement() {
  const element = createElement.call(document, "meta"); // the policy refuses even an empty <style>
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", {
    get: () => "",
    set: (text) => sheet.replaceSync(text),
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

Document.prototype.createElement = function (name, ...rest) {
  return String(name).toLowerCase() === "style" ? styleElement() : createElement.call(this, name, ...rest);
};

Element.prototype.setAttribute = function (name, value) {
  if (name === "style" && this.style) this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
