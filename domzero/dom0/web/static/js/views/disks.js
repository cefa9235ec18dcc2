// SPDX-License-Identifier: Apache-2.0
// The disks of a domain.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { isAlive, isHalted } from "../actions.js";
import { may, post, put, remove } from "../api.js";
import { ask, confirm } from "../dialog.js";
import { bytes, number } from "../format.js";
import { field, submitting } from "./form.js";
import { empty } from "./parts.js";
import { table } from "./table.js";

const CONNECTED = 4;
const medium = (domain, disk) => `/domains/${domain.uuid}/disks/${encodeURIComponent(disk.vdev)}/medium`;

async function detach(domain, disk) {
  const text = isHalted(domain) ? "The file stays." : "The guest loses it; what it has not written is lost. The file stays.";
  if (!(await confirm(`Detach ${disk.vdev} of ${domain.name}`, text, "Detach"))) return;
  await remove(`/domains/${domain.uuid}/disks/${encodeURIComponent(disk.vdev)}`);
}

async function insert(domain, disk) {
  const values = await ask(`A medium for ${disk.vdev}`, "Insert", [
    field("medium", "Image", { required: true, value: disk.target, hint: "Path on the host, of an ISO image for one" }),
  ]);
  if (!values) return "";
  await put(medium(domain, disk), { target: values.medium.trim() });
  return `${disk.vdev} has another medium.`;
}

async function eject(domain, disk) {
  await remove(medium(domain, disk));
  return `${disk.vdev} is empty.`;
}

/** What can be done to the disk; only of a CD drive can the medium be changed. */
function actions(domain, disk) {
  const drive = disk.cdrom
    ? html`<button type="button" @click=${submitting(() => insert(domain, disk))} aria-label="Insert into ${disk.vdev}">Insert…</button>
        ${disk.target
          ? html`<button type="button" @click=${submitting(() => eject(domain, disk))} aria-label="Eject ${disk.vdev}">Eject</button>`
          : nothing}`
    : nothing;
  return html`<span class="buttons">
    ${drive}
    <button type="button" class="danger-quiet" @click=${submitting(() => detach(domain, disk))} aria-label="Detach ${disk.vdev}">
      Detach
    </button>
  </span>`;
}

const AT_REST = ["Disk", "Made of", "Format", ""]; // what can be said of a halted domain's

const COLUMNS = (domain) => [
  ["Disk", (disk) => disk.vdev],
  ["Made of", (disk) => html`<code>${disk.target || "(empty)"}</code>`],
  ["Format", (disk) => `${disk.format}${disk.cdrom ? ", CD drive" : disk.writable ? "" : ", read only"}`],
  ["Size", (disk) => (disk.bytes ? bytes(disk.bytes) : "–"), "number"],
  ["Read", (disk) => bytes(disk.read_bytes), "number"],
  ["Written", (disk) => bytes(disk.written_bytes), "number"],
  ["Errors", (disk) => number(disk.errors), "number"],
  ["Guest", (disk) => (disk.state === CONNECTED ? "connected" : "not connected")],
  ["", (disk) => actions(domain, disk)],
];

/** The last one, without a name, is for who may change something. */
const columns = (domain) =>
  COLUMNS(domain).filter(([name]) => (name || may("vm-admin", domain)) && (isAlive(domain) || AT_REST.includes(name)));

function attachForm(domain) {
  const submit = submitting(async (form) => {
    await post(`/domains/${domain.uuid}/disks`, { spec: form.elements.spec.value.trim() });
    form.reset();
    return isHalted(domain) ? "It starts with the disk." : "The disk is plugged in.";
  });
  return html`<form class="panel inline" @submit=${submit}>
    <h2>Plug in a disk</h2>
    ${field("spec", "Disk", {
      required: true,
      hint: "Of the host, as xl has it: /images/data.qcow2,qcow2,xvdb,rw; /images/debian.iso,raw,hdc,cdrom is a CD drive",
    })}
    <button class="primary">Plug in</button>
  </form>`;
}

export function disks(domain, found) {
  if (!(isAlive(domain) || isHalted(domain)) || !found) {
    if (!domain.disks.length) return empty("It has no disks.");
    return table("Disks", [["Disk", (spec) => html`<code>${spec}</code>`]], domain.disks);
  }
  return html`
    ${found.length ? table("Disks", columns(domain), found) : empty("It has no disks.")}
    ${may("vm-admin", domain) ? attachForm(domain) : nothing}
  `;
}
