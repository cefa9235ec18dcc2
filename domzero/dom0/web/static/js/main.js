// SPDX-License-Identifier: Apache-2.0
// The page: who is here, which view the address names, and what is around all views.

import { html, nothing, render } from "../vendor/lit-html/lit-html.js";
import { ApiError, logIn, logOut, may, resume, takeTokenOfAddress, whenRefused, who } from "./api.js";
import { onChange, refresh, state, stop, watch } from "./store.js";
import * as create from "./views/create.js";
import * as domain from "./views/domain.js";
import * as domains from "./views/domains.js";
import * as host from "./views/host.js";
import * as images from "./views/images.js";
import * as log from "./views/log.js";
import * as login from "./views/login.js";
import * as networks from "./views/networks.js";
import * as tasks from "./views/tasks.js";
import * as user from "./views/user.js";
import * as users from "./views/users.js";

const ROUTES = [
  [/^\/?$/, domains],
  [/^\/create$/, create],
  [/^\/domains\/(?<uuid>[^/]+)(?:\/(?<tab>[a-z]+))?$/, domain],
  [/^\/images$/, images],
  [/^\/networks$/, networks],
  [/^\/tasks$/, tasks],
  [/^\/log$/, log],
  [/^\/host$/, host],
  [/^\/users$/, users],
  [/^\/users\/(?<name>[^/]+)$/, user],
];

const MENU = [
  ["/", "Domains"],
  ["/images", "Images", "vm-admin"],
  ["/networks", "Networks"],
  ["/tasks", "Tasks"],
  ["/log", "Log", "read-only"],
  ["/host", "Host", "read-only"],
  ["/users", "Users", "pool-admin"],
];

const root = document.getElementById("app");
let refused = false;
let view = domains;
let parameters = {};

function path() {
  return location.hash.replace(/^#/, "") || "/";
}

/** The parts of the address, as text; one that cannot be read names nothing. */
function decoded(groups) {
  const text = (value) => {
    try {
      return value && decodeURIComponent(value);
    } catch {
      return value;
    }
  };
  return Object.fromEntries(Object.entries(groups ?? {}).map(([key, value]) => [key, text(value)]));
}

function choose() {
  for (const [pattern, module] of ROUTES) {
    const match = pattern.exec(path());
    if (match) return [module, decoded(match.groups)];
  }
  return [domains, {}];
}

/** The view that the address names, from its beginning. */
function go() {
  [view, parameters] = choose();
  watch(
    () => (view.jobs ? view.jobs(parameters) : []),
    () => Boolean(view.measures?.(parameters)),
  );
  draw();
  document.getElementById("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
  for (const each of root.querySelectorAll("nav [aria-current]")) each.scrollIntoView({ block: "nearest", inline: "center" });
  refresh();
}

function menuItem([target, name]) {
  const here = target === "/" ? ["/", "/create"].includes(path()) || path().startsWith("/domains") : path() === target || path().startsWith(`${target}/`);
  return html`<a href="#${target}" aria-current=${here ? "page" : nothing}>${name}</a>`;
}

async function leave() {
  await stop(); // what is asked for with a session that has ended is refused
  await logOut();
  refuse();
}

/** Asks who is here. */
function refuse(words = "") {
  stop();
  login.begin(words);
  refused = true;
  draw();
}

function frame(content) {
  return html`
    <a class="skip" href="#main" @click=${skip}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="/web/icon.svg" alt="" width="26" height="26" />Domzero</a>
      <nav aria-label="Main">${MENU.filter(([, , role]) => !role || may(role)).map(menuItem)}</nav>
      ${link()}
      <button type="button" class="plain" title="Logged in as ${who()?.user}" @click=${leave}>Log out</button>
    </header>
    ${state.link === "offline"
      ? html`<p class="banner" role="alert">
          ${state.error} What you see may be old; it is asked for again.
          <button type="button" class="plain" @click=${refresh}>Ask now</button>
        </p>`
      : nothing}
    <main id="main" tabindex="-1">${content}</main>
  `;
}

const LINKS = {
  "": ["", "Connecting"],
  live: ["Domain 0 says what changes", "Live"],
  polling: ["Domain 0 is asked every two seconds: its events do not come", "Polling"],
  offline: ["Domain 0 does not answer", "Not connected"],
};

/** How the page hears of Domain 0. */
function link() {
  const [words, name] = LINKS[state.link];
  return html`<span class="link ${state.link}" role="status" title=${words}>${name}</span>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function draw() {
  if (refused) {
    document.title = "Log in · Domzero";
    render(login.render(enter), root);
    return;
  }
  document.title = `${view.title(parameters)} · Domzero`;
  render(frame(state.domains || state.link === "offline" ? view.render(parameters) : html`<p class="boot">Loading…</p>`), root);
}

function enter() {
  refused = false;
  go();
}

/** Who opens the page has a token in its address, or a session, or is asked. */
async function begin() {
  const token = takeTokenOfAddress();
  try {
    if (token) await logIn({ token });
    else if (!(await resume())) return refuse();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return refuse(`${error.message}.`);
  }
  return enter();
}

whenRefused(() => refuse("The session is over."));
onChange(draw);
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) begin();
  else if (!refused) go();
});
root.replaceChildren();
begin();
