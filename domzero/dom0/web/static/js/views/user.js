// SPDX-License-Identifier: Apache-2.0
// One user: role and password, what is granted on single domains, and tokens.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ROLES, get, patch, post, put, remove } from "../api.js";
import { confirm, show } from "../dialog.js";
import { moment } from "../format.js";
import { state } from "../store.js";
import { choice, field, roleChoice, submitting } from "./form.js";
import { about, empty } from "./parts.js";
import { table } from "./table.js";

const DAY_S = 86400;
const LIVES = [
  ["1", "a day"],
  ["30", "30 days"],
  ["365", "a year"],
  ["", "until it is revoked"],
];

export const title = ({ name }) => name;

const at = (name, rest = "") => `/users/${encodeURIComponent(name)}${rest}`;

export const jobs = ({ name }) => [
  async (keep) => {
    try {
      const [user, tokens] = await Promise.all([get(at(name)), get(at(name, "/tokens"))]);
      keep({ user, tokens });
    } catch (error) {
      if (error.status !== 404) throw error;
      keep({ user: null });
    }
  },
];

function access(user) {
  const set = submitting(async (form) => {
    const values = new FormData(form);
    const body = {};
    if ((values.get("role") || null) !== user.role) body.role = values.get("role") || null;
    if (values.get("password")) body.password = values.get("password");
    if (!Object.keys(body).length) return "Nothing is changed.";
    await patch(at(user.name), body);
    form.reset();
    return "It is changed.";
  });
  const forbid = submitting(async () => {
    if (!(await confirm(`Password of ${user.name}`, "Only tokens log in then; sessions by the password end.", "Take away"))) return "";
    await patch(at(user.name), { password: null });
    return "There is no password any more.";
  });
  return html`<form class="panel" @submit=${set}>
    <h2>Role and password</h2>
    <div class="fields">
      ${roleChoice("role", "Role", user.role)}
      ${field("password", "New password", {
        type: "password",
        hint: user.has_password ? "Empty: it stays. Sessions by the old one end." : "There is none: only tokens log in",
      })}
    </div>
    <div class="buttons">
      <button class="primary">Save</button>
      ${user.has_password ? html`<button type="button" class="danger-quiet" @click=${forbid}>Take the password away</button>` : nothing}
    </div>
  </form>`;
}

function grants(user) {
  const rows = Object.entries(user.grants).map(([domain, role]) => ({ domain, role }));
  const revoke = ({ domain }) => submitting(() => remove(at(user.name, `/grants/${domain}`)));
  const columns = [
    ["Domain", about],
    ["Role", (grant) => grant.role],
    [
      "",
      (grant) => html`<button type="button" class="danger-quiet" @click=${revoke(grant)} aria-label="Revoke the role on ${grant.domain}">
        Revoke
      </button>`,
    ],
  ];
  const domains = [...state.domains.values()].map((domain) => [domain.uuid, domain.name]);
  const grant = submitting(async (form) => {
    const values = Object.fromEntries(new FormData(form));
    await put(at(user.name, `/grants/${values.domain}`), { role: values["granted-role"] });
    return "It is granted.";
  });
  return html`<section class="group">
    <h2>Grants</h2>
    ${rows.length ? table("Grants", columns, rows) : empty("Nothing is granted beside the role.")}
    ${domains.length
      ? html`<form class="panel inline pair" @submit=${grant}>
          <h2>Grant a role on a domain</h2>
          ${choice("domain", "Domain", domains)} ${choice("granted-role", "Role on it", ROLES.map((role) => [role, role]), "vm-operator")}
          <button class="primary">Grant</button>
        </form>`
      : nothing}
  </section>`;
}

function tokens(user, found) {
  const revoke = (token) =>
    submitting(async () => {
      if (!(await confirm(`Revoke ${token.description || token.id.slice(0, 8)}`, "Who uses it is refused from now on.", "Revoke"))) return "";
      await remove(at(user.name, `/tokens/${token.id}`));
      return "It is revoked.";
    });
  const columns = [
    ["Token", (token) => token.description || token.id.slice(0, 8)],
    ["Gives at most", (token) => token.role || "all that its user may"],
    ["Made", (token) => moment(token.created_at)],
    ["Until", (token) => (token.expires_at ? moment(token.expires_at) : "it is revoked")],
    [
      "",
      (token) => html`<button type="button" class="danger-quiet" @click=${revoke(token)} aria-label="Revoke ${token.description || token.id}">
        Revoke
      </button>`,
    ],
  ];
  const add = submitting(async (form) => {
    const values = Object.fromEntries(new FormData(form));
    const made = await post(at(user.name, "/tokens"), {
      description: values.description.trim(),
      role: values["token-role"] || null,
      expires_in_seconds: values.life ? Number(values.life) * DAY_S : null,
    });
    form.reset();
    await show("New token", "It is shown this once: whoever has it may do what it gives.", made.token);
  });
  return html`<section class="group">
    <h2>Tokens</h2>
    ${found.length ? table("Tokens", columns, found) : empty("There is no token.")}
    <form class="panel" @submit=${add}>
      <h2>Make a token</h2>
      <div class="fields">
        ${field("description", "What it is for", { maxlength: 200 })}
        ${choice("token-role", "Gives at most", [["", "all that its user may"], ...ROLES.map((role) => [role, role])])}
        ${choice("life", "Until", LIVES, "30")}
      </div>
      <div class="buttons"><button class="primary">Make</button></div>
    </form>
  </section>`;
}

export function render({ name }) {
  const found = state.extra;
  const head = html`<div class="head">
    <p class="crumb"><a href="#/users">Users</a></p>
    <h1>${name}</h1>
  </div>`;
  if (!found) return html`${head}${empty("Loading…")}`;
  if (!found.user) return html`${head}${empty("There is no such user.")}`;
  const { user } = found;
  return html`${head}
    <p class="lead">
      Since ${moment(user.created_at)}${user.locked_until ? `; the password is locked until ${moment(user.locked_until)}` : ""}
    </p>
    ${access(user)} ${grants(user)} ${tokens(user, found.tokens)}`;
}
