// SPDX-License-Identifier: Apache-2.0
// Who may log in, and what for.

import { html } from "../../vendor/lit-html/lit-html.js";
import { get, post, remove } from "../api.js";
import { confirm } from "../dialog.js";
import { moment } from "../format.js";
import { state } from "../store.js";
import { field, roleChoice, submitting } from "./form.js";
import { about, empty } from "./parts.js";
import { table } from "./table.js";

export const title = () => "Users";

export const jobs = () => [
  async (keep) => {
    const [users, audit] = await Promise.all([get("/users"), get("/audit")]);
    keep({ users, audit });
  },
];

async function forget(user) {
  if (await confirm(`Remove ${user.name}`, "Tokens and sessions of this user end, too.", "Remove")) {
    await remove(`/users/${encodeURIComponent(user.name)}`);
  }
}

const COLUMNS = [
  ["Name", (user) => html`<a href="#/users/${encodeURIComponent(user.name)}">${user.name}</a>`],
  ["Role", (user) => user.role || "only what is granted"],
  ["Grants", (user) => Object.keys(user.grants).length || "–"],
  ["Password", (user) => (user.locked_until ? `locked until ${moment(user.locked_until)}` : user.has_password ? "yes" : "no")],
  ["Since", (user) => moment(user.created_at)],
  [
    "",
    (user) => html`<button type="button" class="danger-quiet" @click=${submitting(() => forget(user))} aria-label="Remove ${user.name}">
      Remove
    </button>`,
  ],
];

const AUDIT = [
  ["When", (line) => moment(line.at)],
  ["Who", (line) => `${line.actor} (${line.via})`],
  ["What", (line) => line.action],
  ["Domain", about],
  ["Outcome", (line) => line.outcome],
];

const add = submitting(async (form) => {
  const values = Object.fromEntries(new FormData(form));
  await post("/users", { name: values.name.trim(), role: values.role || null, password: values.password || null });
  form.reset();
  location.hash = `#/users/${encodeURIComponent(values.name.trim())}`;
  return "The user is added.";
});

export function render() {
  const found = state.extra;
  if (!found) return html`<div class="head"><h1>Users</h1></div>${empty("Loading…")}`;
  return html`
    <div class="head"><h1>Users</h1></div>
    ${found.users.length ? table("Users", COLUMNS, found.users) : empty("Nobody but the owner.")}
    <form class="panel" @submit=${add}>
      <h2>Add a user</h2>
      <div class="fields">
        ${field("name", "Name", { required: true })}
        ${field("password", "Password", { type: "password", hint: "Empty: only tokens" })}
        ${roleChoice("role", "Role", "read-only")}
      </div>
      <div class="buttons"><button class="primary">Add</button></div>
    </form>
    <section class="group">
      <h2>Audit log</h2>
      ${found.audit.length ? table("Audit log", AUDIT, found.audit) : empty("Nothing was done yet.")}
    </section>
  `;
}
