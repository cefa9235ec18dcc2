// SPDX-License-Identifier: Apache-2.0
// Work that takes longer than a request.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { get, remove } from "../api.js";
import { moment } from "../format.js";
import { state } from "../store.js";
import { submitting } from "./form.js";
import { about, empty } from "./parts.js";
import { table } from "./table.js";

export const title = () => "Tasks";

/** How far one has come is no event. */
export const measures = () => Boolean(state.extra?.some((task) => task.state === "running"));

export const jobs = () => [
  async (keep) => {
    keep((await get("/tasks")).reverse());
  },
];

function stateOf(task) {
  return html`<span class="badge ${task.state}">${task.state}</span>
    ${task.state === "running" && task.progress > 0
      ? html`<progress value=${task.progress} aria-label="Progress"></progress>`
      : nothing}
    ${task.step ? html`<span class="hint">${task.step}</span>` : nothing}
    ${task.error ? html`<span class="error">${task.error.detail}</span>` : nothing}`;
}

const COLUMNS = [
  ["Task", (task) => task.name || task.kind],
  ["Domain", about],
  ["By", (task) => task.actor],
  ["State", stateOf],
  ["Began", (task) => moment(task.created_at)],
  [
    "",
    (task) => {
      const name = task.state === "running" ? "Cancel" : "Forget";
      const drop = submitting(() => remove(`/tasks/${task.id}`));
      return html`<button type="button" aria-label="${name} ${task.kind}" @click=${drop}>${name}</button>`;
    },
  ],
];

/** Some of the columns. */
export const columns = (names) => COLUMNS.filter(([name]) => names.includes(name));

export function render() {
  const found = state.extra;
  return html`
    <div class="head"><h1>Tasks</h1></div>
    ${!found ? empty("Loading…") : found.length ? table("Tasks", COLUMNS, found) : empty("No task is under way, and none was lately.")}
  `;
}
