// SPDX-License-Identifier: Apache-2.0
// Networks of domains, and who is on them.

import { html } from "../../vendor/lit-html/lit-html.js";
import { get } from "../api.js";
import { bytes, number } from "../format.js";
import { state } from "../store.js";
import { empty } from "./parts.js";
import { table } from "./table.js";

export const title = () => "Networks";

export const measures = () => true;

export const jobs = () => [
  async (keep) => {
    keep(await get("/networks"));
  },
];

const COLUMNS = [
  ["Domain", (port) => html`<a href="#/domains/${port.uuid}/network">${port.domain}</a>`],
  ["Interface", (port) => port.devid ?? "–"],
  ["MAC address", (port) => html`<code>${port.mac}</code>`],
  ["Received", (port) => bytes(port.received_bytes), "number"],
  ["Sent", (port) => bytes(port.sent_bytes), "number"],
  ["Dropped", (port) => number(port.dropped), "number"],
];

export function render() {
  const found = state.extra;
  return html`
    <div class="head"><h1>Networks</h1></div>
    ${!found
      ? empty("Loading…")
      : found.length
        ? found.map(
            (network) => html`<section class="group">
              <h2>${network.name}</h2>
              ${network.ports.length ? table(`Network ${network.name}`, COLUMNS, network.ports) : empty("Nobody is on it.")}
            </section>`,
          )
        : empty("There is no network of domains: one begins with the first domain whose interface names it (bridge=lan).")}
  `;
}
