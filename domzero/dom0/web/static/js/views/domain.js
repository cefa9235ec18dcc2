// SPDX-License-Identifier: Apache-2.0
// One domain: what it is and does, its console, disks and network interfaces.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import "../console.js";
import { say } from "../dialog.js";
import { isAlive, isGone, isHalted, isSuspended } from "../actions.js";
import { get, may } from "../api.js";
import { duration, mib, moment, number, percent, rate, since } from "../format.js";
import { graph } from "../graph.js";
import { PERIODS, askPast, pastOf, periodOf } from "../past.js";
import { changed, noteCounters, refresh, state } from "../store.js";
import { definition } from "./definition.js";
import { disks } from "./disks.js";
import { actionButtons, badge, empty, ended, facts } from "./parts.js";
import { settings } from "./settings.js";
import { vifs } from "./vifs.js";

const TABS = [
  ["", "Overview"],
  ["console", "Console"],
  ["screen", "Screen"],
  ["disks", "Disks"],
  ["network", "Network"],
  ["settings", "Settings"],
];

let period = PERIODS[0];

const found = (uuid) => state.domains?.get(uuid);

export const title = ({ uuid }) => found(uuid)?.name || "Domain";

const total = (devices, key) => devices.reduce((sum, device) => sum + device[key], 0);

/** Asks for its devices: they are in its worker, which answers only while it lives. */
export function jobs({ uuid, tab = "" }) {
  if (tab === "console" || tab === "screen") return [];
  return [
    async () => {
      if (tab === "" && period.span && found(uuid)) await askPast(uuid, period);
    },
    async (keep) => {
      if (tab === "settings") {
        keep(await definitionOf(uuid));
        return;
      }
      const domain = found(uuid);
      const answers = domain && isAlive(domain) && domain.state !== "building";
      if (!answers && !(domain && isHalted(domain) && tab)) {
        keep(null);
        return;
      }
      try {
        const [disks, vifs] = await Promise.all([get(`/domains/${uuid}/disks`), get(`/domains/${uuid}/vifs`)]);
        keep({ disks, vifs });
        noteCounters(`${uuid}/devices`, {
          read: total(disks, "read_bytes"),
          written: total(disks, "written_bytes"),
          received: total(vifs, "received_bytes"),
          sent: total(vifs, "sent_bytes"),
        });
      } catch (error) {
        if (![404, 409, 504].includes(error.status)) throw error;
        keep(null); // it has just ended, or is busy
      }
    },
  ];
}

/** The console and the screen tell by themselves, settings do not change by themselves. */
export const measures = ({ uuid, tab = "" }) => ["", "disks", "network"].includes(tab) && Boolean(found(uuid)) && isAlive(found(uuid));

/** The definition of a halted domain, for who may change it. */
async function definitionOf(uuid) {
  const domain = found(uuid);
  if (!domain || !isHalted(domain) || !may("vm-admin", domain)) return null;
  try {
    return { definition: await get(`/domains/${uuid}/definition`) };
  } catch (error) {
    if (![404, 409].includes(error.status)) throw error;
    return null; // it has just been started, or deleted
  }
}

function choosePeriod(chosen) {
  period = chosen;
  changed();
  refresh();
}

function periods() {
  return html`<div class="segments" role="group" aria-label="Period of the graphs">
    ${PERIODS.map(
      (each) => html`<button type="button" aria-pressed=${each === period} @click=${() => choosePeriod(each)}>${each.name}</button>`,
    )}
  </div>`;
}

function graphs(domain) {
  const past = period.span ? pastOf(domain.uuid, period) : null;
  const samples = past || state.history.get(domain.uuid) || [];
  const devices = past || state.history.get(`${domain.uuid}/devices`) || [];
  const common = past ? { period: periodOf(period) } : {};
  const pair = (first, second) => [
    { key: first, name: first, colour: "read" },
    { key: second, name: second, colour: "written" },
  ];
  const one = (key) => [{ key, colour: key }];
  return html`${periods()}
    <div class="graphs">
      ${graph({ ...common, title: "CPU", samples, series: one("cpu"), format: percent, max: 100 })}
      ${graph({ ...common, title: "Memory", samples, series: one("memory"), format: mib, ceiling: domain.maxmem_mib })}
      ${domain.disks.length
        ? graph({ ...common, title: "Disks", samples: devices, series: pair("read", "written"), format: rate, max: 1024 })
        : nothing}
      ${domain.vifs.length
        ? graph({ ...common, title: "Network", samples: devices, series: pair("received", "sent"), format: rate, max: 1024 })
        : nothing}
    </div>`;
}

/** Whether there is something to look at: a framebuffer, or the display adapter of an HVM domain. */
const hasScreen = (domain) => domain.vfbs.length > 0 || (domain.type === "hvm" && domain.hvm.vga !== "none");

/** Its framebuffer. noVNC is 400 KiB in 50 files: who looks at no screen does not wait for them. */
function screen(domain) {
  if (!domain.exists) return empty("It has no screen while it does not run.");
  import("../screen.js").catch(() => say("The viewer of screens does not come: is Domain 0 there?", "bad"));
  return html`<domain-screen domain=${domain.uuid}></domain-screen>`;
}

function overview(domain) {
  const rows = [
    ["State", domain.state === "blocked" ? "running (waits for something to do)" : domain.state],
    ["Type", domain.type],
    ["Firmware", domain.hvm && `${domain.hvm.firmware.toUpperCase()}, starts from ${domain.hvm.boot}`],
    ["Domain number", domain.domid ?? "–"],
    ["UUID", html`<code>${domain.uuid}</code>`],
    ["Memory", `${mib(domain.current_memory_mib)} of ${mib(domain.maxmem_mib)}`],
    ["vCPUs", domain.vcpus === domain.max_vcpus ? domain.vcpus : `${domain.vcpus} of ${domain.max_vcpus}`],
    ["CPU time", duration(domain.cpu_time_seconds)],
    ["Engine", domain.engine || "–"],
    ["Kernel", domain.kernel ? html`<code>${domain.kernel}</code>` : domain.type === "pv" ? "of its disk (GRUB)" : null],
    ["Initramfs", domain.ramdisk ? html`<code>${domain.ramdisk}</code>` : null],
    ["Command line", domain.cmdline ? html`<code>${domain.cmdline}</code>` : null],
    ["Started", domain.started_at ? `${moment(domain.started_at)} (${since(domain.started_at)})` : null],
    ["Created", moment(domain.created_at)],
    ["Reboots", domain.reboots ? number(domain.reboots) : null],
    ["Kept after its end", domain.persistent ? "yes" : "no"],
    ["Starts with Domain 0", domain.autostart ? "yes" : null],
    ["Worker process", domain.pid],
    ...Object.entries(domain.labels).map(([key, value]) => [`Label ${key}`, value]),
  ];
  return html`
    ${domain.description ? html`<p class="lead">${domain.description}</p>` : nothing}
    ${isAlive(domain) ? graphs(domain) : html`<div class="lead">${ended(domain)}</div>`}
    <section class="panel">
      <h2>About</h2>
      ${facts(rows.filter(([, value]) => value !== null && value !== undefined))}
    </section>
  `;
}

function content(domain, tab) {
  if (tab === "console") return html`<domain-console domain=${domain.uuid} ?alive=${domain.exists}></domain-console>`;
  if (tab === "screen") return screen(domain);
  if (tab === "disks") return disks(domain, state.extra?.disks);
  if (tab === "network") return vifs(domain, state.extra?.vifs);
  if (tab === "settings") return html`${settings(domain)} ${definition(domain, isHalted(domain) && state.extra?.definition)}`;
  return overview(domain);
}

export function render({ uuid, tab = "" }) {
  const domain = found(uuid);
  if (!state.domains) return html`<div class="head"><h1>Domain</h1></div>${empty("Loading…")}`;
  if (!domain) {
    return html`<div class="head"><h1>Domain</h1></div>
      ${empty("There is no such domain: it has ended and is not kept.")}
      <p><a href="#/">All domains</a></p>`;
  }
  const operates = may("vm-operator", domain);
  const hidden = {
    console: !operates,
    screen: !operates || !hasScreen(domain),
    settings: isGone(domain) || isSuspended(domain) || !may("vm-admin", domain),
  };
  const tabs = TABS.filter(([key]) => !hidden[key]);
  const shown = hidden[tab] ? "" : tab;
  const leave = (action) => ["Delete", "Dismiss"].includes(action.name) && (location.hash = "#/");
  return html`
    <div class="head">
      <p class="crumb"><a href="#/">Domains</a></p>
      <h1><bdi>${domain.name}</bdi> ${badge(domain)}</h1>
      <div class="buttons">${actionButtons(domain, leave)}</div>
    </div>
    <nav class="tabs" aria-label="Domain">
      ${tabs.map(
        ([key, name]) =>
          html`<a href="#/domains/${uuid}${key ? `/${key}` : ""}" aria-current=${key === shown ? "page" : nothing}>${name}</a>`,
      )}
    </nav>
    ${content(domain, shown)}
  `;
}

