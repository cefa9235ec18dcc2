// SPDX-License-Identifier: Apache-2.0
// The network interfaces of a domain.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { isAlive, isHalted } from "../actions.js";
import { may, patch, post, remove } from "../api.js";
import { confirm } from "../dialog.js";
import { bytes, number } from "../format.js";
import { field, submitting } from "./form.js";
import { empty } from "./parts.js";
import { table } from "./table.js";

const CONNECTED = 4;
const at = (domain, vif) => `/domains/${domain.uuid}/vifs/${vif.devid}`;

async function detach(domain, vif) {
  if (!(await confirm(`Detach interface ${vif.devid} of ${domain.name}`, isHalted(domain) ? "It starts without." : "The guest loses it.", "Detach"))) return;
  await remove(at(domain, vif));
}

const AT_REST = ["Interface", "MAC address", "Network", "Link", ""]; // what can be said of a halted domain's

const COLUMNS = (domain) => [
  ["Interface", (vif) => vif.devid],
  ["MAC address", (vif) => html`<code>${vif.mac}</code>`],
  ["Network", (vif) => vif.network],
  ["Received", (vif) => bytes(vif.received_bytes), "number"],
  ["Sent", (vif) => bytes(vif.sent_bytes), "number"],
  ["Dropped", (vif) => number(vif.dropped + vif.spoofed), "number"],
  ["Guest", (vif) => (vif.state === CONNECTED ? "connected" : "not connected")],
  ["Link", (vif) => vif.link],
  [
    "",
    (vif) => {
      const link = vif.link === "up" ? "down" : "up";
      return html`<span class="buttons">
        ${isAlive(domain)
          ? html`<button
              type="button"
              @click=${submitting(() => patch(at(domain, vif), { link }))}
              aria-label="Link of ${vif.devid} ${link}"
            >
              Link ${link}
            </button>`
          : nothing}
        <button type="button" class="danger-quiet" @click=${submitting(() => detach(domain, vif))} aria-label="Detach ${vif.devid}">
          Detach
        </button>
      </span>`;
    },
  ],
];

/** The last one, without a name, is for who may change something. */
const columns = (domain) =>
  COLUMNS(domain).filter(([name]) => (name || may("vm-admin", domain)) && (isAlive(domain) || AT_REST.includes(name)));

function attachForm(domain) {
  const submit = submitting(async (form) => {
    await post(`/domains/${domain.uuid}/vifs`, { spec: form.elements.spec.value.trim() });
    form.reset();
    return isHalted(domain) ? "It starts with the interface." : "The interface is plugged in.";
  });
  return html`<form class="panel inline" @submit=${submit}>
    <h2>Plug in an interface</h2>
    ${field("spec", "Interface", {
      hint: "As xl has it: bridge=lan, or hostfwd=tcp:127.0.0.1:2222-:22; empty for the network of the host's user",
    })}
    <button class="primary">Plug in</button>
  </form>`;
}

export function vifs(domain, found) {
  if (!(isAlive(domain) || isHalted(domain)) || !found) {
    if (!domain.vifs.length) return empty("It has no network interfaces.");
    return table("Network interfaces", [["Interface", (spec) => html`<code>${spec || "user"}</code>`]], domain.vifs);
  }
  return html`
    ${found.length ? table("Network interfaces", columns(domain), found) : empty("It has no network interfaces.")}
    ${may("vm-admin", domain) ? attachForm(domain) : nothing}
  `;
}
