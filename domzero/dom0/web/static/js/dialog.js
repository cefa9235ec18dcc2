// SPDX-License-Identifier: Apache-2.0
// Questions, and messages that go away by themselves.

import { html, render } from "../vendor/lit-html/lit-html.js";

const SHOWN_MS = 6000;

/** Asks; resolves to whether the answer is yes. */
export function confirm(title, text, yes) {
  const dialog = document.createElement("dialog");
  dialog.className = "ask";
  dialog.setAttribute("aria-labelledby", "ask-title");
  document.body.append(dialog);
  return new Promise((resolve) => {
    const close = (value) => () => dialog.close(value);
    render(
      html`<h2 id="ask-title">${title}</h2>
        <p>${text}</p>
        <div class="buttons">
          <button type="button" @click=${close("")}>Cancel</button>
          <button type="button" class="danger" @click=${close("yes")}>${yes}</button>
        </div>`,
      dialog,
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}

let list = null;

/** Says something at the edge of the page; `kind` is "good" or "bad". Bad news stays until it is clicked away. */
export function say(text, kind = "good") {
  if (!list) {
    list = document.createElement("div");
    list.className = "messages";
    list.setAttribute("role", "status");
    document.body.append(list);
  }
  const message = document.createElement("div");
  message.className = `message ${kind}`;
  render(
    html`<p>${text}</p>
      <button type="button" class="plain" aria-label="Close message" @click=${() => message.remove()}>✕</button>`,
    message,
  );
  list.append(message);
  if (kind !== "bad") setTimeout(() => message.remove(), SHOWN_MS);
}
