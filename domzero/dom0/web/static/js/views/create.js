// SPDX-License-Identifier: Apache-2.0
// A new domain.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ApiError, finish, post } from "../api.js";
import { say } from "../dialog.js";
import { changed, refresh } from "../store.js";
import { checkbox, field } from "./form.js";

export const title = () => "New domain";

let busy = "";
let errors = {};
let failure = "";
let network = "none";

const lines = (text) =>
  text
    .split("\n")
    .map((each) => each.trim())
    .filter(Boolean);

function vifsOf(values) {
  if (network === "user") return [values.get("forward") ? `hostfwd=${values.get("forward").trim()}` : ""];
  if (network === "lan") return [`bridge=${values.get("bridge").trim()}`];
  return [];
}

function bodyOf(form) {
  const values = new FormData(form);
  const text = (key) => (values.get(key) || "").trim();
  const body = {
    name: text("name"),
    memory_mib: Number(values.get("memory_mib")),
    vcpus: Number(values.get("vcpus")),
    kernel: text("kernel"),
    ramdisk: text("ramdisk") || null,
    cmdline: text("cmdline"),
    disks: lines(text("disks")),
    vifs: vifsOf(values),
    persistent: values.has("persistent"),
  };
  if (body.persistent) {
    body.autostart = values.has("autostart");
    body.start = values.has("start");
  }
  return body;
}

async function submit(event) {
  event.preventDefault();
  const body = bodyOf(event.currentTarget);
  busy = "Building the domain…";
  errors = {};
  failure = "";
  changed();
  try {
    const watch = (task) => {
      busy = `Building the domain: ${task.kind} is ${task.state}…`;
      changed();
    };
    const domain = await finish(await post("/domains", body), watch);
    await refresh();
    say(`${domain.name} is there.`);
    location.hash = body.start === false ? `#/domains/${domain.uuid}` : `#/domains/${domain.uuid}/console`;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    errors = Object.fromEntries(error.errors.map((each) => [each.field.split(".")[0], each.message]));
    failure = error.message;
  } finally {
    busy = "";
    changed();
  }
}

function choose(event) {
  network = event.target.value;
  changed();
}

const NETWORKS = [
  ["none", "None"],
  ["user", "The host's, as its user (outgoing, with forwarded ports)"],
  ["lan", "A network of domains"],
];

function networkFields() {
  return html`
    <fieldset class="field wide">
      <legend>Network</legend>
      <div class="choices">
        ${NETWORKS.map(
          ([value, name]) => html`<label class="choice">
            <input type="radio" name="network" value=${value} ?checked=${value === "none"} @change=${choose} />${name}
          </label>`,
        )}
      </div>
    </fieldset>
    ${network === "user"
      ? field("forward", "Forwarded port", { hint: "tcp:127.0.0.1:2222-:22 leads from the host's port 2222 to its ssh" })
      : nothing}
    ${network === "lan" ? field("bridge", "Network's name", { value: "lan", required: true }) : nothing}
  `;
}

export function render() {
  return html`
    <div class="head">
      <p class="crumb"><a href="#/">Domains</a></p>
      <h1>New domain</h1>
    </div>
    <form class="panel" @submit=${submit}>
      ${failure ? html`<p class="error" role="alert">${failure}</p>` : nothing}
      <div class="fields">
        ${field("name", "Name", { required: true, maxlength: 80, error: errors.name })}
        ${field("memory_mib", "Memory (MiB)", { type: "number", value: 256, min: 1, required: true, error: errors.memory_mib })}
        ${field("vcpus", "vCPUs", { type: "number", value: 1, min: 1, required: true, error: errors.vcpus })}
        ${field("kernel", "Kernel", {
          error: errors.kernel,
          hint: "Path on the host: a PV kernel (bzImage or ELF). Empty: GRUB finds it on the first disk.",
        })}
        ${field("ramdisk", "Initramfs", { error: errors.ramdisk, hint: "Path on the host" })}
        ${field("cmdline", "Kernel command line", { error: errors.cmdline })}
        <div class="field wide">
          <label for="disks">Disks</label>
          <textarea id="disks" name="disks" rows="2" spellcheck="false" aria-describedby="disks-hint"></textarea>
          <p class="hint" id="disks-hint">One a line, as xl has them: /images/data.qcow2,qcow2,xvda,rw</p>
          ${errors.disks ? html`<p class="error">${errors.disks}</p>` : nothing}
        </div>
        ${networkFields()}
        ${errors.vifs ? html`<p class="error">${errors.vifs}</p>` : nothing}
        ${checkbox("persistent", "Keep it after its end", { checked: true, hint: "It is halted then, and can be started again." })}
        ${checkbox("start", "Start it now", { checked: true })}
        ${checkbox("autostart", "Start it with Domain 0")}
      </div>
      <div class="buttons">
        <button class="primary" ?disabled=${Boolean(busy)}>Create</button>
        <a class="button" href="#/">Cancel</a>
        <span class="progress" role="status">${busy ? html`<progress aria-label="Creation"></progress> ${busy}` : nothing}</span>
      </div>
    </form>
  `;
}
