// SPDX-License-Identifier: Apache-2.0
// What the hypervisor and Domain 0 have said.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { get, may, remove } from "../api.js";
import { confirm } from "../dialog.js";
import { state } from "../store.js";
import { submitting } from "./form.js";
import { empty } from "./parts.js";

export const title = () => "Log";

export const measures = () => true;

export const jobs = () => [
  async (keep) => {
    keep((await get("/host/dmesg")).lines);
  },
];

async function clear() {
  if (await confirm("Empty the log", "Its lines are gone for everybody.", "Empty it")) await remove("/host/dmesg");
}

export function render() {
  const lines = state.extra;
  return html`
    <div class="head">
      <h1>Log</h1>
      ${may("pool-operator") ? html`<button type="button" @click=${submitting(clear)}>Empty</button>` : nothing}
    </div>
    ${!lines
      ? empty("Loading…")
      : lines.length
        ? html`<pre class="log" tabindex="0" aria-label="Log, newest line first">${[...lines].reverse().join("\n")}</pre>`
        : empty("Nothing was said.")}
  `;
}
