// SPDX-License-Identifier: Apache-2.0
// What domains start from: kernels and disks, and making them.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { finish, get, may, post, remove, upload } from "../api.js";
import { ask, confirm } from "../dialog.js";
import { bytes } from "../format.js";
import { changed, state } from "../store.js";
import { choose } from "./create.js";
import { choice, field, lines, submitting, textarea } from "./form.js";
import { empty } from "./parts.js";
import { table } from "./table.js";
import { columns as taskColumns } from "./tasks.js";

const SUITES = [
  ["bookworm", "bookworm (Debian 12)"],
  ["trixie", "trixie (Debian 13)"],
];
const FORMATS = [["", "by its first bytes"], ..."raw qcow2 vhd vhdx vmdk vdi qed".split(" ").map((name) => [name, name])];

export const title = () => "Images";

export const measures = () => Boolean(state.extra?.tasks.some((task) => task.state === "running"));

export const jobs = () => [
  async (keep) => {
    const [images, tasks] = await Promise.all([get("/images"), get("/tasks")]);
    const open = (task) => task.kind.startsWith("image.") && ["running", "failed"].includes(task.state);
    keep({ images, tasks: tasks.filter(open) });
  },
];

const at = (image, rest = "") => `/images/${encodeURIComponent(image.name)}${rest}`;

/** Says what became of a request that may have become a task. */
const told = (answer, done) => ("created_at" in answer && "kind" in answer && "step" in answer ? "It is under way, and listed here." : done);

async function clone(image) {
  const values = await ask(`Clone ${image.name}`, "Clone", [
    field("clone-name", "Name", { required: true, maxlength: 100 }),
    field("clone-size", "Size", { hint: "20G, or +5G for so much more; empty: as large as the image" }),
  ]);
  if (!values) return "";
  const body = { name: values["clone-name"].trim(), size: values["clone-size"].trim() };
  return told(await post(at(image, "/clones"), body), `${body.name} is there.`);
}

async function forget(image) {
  const text =
    image.kind === "disk" ? "Its disk is deleted, with all that is on it." : "Domains that start from it do not start any more.";
  if (!(await confirm(`Delete ${image.name}`, text, "Delete"))) return "";
  await remove(at(image));
  return `${image.name} is deleted.`;
}

function use(image) {
  choose(image.name);
  location.hash = "#/create";
}

function actions(image) {
  return html`<span class="buttons">
    <button type="button" @click=${() => use(image)} aria-label="New domain from ${image.name}">New domain</button>
    ${image.kind === "disk"
      ? html`<button type="button" @click=${submitting(() => clone(image))} aria-label="Clone ${image.name}">Clone</button>`
      : nothing}
    ${may("pool-operator")
      ? html`<button type="button" class="danger-quiet" @click=${submitting(() => forget(image))} aria-label="Delete ${image.name}">
          Delete
        </button>`
      : nothing}
  </span>`;
}

const COLUMNS = [
  ["Image", (image) => image.name],
  ["Kind", (image) => (image.kind === "disk" ? "disk" : image.ramdisk ? "kernel and initramfs" : "kernel")],
  ["Size", (image) => (image.bytes === null ? "–" : bytes(image.bytes)), "number"],
  ["From", (image) => image.origin],
  ["", actions],
];

const fetchKernel = submitting(async (form) => {
  const refresh = form.elements.refresh.checked;
  return told(await post("/images/fetches", { refresh }), "It is there.");
});

const build = submitting(async (form) => {
  const values = Object.fromEntries(new FormData(form));
  const text = (key) => (values[key] || "").trim();
  const answer = await post("/images/builds", {
    name: text("build-name"),
    suite: values.suite,
    size: text("size"),
    packages: text("packages").split(/[\s,]+/).filter(Boolean),
    first_boot: { user: text("user") || null, ssh_keys: lines(values.ssh_keys), password: values.password || null },
  });
  form.reset();
  return told(answer, "It is there.");
});

const bring = submitting(async (form) => {
  const values = Object.fromEntries(new FormData(form));
  const name = values["import-name"].trim();
  const answer = await post("/images/imports", { file: values.file.trim(), name, format: values.format || null });
  form.reset();
  return told(answer, `${name} is there.`);
});

let sending = null; // what is uploaded: { name, part, stop }
addEventListener("beforeunload", (event) => sending && event.preventDefault());

/** Sends a file to a path of the API, and shows how far it is. */
async function sent(path, file, name) {
  const stop = new AbortController();
  sending = { name, part: 0, stop };
  changed();
  try {
    return await upload(path, file, { onProgress: (part) => ((sending = { ...sending, part }), changed()), signal: stop.signal });
  } finally {
    sending = null;
    changed();
  }
}

const sendKernel = submitting(async (form) => {
  const value = (key) => form.elements[key].value.trim();
  const [kernel] = form.elements["kernel-file"].files;
  const [ramdisk] = form.elements["ramdisk-file"].files;
  const name = value("kernel-name");
  const path = `/images/${encodeURIComponent(name)}`;
  const query = new URLSearchParams({ kind: "kernel", file: kernel.name.slice(0, 200), cmdline: value("kernel-cmdline") });
  await finish(await sent(`${path}?${query}`, kernel, name));
  if (ramdisk) await finish(await sent(`${path}/ramdisk`, ramdisk, `${name}'s ramdisk`));
  form.reset();
  return `${name} is there.`;
});

const send = submitting(async (form) => {
  const file = form.elements["upload-file"].files[0];
  const name = form.elements["upload-name"].value.trim();
  const format = form.elements["upload-format"].value;
  const query = new URLSearchParams({ file: file.name.slice(0, 200), ...(format && { format }) });
  const answer = await sent(`/images/${encodeURIComponent(name)}?${query}`, file, name);
  form.reset();
  return told(answer, `${name} is there.`);
});

/** A name that an image can have, of a file's: what a person would write. */
function suggest({ target }) {
  const name = target.form.elements[target.name.replace("-file", "-name")];
  const file = target.files[0]?.name ?? "";
  if (!name.value) name.value = file.replace(/\.[A-Za-z0-9]+$/, "").replace(/[^A-Za-z0-9._+-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 100);
}

function uploading() {
  return html`<form class="panel" @submit=${send}>
    <h2>Upload a disk</h2>
    <p class="lead">From this computer: a disk of any format, or a cloud image. It goes on while you look at other views of this page.</p>
    <div class="fields">
      <div class="field">
        <label for="upload-file">Disk on this computer</label>
        <input id="upload-file" name="upload-file" type="file" required @change=${suggest} />
      </div>
      ${field("upload-name", "Name of the image", { required: true, maxlength: 100 })} ${choice("upload-format", "Its format", FORMATS)}
    </div>
    <div class="buttons">
      <button class="primary" ?disabled=${Boolean(sending)}>Upload</button>
    </div>
  </form>`;
}

function uploadingKernel() {
  return html`<form class="panel" @submit=${sendKernel}>
    <h2>Upload a kernel</h2>
    <p class="lead">From this computer: a kernel (bzImage or ELF) with what it is told and, if it needs one, its ramdisk.</p>
    <div class="fields">
      <div class="field">
        <label for="kernel-file">Kernel on this computer</label>
        <input id="kernel-file" name="kernel-file" type="file" required @change=${suggest} />
      </div>
      <div class="field">
        <label for="ramdisk-file">Its ramdisk, if it needs one</label>
        <input id="ramdisk-file" name="ramdisk-file" type="file" />
      </div>
      ${field("kernel-name", "Name of the kernel", { required: true, maxlength: 100 })}
      ${field("kernel-cmdline", "Command line", { maxlength: 1023 })}
    </div>
    <div class="buttons"><button class="primary" ?disabled=${Boolean(sending)}>Upload kernel</button></div>
  </form>`;
}

/** How far an upload is, in the place of none. */
function underWay() {
  if (!sending) return nothing;
  return html`<div class="panel buttons">
    <button type="button" @click=${() => sending.stop.abort()}>Give up</button>
    <span class="progress" role="status">
      <progress value=${sending.part} aria-label="Upload"></progress>
      ${sending.part < 1 ? `${sending.name}: ${Math.floor(100 * sending.part)} %` : "Looking at what came…"}
    </span>
  </div>`;
}

function making() {
  return html`
    ${underWay()} ${uploading()} ${uploadingKernel()}
    <form class="panel" @submit=${build}>
      <h2>Build a Debian disk</h2>
      <p class="lead">Packages come from where this host's apt has them. It takes minutes.</p>
      <div class="fields">
        ${field("build-name", "Name", { required: true, maxlength: 100 })} ${choice("suite", "Release", SUITES)}
        ${field("size", "Size", { value: "4G", required: true, hint: "Takes room as it is used" })}
        ${field("packages", "More packages", { hint: "With spaces or commas: nginx, git" })}
        ${field("user", "User", { hint: "An account with sudo; empty: root" })}
        ${field("password", "Password", { type: "password", hint: "Empty: none is asked for on the console" })}
        ${textarea("ssh_keys", "SSH keys", { hint: "Public ones, one a line, that may log in" })}
      </div>
      <div class="buttons"><button class="primary">Build</button></div>
    </form>
    <form class="panel" @submit=${bring}>
      <h2>Import a disk</h2>
      <div class="fields">
        ${field("file", "File", {
          required: true,
          hint: may("pool-admin") ? "Path on the host: a cloud image, for one" : "Path on the host, in the directory of a storage",
        })}
        ${field("import-name", "Name", { required: true, maxlength: 100 })} ${choice("format", "Format", FORMATS)}
      </div>
      <div class="buttons"><button class="primary">Import</button></div>
    </form>
    <form class="panel" @submit=${fetchKernel}>
      <h2>Fetch a kernel</h2>
      <p class="lead">The newest one of this host's distribution, with a small initramfs. Nothing is fetched that is there.</p>
      <div class="field check">
        <input id="refresh" name="refresh" type="checkbox" /><label for="refresh">Ask the mirrors for what is newest</label>
      </div>
      <div class="buttons"><button class="primary">Fetch</button></div>
    </form>
  `;
}

export function render() {
  const found = state.extra;
  if (!found) return html`<div class="head"><h1>Images</h1></div>${empty("Loading…")}`;
  return html`
    <div class="head"><h1>Images</h1></div>
    ${found.tasks.length
      ? html`<section class="group"><h2>Work on images</h2>${table("Work on images", taskColumns(["Task", "By", "State", ""]), found.tasks)}</section>`
      : nothing}
    <section class="group">
      ${found.images.length ? table("Images", COLUMNS, found.images) : empty("There is no image yet.")}
    </section>
    ${may("pool-operator") ? making() : nothing}
  `;
}
