// SPDX-License-Identifier: Apache-2.0
// A new domain.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { ApiError, finish, get, post } from "../api.js";
import { say } from "../dialog.js";
import { bytes } from "../format.js";
import { changed, refresh, state } from "../store.js";
import { checkbox, field, lines } from "./form.js";
import { TYPES, hvmFields, hvmOf } from "./hvm.js";

const COPY = "copy"; // of a disk, for this domain alone

export const title = () => "New domain";

let busy = "";
let errors = {};
let failure = "";
let network = "none";
let source = ""; // an image's name, or a kernel of the host
let use = COPY;
let type = "pv";
let copied = null; // {of, image}: made for a domain that could not be created then

/** Images are asked for once; they are the host's user's. */
export const jobs = () => [
  async (keep) => {
    if (state.extra) return;
    keep({ images: await get("/images") });
  },
];

/** The image that the form begins with. */
export function choose(name) {
  source = name;
}

const chosen = () => state.extra?.images.find((image) => image.name === source);

function vifsOf(values) {
  if (network === "user") return [values.get("forward") ? `hostfwd=${values.get("forward").trim()}` : ""];
  if (network === "lan") return [`bridge=${values.get("bridge").trim()}`];
  return [];
}

/** What a domain starts from: an image, a copy of one that is made now, or what the form says. */
async function startOf(values) {
  const text = (key) => (values.get(key) || "").trim();
  const image = chosen();
  if (!image) return { kernel: text("kernel"), ramdisk: text("ramdisk") || null, cmdline: text("cmdline"), disks: [] };
  if (image.kind !== "disk" || use !== COPY) return image;
  const body = { name: text("name"), size: text("size") };
  if (copied?.of === image.name && copied.image.name === body.name && copied.size === body.size) return copied.image;
  const keys = lines(text("ssh_keys"));
  if (keys.length || text("user") || text("password")) {
    body.first_boot = { user: text("user") || null, ssh_keys: keys, password: text("password") || null };
  }
  let copy = await post(`/images/${encodeURIComponent(image.name)}/clones`, body);
  if (!("disks" in copy)) {
    await finish(copy, tell("Copying the image"));
    copy = (await get("/images")).find((each) => each.name === body.name);
  }
  copied = { of: image.name, size: body.size, image: copy };
  return copy;
}

async function bodyOf(values) {
  const start = await startOf(values);
  const body = {
    name: values.get("name").trim(),
    memory_mib: Number(values.get("memory_mib")),
    vcpus: Number(values.get("vcpus")),
    maxmem_mib: Number(values.get("maxmem_mib")) || null,
    max_vcpus: Number(values.get("max_vcpus")) || null,
    kernel: start.kernel,
    ramdisk: start.ramdisk,
    cmdline: start.cmdline,
    disks: [...start.disks, ...lines(values.get("disks") || "")],
    vifs: vifsOf(values),
    vfbs: values.has("screen") ? ["vnc=0"] : [],
    type,
    persistent: values.has("persistent"),
  };
  if (type === "hvm") body.hvm = hvmOf(values);
  if (body.persistent) {
    body.autostart = values.has("autostart");
    body.start = values.has("start");
  }
  return body;
}

const tell = (what) => (task) => {
  busy = task?.progress > 0 ? `${what}: ${Math.round(100 * task.progress)} %` : `${what}…`;
  changed();
};

async function submit(event) {
  event.preventDefault();
  const values = new FormData(event.currentTarget);
  errors = {};
  failure = "";
  tell("Preparing")();
  try {
    const body = await bodyOf(values);
    tell("Building the domain")();
    const domain = await finish(await post("/domains", body), tell("Building the domain"));
    await refresh();
    say(`${domain.name} is there.`);
    source = "";
    network = "none";
    type = "pv";
    copied = null;
    const shown = body.type === "hvm" ? "screen" : "console";
    location.hash = body.start === false ? `#/domains/${domain.uuid}` : `#/domains/${domain.uuid}/${shown}`;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    errors = Object.fromEntries(error.errors.map((each) => [each.field.split(".")[0], each.message]));
    failure = error.message;
  } finally {
    busy = "";
    changed();
  }
}

function chooseNetwork(event) {
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
            <input type="radio" name="network" value=${value} .checked=${network === value} @change=${chooseNetwork} />${name}
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

function chooseSource(event) {
  source = event.target.value;
  const memory = chosen()?.memory_mib;
  const input = document.getElementById("memory_mib");
  if (memory && Number(input.value) < memory) input.value = memory;
  changed();
}

function chooseUse(event) {
  use = event.target.value;
  changed();
}

function describe(image) {
  const words = image.kind === "disk" ? bytes(image.bytes) : "kernel";
  return `${image.name} (${words})`;
}

function sourceField() {
  const images = state.extra?.images || [];
  return html`<div class="field">
    <label for="source">Starts from</label>
    <select id="source" @change=${chooseSource} aria-describedby="source-hint">
      <option value="" ?selected=${source === ""}>${type === "hvm" ? "what is on its disks" : "a kernel on the host"}</option>
      ${images.map((image) => html`<option value=${image.name} ?selected=${source === image.name}>${describe(image)}</option>`)}
    </select>
    <p class="hint" id="source-hint">
      ${images.length ? (chosen()?.origin ?? "") : html`There is none: <a href="#/images">Images</a>`}
    </p>
  </div>`;
}

function chooseType(event) {
  type = event.target.value;
  changed();
}

function typeField() {
  return html`<div class="field">
    <label for="type">Type</label>
    <select id="type" @change=${chooseType}>
      ${TYPES.map(([value, name]) => html`<option value=${value} ?selected=${type === value}>${name}</option>`)}
    </select>
  </div>`;
}

function kernelFields() {
  if (type === "hvm") return nothing; // its firmware finds what is on its disks
  return html`
    ${field("kernel", "Kernel", {
      error: errors.kernel,
      hint:
        type === "pvh"
          ? "Path on the host: a kernel with a PVH entry"
          : "Path on the host: a PV kernel (bzImage or ELF). Empty: GRUB finds it on the first disk.",
    })}
    ${field("ramdisk", "Initramfs", { error: errors.ramdisk, hint: "Path on the host" })}
    ${field("cmdline", "Kernel command line", { error: errors.cmdline })}
  `;
}

function diskImageFields() {
  return html`
    <fieldset class="field wide">
      <legend>Its disk</legend>
      <div class="choices">
        ${[
          [COPY, "a copy of the image, named as the domain"],
          ["itself", "the image itself: it is written to"],
        ].map(
          ([value, name]) => html`<label class="choice">
            <input type="radio" name="use" value=${value} .checked=${use === value} @change=${chooseUse} />${name}
          </label>`,
        )}
      </div>
    </fieldset>
    ${use === COPY
      ? html`
          ${field("size", "Size of the disk", {
            error: errors.size,
            hint: `${bytes(chosen().bytes)} if empty; 20G, or +5G for so much more`,
          })}
          <div class="field wide">
            <label for="ssh_keys">SSH keys</label>
            <textarea id="ssh_keys" name="ssh_keys" rows="2" spellcheck="false" aria-describedby="keys-hint"></textarea>
            <p class="hint" id="keys-hint">
              Public ones, one a line, that may log in: an image with cloud-init is told at its first start.
            </p>
          </div>
          ${field("user", "User", { hint: "An account with sudo; empty: root" })}
          ${field("password", "Password", { type: "password", hint: "For the console; empty: none" })}
        `
      : nothing}
  `;
}

function sourceFields() {
  const image = chosen();
  if (!image) return kernelFields();
  return image.kind === "disk" ? diskImageFields() : nothing;
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
        ${field("maxmem_mib", "Memory at most (MiB)", {
          type: "number",
          min: 1,
          error: errors.maxmem_mib,
          hint: "What it may be given while it runs; empty: no more",
        })}
        ${field("max_vcpus", "vCPUs at most", {
          type: "number",
          min: 1,
          error: errors.max_vcpus,
          hint: "What it may be given while it runs; empty: no more",
        })}
        ${typeField()} ${sourceField()} ${sourceFields()} ${type === "hvm" ? hvmFields(undefined, errors.boot || errors.hvm) : nothing}
        <div class="field wide">
          <label for="disks">${chosen()?.kind === "disk" ? "More disks" : "Disks"}</label>
          <textarea id="disks" name="disks" rows="2" spellcheck="false" aria-describedby="disks-hint"></textarea>
          <p class="hint" id="disks-hint">
            One a line, as xl has them:
            ${type === "hvm" ? "/images/system.qcow2,qcow2,hda,rw and /images/install.iso,raw,hdc,cdrom" : "/images/data.qcow2,qcow2,xvda,rw"}
          </p>
          ${errors.disks ? html`<p class="error">${errors.disks}</p>` : nothing}
        </div>
        ${networkFields()}
        ${errors.vifs ? html`<p class="error">${errors.vifs}</p>` : nothing}
        ${type === "pv"
          ? checkbox("screen", "A screen", { hint: "With keyboard and pointer, on this page and for domzero screenshot." })
          : nothing}
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
