// SPDX-License-Identifier: Apache-2.0
// The host and its hypervisor.

import { html } from "../../vendor/lit-html/lit-html.js";
import { get } from "../api.js";
import { duration, mib, number } from "../format.js";
import { state } from "../store.js";
import { empty, facts } from "./parts.js";

export const title = () => "Host";

export const measures = () => true;

export const jobs = () => [
  async (keep) => {
    keep(await get("/host"));
  },
];

export function render() {
  const host = state.extra;
  if (!host) return html`<div class="head"><h1>Host</h1></div>${empty("Loading…")}`;
  const used = host.total_memory - host.free_memory;
  return html`
    <div class="head"><h1>${host.host}</h1></div>
    <section class="panel">
      <h2>Host</h2>
      ${facts([
        ["Processors", `${number(host.nr_cpus)} at ${Math.round(host.cpu_mhz)} MHz`],
        [
          "Memory",
          html`<meter min="0" max=${host.total_memory} value=${used} aria-label="Memory in use"></meter> ${mib(used)} of
            ${mib(host.total_memory)} in use`,
        ],
        ["Linux", `${host.release}, ${host.machine}`],
        ["Domains", number(host.domains)],
      ])}
    </section>
    <section class="panel">
      <h2>Hypervisor</h2>
      ${facts([
        ["Domzero", host.domzero_version],
        ["Xen interface", host.xen_version],
        ["Guests", html`<code>${host.xen_caps}</code>`],
        ["Engine", host.engine],
        ["Scheduler", host.xen_scheduler],
        ["Workers confined by", host.worker_confinement],
        ["User network", host.user_network],
      ])}
    </section>
    <section class="panel">
      <h2>Domain 0</h2>
      ${facts([
        ["Runs since", duration(host.uptime_seconds)],
        ["Process", host.pid],
        ["Memory", mib(host.dom0_memory_mib)],
        ["CPU time", duration(host.dom0_cpu_seconds)],
      ])}
      <p><a href="/openapi.json" target="_blank" rel="noreferrer">Description of the API (OpenAPI)</a></p>
    </section>
  `;
}
