// SPDX-License-Identifier: Apache-2.0
// Who is here? With Domain 0's token, or with a name and a password.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ApiError, logIn } from "../api.js";
import { changed } from "../store.js";

let words = "";
let byName = false;

/** `why` is said above the form. */
export function begin(why) {
  words = why;
}

function switchTo(event) {
  byName = event.target.value === "name";
  changed();
}

function fields() {
  if (byName) {
    return html`
      <label for="user">Name</label>
      <input id="user" name="user" required autocomplete="username" spellcheck="false" />
      <label for="password">Password</label>
      <input id="password" name="password" type="password" required autocomplete="current-password" />
    `;
  }
  return html`
    <label for="token">Token</label>
    <input id="token" name="token" type="password" required autocomplete="off" aria-describedby="token-hint" />
    <p class="hint" id="token-hint">
      <code>domzero serve --listen</code> says which file it is in, and on a terminal an address that contains it.
    </p>
  `;
}

export function render(enter) {
  const submit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    try {
      await logIn(Object.fromEntries(new FormData(form)));
      words = "";
      enter();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      words = error.status === 401 ? "Domain 0 knows nobody by that." : error.words;
      changed();
    }
  };
  const choice = (value, name, checked) => html`<label class="choice">
    <input type="radio" name="by" form="none" value=${value} .checked=${checked} @change=${switchTo} />${name}
  </label>`;
  return html`
    <main class="login" id="main">
      <form @submit=${submit}>
        <h1><img src="/web/icon.svg" alt="" width="36" height="36" />Domzero</h1>
        ${words ? html`<p class="error" role="alert">${words}</p>` : nothing}
        <fieldset>
          <legend>Log in with</legend>
          <div class="choices">${choice("token", "a token", !byName)}${choice("name", "a name", byName)}</div>
        </fieldset>
        ${fields()}
        <button class="primary">Log in</button>
      </form>
    </main>
  `;
}
