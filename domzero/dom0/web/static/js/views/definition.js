// SPDX-License-Identifier: Apache-2.0
// What a halted domain starts with: all that is fixed while it runs. It is asked for, changed, and sent back whole.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { get, put } from "../api.js";
import { choice, field, submitting } from "./form.js";
import { TYPES, hvmFields, hvmOf } from "./hvm.js";

const ENDS = [
  ["destroy", "it ends"],
  ["restart", "it starts again"],
  ["preserve", "it stays, to be looked at"],
];
const EVENTS = [
  ["on_poweroff", "When it powers off"],
  ["on_reboot", "When it reboots"],
  ["on_crash", "When it crashes"],
];

/** `definition`: of the API's; null until it is here. */
export function definition(domain, definition) {
  if (!definition) return nothing;
  const submit = submitting(async (form) => {
    const values = new FormData(form);
    const text = (key) => (values.get(key) ?? "").trim();
    const path = `/domains/${domain.uuid}`;
    const now = await get(`${path}/definition`); // what has changed since then stays
    await put(path, {
      ...now,
      type: values.get("type"),
      kernel: text("kernel"),
      ramdisk: text("ramdisk") || null,
      cmdline: text("cmdline"),
      maxmem_mib: Number(values.get("maxmem_mib")) || null,
      max_vcpus: Number(values.get("max_vcpus")) || null,
      vfbs: text("vfbs") ? [text("vfbs")] : [],
      hvm: values.has("boot") ? hvmOf(values, now.hvm) : now.hvm,
      ...Object.fromEntries(EVENTS.map(([key]) => [key, values.get(key)])),
    });
    return "It starts with what is here now.";
  });
  const ends = (key) => (ENDS.some(([value]) => value === definition[key]) ? ENDS : [...ENDS, [definition[key], definition[key]]]);
  return html`<form class="panel" @submit=${submit}>
    <h2>Definition</h2>
    <p class="lead">What it starts with. Its disks and interfaces have views of their own.</p>
    <div class="fields">
      ${choice("type", "Type", TYPES, definition.type)}
      ${field("kernel", "Kernel", { value: definition.kernel, hint: "Path on the host; empty: of its disk" })}
      ${field("ramdisk", "Initramfs", { value: definition.ramdisk ?? "", hint: "Path on the host" })}
      ${field("cmdline", "Kernel command line", { value: definition.cmdline })}
      ${field("maxmem_mib", "Memory at most (MiB)", {
        type: "number",
        min: 1,
        value: definition.maxmem_mib ?? "",
        hint: "Empty: what it starts with",
      })}
      ${field("max_vcpus", "vCPUs at most", { type: "number", min: 1, value: definition.max_vcpus ?? "", hint: "Empty: those that it starts with" })}
      ${field("vfbs", "Screen", {
        value: definition.vfbs[0] ?? "",
        hint: "As xl's vfb: vnc=0 shows it here only, vnc=1,vncpasswd=… to VNC viewers, too; empty: none but an HVM domain's own",
      })}
      ${EVENTS.map(([key, name]) => choice(key, name, ends(key), definition[key]))}
      ${definition.type === "hvm" ? hvmFields(definition.hvm) : nothing}
    </div>
    <div class="buttons"><button class="primary">Save the definition</button></div>
  </form>`;
}
