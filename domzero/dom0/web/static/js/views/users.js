// SPDX-License-Identifier: Apache-2.0
// Who may log in, and what for.

import { html } from "../../vendor/lit-html/lit-html.js";
import { get, patch, post, remove } from "../api.js";
import { confirm } from "../dialog.js";
import { moment } from "../format.js";
import { state } from "../store.js";
import { field, submitting } from "./form.js";
import { about, empty } from "./parts.js";
import { table } from "./table.js";

const ROLES = ["pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only"];

export const title = () => "Users";

export const jobs = () => [
  async () => {
    const [users, audit] = await Promise.all([get("/users"), get("/audit")]);
    state.extra = { users, audit };
  },
];

async function forget(user) {
  if (await confirm(`Remove ${user.name}`, "Tokens and sessions of this user end, too.", "Remove")) {
    await remove(`/users/${encodeURIComponent(user.name)}`);
  }
}

function options(chosen) {
  return [["", "only what is granted"], ...ROLES.map((role) => [role, role])].map(
    ([value, name]) => html`<option value=${value} ?selected=${value === (chosen || "")}>${name}</option>`,
  );
}

function roleOf(user) {
  const set = submitting(async (select) => {
    await patch(`/users/${encodeURIComponent(user.name)}`, { role: select.value || null });
    return `${user.name} has another role.`;
  });
  return html`<select aria-label="Role of ${user.name}" @change=${set}>${options(user.role)}</select>`;
}

const COLUMNS = [
  ["Name", (user) => user.name],
  ["Role", roleOf],
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
        <div class="field"><label for="role">Role</label><select id="role" name="role">${options("read-only")}</select></div>
      </div>
      <div class="buttons"><button class="primary">Add</button></div>
    </form>
    <section class="group">
      <h2>Audit log</h2>
      ${found.audit.length ? table("Audit log", AUDIT, found.audit) : empty("Nothing was done yet.")}
    </section>
  `;
}
