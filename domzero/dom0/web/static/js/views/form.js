// SPDX-License-Identifier: Apache-2.0
// Parts of forms.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ApiError, ROLES } from "../api.js";
import { say } from "../dialog.js";
import { refresh } from "../store.js";

/** A labelled input. `options`: type, value, required, hint, min, max, error, and whatever else an input has. */
export function field(name, label, { type = "text", hint, error, value = "", required = false, ...rest } = {}) {
  const described = [hint ? `${name}-hint` : "", error ? `${name}-error` : ""].filter(Boolean).join(" ");
  return html`<div class="field">
    <label for=${name}>${label}</label>
    <input
      id=${name}
      name=${name}
      type=${type}
      .defaultValue=${String(value)}
      ?required=${required}
      min=${rest.min ?? nothing}
      max=${rest.max ?? nothing}
      maxlength=${rest.maxlength ?? nothing}
      list=${rest.list ?? nothing}
      placeholder=${rest.placeholder ?? nothing}
      autocomplete="off"
      spellcheck="false"
      aria-describedby=${described || nothing}
      aria-invalid=${error ? "true" : nothing}
    />
    ${hint ? html`<p class="hint" id="${name}-hint">${hint}</p>` : nothing}
    ${error ? html`<p class="error" id="${name}-error">${error}</p>` : nothing}
  </div>`;
}

export function checkbox(name, label, { checked = false, hint } = {}) {
  return html`<div class="field check">
    <input id=${name} name=${name} type="checkbox" .defaultChecked=${checked} aria-describedby=${hint ? `${name}-hint` : nothing} />
    <label for=${name}>${label}</label>
    ${hint ? html`<p class="hint" id="${name}-hint">${hint}</p>` : nothing}
  </div>`;
}

/** A labelled choice of `options`: [[value, name]]. */
export function choice(name, label, options, chosen = "") {
  return html`<div class="field">
    <label for=${name}>${label}</label>
    <select id=${name} name=${name}>
      ${options.map(([value, text]) => html`<option value=${value} ?selected=${value === chosen}>${text}</option>`)}
    </select>
  </div>`;
}

/** A choice of a role for everything. */
export function roleChoice(name, label, chosen) {
  return choice(name, label, [["", "only what is granted"], ...ROLES.map((role) => [role, role])], chosen || "");
}

/** A labelled field for lines of text. */
export function textarea(name, label, { hint, error } = {}) {
  return html`<div class="field wide">
    <label for=${name}>${label}</label>
    <textarea id=${name} name=${name} rows="2" spellcheck="false" aria-describedby="${name}-hint"></textarea>
    <p class="hint" id="${name}-hint">${hint}</p>
    ${error ? html`<p class="error">${error}</p>` : nothing}
  </div>`;
}

/** The lines of a text that say something. */
export const lines = (text) =>
  (text || "")
    .split("\n")
    .map((each) => each.trim())
    .filter(Boolean);

/** A listener for a form or a button: does it, with the button off meanwhile, and says what it returns or raises. */
export function submitting(action) {
  return async (event) => {
    event.preventDefault();
    const element = event.currentTarget;
    const button = element.tagName === "FORM" ? element.querySelector("button:not([type=button])") : element;
    button.disabled = true;
    try {
      const words = await action(element);
      if (words) say(words);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(error.words, "bad");
    } finally {
      button.disabled = false;
      refresh();
    }
  };
}
