// SPDX-License-Identifier: Apache-2.0
// What only a domain of full virtualization has, as fields of a form.

import { html } from "../../vendor/lit-html/lit-html.js";
import { choice, field } from "./form.js";

export const TYPES = [
  ["pv", "PV: a kernel that is ported to Xen"],
  ["pvh", "PVH: a kernel in a machine of QEMU's, without firmware"],
  ["hvm", "HVM: any system, in a machine of QEMU's"],
];
const FIRMWARE = [
  ["bios", "BIOS"],
  ["uefi", "UEFI"],
];
const ADAPTERS = ["std", "cirrus", "virtio", "none"].map((name) => [name, name]);
const BUSES = ["ide", "ahci", "virtio"].map((name) => [name, name]);

/** Fields for firmware, boot order, screen and disks. `hvm`: what they begin with; `error`: what is wrong with them. */
export const hvmFields = (hvm = { firmware: "bios", boot: "cdn", vga: "std", hdtype: "ide" }, error = "") => html`
  ${choice("firmware", "Firmware", FIRMWARE, hvm.firmware)}
  ${field("boot", "Boot order", {
    value: hvm.boot,
    required: true,
    maxlength: 4,
    error,
    hint: "c disks, d CD drives, n network: the first is tried first",
  })}
  ${choice("vga", "Display adapter", ADAPTERS, hvm.vga)} ${choice("hdtype", "Where hda to hdd are", BUSES, hvm.hdtype)}
`;

/** What they say; the rest of `hvm` stays. */
export const hvmOf = (values, hvm = {}) => ({
  ...hvm,
  firmware: values.get("firmware"),
  boot: values.get("boot").trim(),
  vga: values.get("vga"),
  hdtype: values.get("hdtype"),
});
