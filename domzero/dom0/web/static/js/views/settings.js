// SPDX-License-Identifier: Apache-2.0
// What may be changed of a domain.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { isAlive, isHalted } from "../actions.js";
import { patch } from "../api.js";
import { checkbox, field, submitting } from "./form.js";

/** What a halted domain starts with, or what was asked of the guest. */
const memoryOf = (domain) => (isHalted(domain) ? domain.memory_mib : domain.memory_target_mib);

function asked(form, domain) {
  const values = new FormData(form);
  const numbers = { memory_target_mib: memoryOf(domain), vcpus: domain.vcpus, cap: domain.cap, cpu_weight: domain.cpu_weight };
  const found = {};
  for (const key of ["name", "description"]) if (values.get(key) !== domain[key]) found[key] = values.get(key);
  for (const [key, present] of Object.entries(numbers)) {
    if (values.has(key) && values.get(key) !== "" && Number(values.get(key)) !== present) found[key] = Number(values.get(key));
  }
  if (form.elements.autostart && form.elements.autostart.checked !== domain.autostart) {
    found.autostart = form.elements.autostart.checked;
  }
  return found;
}

export function settings(domain) {
  const submit = submitting(async (form) => {
    const body = asked(form, domain);
    if (!Object.keys(body).length) return "Nothing is changed.";
    await patch(`/domains/${domain.uuid}`, body);
    return "It is changed.";
  });
  return html`<form class="panel" @submit=${submit}>
    <h2>Settings</h2>
    <div class="fields">
      ${field("name", "Name", { value: domain.name, required: true })}
      ${field("description", "Description", { value: domain.description })}
      ${isAlive(domain) || isHalted(domain)
        ? html`
            ${field("memory_target_mib", "Memory (MiB)", {
              type: "number",
              value: memoryOf(domain),
              min: 1,
              max: domain.maxmem_mib,
              hint: isHalted(domain)
                ? `That it starts with; at most ${domain.maxmem_mib}`
                : `Asked of the guest's balloon driver; at most ${domain.maxmem_mib}`,
            })}
            ${field("vcpus", "vCPUs", {
              type: "number",
              value: domain.vcpus,
              min: 1,
              max: domain.max_vcpus,
              hint: isHalted(domain) ? `That it starts with; at most ${domain.max_vcpus}` : `Asked of the guest; at most ${domain.max_vcpus}`,
            })}
            ${field("cap", "Processor cap (%)", {
              type: "number",
              value: domain.cap,
              min: 0,
              hint: "Percent of one processor for all its vCPUs; 0: no bound",
            })}
            ${field("cpu_weight", "Processor weight", {
              type: "number",
              value: domain.cpu_weight,
              min: 1,
              hint: "Its part of a processor that several domains want; 256 is usual",
            })}
          `
        : nothing}
      ${domain.persistent ? checkbox("autostart", "Start it with Domain 0", { checked: domain.autostart }) : nothing}
    </div>
    <div class="buttons"><button class="primary">Save</button></div>
  </form>`;
}
