// SPDX-License-Identifier: Apache-2.0
// What several views show.

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { actionsFor, isGone, perform } from "../actions.js";
import { state } from "../store.js";

const WORDS = {
  building: "Building",
  running: "Running",
  blocked: "Running",
  paused: "Paused",
  shutdown: "Shut down",
  crashed: "Crashed",
  destroyed: "Destroyed",
  halted: "Halted",
  suspended: "Suspended",
};

/** A domain's state, as a word with a colour; what waits for events runs, too. */
export function badge(domain) {
  const kind = domain.state === "blocked" ? "running" : domain.state;
  return html`<span class="badge ${kind}">${WORDS[domain.state] || domain.state}</span>`;
}

/**
 * Buttons for what can be done to a domain now. Each stays what it is while others come and go: who presses one that is
 * about to become another one would do what they did not mean.
 */
export function actionButtons(domain, after = () => {}) {
  return repeat(
    actionsFor(domain),
    (action) => action.name,
    (action) => html`<button
      type="button"
      class=${action.primary ? "primary" : action.danger ? "danger-quiet" : ""}
      aria-label="${action.name} ${domain.name}"
      @click=${async () => (await perform(action, domain)) && after(action)}
    >
      ${action.name}
    </button>`,
  );
}

/** What a domain starts from, in few words. */
export function source(domain) {
  const name = (path) => path.split("/").pop();
  if (domain.kernel) return name(domain.kernel);
  return domain.disks.length ? "its disk" : "–";
}

export function ended(domain) {
  if (!domain.exit) return nothing;
  const kind = domain.exists || !isGone(domain) ? "Last ended" : "Ended";
  const { reason, message } = domain.exit;
  return html`<p class="ended">${kind}: ${message && message !== reason ? `${reason} – ${message}` : reason}</p>`;
}

/** A table of names and values. */
export function facts(rows) {
  return html`<dl class="facts">
    ${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** The domain that something is about, by its uuid, as a link while it is there. */
export function about({ domain: uuid }) {
  if (!uuid) return "–";
  const domain = state.domains?.get(uuid);
  return domain ? html`<a href="#/domains/${uuid}">${domain.name}</a>` : html`<code>${uuid.slice(0, 8)}</code>`;
}

export function empty(text) {
  return html`<p class="empty">${text}</p>`;
}
