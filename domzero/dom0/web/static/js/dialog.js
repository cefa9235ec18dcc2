// SPDX-License-Identifier: Apache-2.0
// Questions, and messages that go away by themselves.

import { html, render } from "../vendor/lit-html/lit-html.js";

const SHOWN_MS = 6000;

/** A dialog with this title; `content(dialog)` is what is in it. Resolves to what it was closed with: "" if it was left. */
function open(title, content) {
  const dialog = document.createElement("dialog");
  dialog.className = "ask";
  dialog.setAttribute("aria-labelledby", "ask-title");
  document.body.append(dialog);
  render(
    html`<h2 id="ask-title">${title}</h2>
      ${content(dialog)}`,
    dialog,
  );
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/** Asks; resolves to whether the answer is yes. */
export async function confirm(title, text, yes) {
  const answer = await open(
    title,
    (dialog) => html`<p>${text}</p>
      <div class="buttons">
        <button type="button" @click=${() => dialog.close()}>Cancel</button>
        <button type="button" class="danger" @click=${() => dialog.close("yes")}>${yes}</button>
      </div>`,
  );
  return answer === "yes";
}

/** Asks for what the fields take; resolves to their values by name, or null. */
export async function ask(title, yes, fields) {
  let values = null;
  await open(title, (dialog) => {
    const submit = (event) => {
      event.preventDefault();
      values = Object.fromEntries(new FormData(event.currentTarget));
      dialog.close();
    };
    return html`<form @submit=${submit}>
      <div class="fields">${fields}</div>
      <div class="buttons">
        <button type="button" @click=${() => dialog.close()}>Cancel</button>
        <button class="primary">${yes}</button>
      </div>
    </form>`;
  });
  return values;
}

/** Shows a text that can be taken along; resolves when it is read. */
export async function show(title, words, text) {
  const copy = async ({ currentTarget }) => {
    await navigator.clipboard.writeText(text);
    currentTarget.textContent = "Copied";
  };
  await open(
    title,
    (dialog) => html`<p>${words}</p>
      <p class="secret"><code>${text}</code></p>
      <div class="buttons">
        ${navigator.clipboard ? html`<button type="button" @click=${copy}>Copy</button>` : ""}
        <button type="button" class="primary" @click=${() => dialog.close()}>Close</button>
      </div>`,
  );
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
