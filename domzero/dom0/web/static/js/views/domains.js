// SPDX-License-Identifier: Apache-2.0
// All domains, with what they do now.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { isAlive, isGone } from "../actions.js";
import { may } from "../api.js";
import { mib, percent } from "../format.js";
import { sparkline } from "../graph.js";
import { changed, state } from "../store.js";
import { actionButtons, badge, ended, source } from "./parts.js";

export const title = () => "Domains";

export const measures = () => [...(state.domains?.values() ?? [])].some(isAlive);

function usage(domain) {
  const samples = state.history.get(domain.uuid) || [];
  const cpu = samples[samples.length - 1]?.cpu;
  const top = 100 * domain.max_vcpus;
  return html`
    <div class="gauge">
      <span class="gauge-name">CPU</span>
      ${sparkline(samples, "cpu", Math.max(100, top), "cpu")}
      <span class="gauge-value">${cpu === null || cpu === undefined ? "–" : percent(cpu)}</span>
    </div>
    <div class="gauge">
      <span class="gauge-name">Memory</span>
      ${sparkline(samples, "memory", Math.max(domain.maxmem_mib, 1), "memory")}
      <span class="gauge-value">${mib(domain.current_memory_mib)}</span>
    </div>
  `;
}

function card(domain) {
  const about = [
    `${domain.vcpus} vCPU${domain.vcpus === 1 ? "" : "s"}`,
    mib(domain.memory_mib),
    source(domain),
    domain.domid === null ? null : `domain ${domain.domid}`,
  ];
  return html`
    <li class="card ${isGone(domain) ? "gone" : ""}" data-domain=${domain.name}>
      <div class="card-head">
        <h2><a href="#/domains/${domain.uuid}"><bdi>${domain.name}</bdi></a></h2>
        ${badge(domain)}
      </div>
      <p class="about">${about.filter(Boolean).join(" · ")}</p>
      ${domain.description ? html`<p class="about">${domain.description}</p>` : nothing}
      ${isAlive(domain) ? usage(domain) : ended(domain)}
      <div class="buttons">
        ${(domain.exists || isGone(domain)) && may("vm-operator", domain)
          ? html`<a class="button" href="#/domains/${domain.uuid}/console" aria-label="Console of ${domain.name}">Console</a>`
          : nothing}
        ${actionButtons(domain)}
      </div>
    </li>
  `;
}

function section(name, domains) {
  if (!domains.length) return nothing;
  return html`
    ${name ? html`<h2 class="section">${name}</h2>` : nothing}
    <ul class="cards">
      ${repeat(domains, (domain) => domain.uuid, card)}
    </ul>
  `;
}

/** Those that are there first, then by name. */
function inOrder(one, other) {
  return other.exists - one.exists || one.name.localeCompare(other.name, undefined, { numeric: true });
}

const FEW = 8; // are seen at a glance

let sought = "";

function seek(event) {
  sought = event.target.value;
  changed();
}

function finder(count) {
  if (count <= FEW && !sought) return nothing;
  return html`<search class="find"><label for="find">Find</label><input id="find" type="search" autocomplete="off" .value=${sought} @input=${seek} /></search>`;
}

const isSought = ({ name, description }) => `${name}\n${description}`.toLowerCase().includes(sought.trim().toLowerCase());

export function render() {
  const present = [...(state.domains || new Map()).values()];
  const all = present.filter(isSought).sort(inOrder);
  const kept = all.filter((domain) => !isGone(domain));
  return html`
    <div class="head">
      <h1>Domains</h1>
      ${finder(present.length)}
      ${may("vm-admin") ? html`<a class="button primary" href="#/create">New domain</a>` : nothing}
    </div>
    ${kept.length
      ? section("", kept)
      : html`<div class="empty">
          <p>${sought ? "No domain has this in its name or description." : "No domain is here yet."}</p>
        </div>`}
    ${section(
      "Ended",
      all.filter((domain) => isGone(domain)),
    )}
  `;
}
