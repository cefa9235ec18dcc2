// SPDX-License-Identifier: Apache-2.0
// What the page knows: domains and what a view needs, and what became of them. It is asked for when Domain 0 says that
// something has changed; every two seconds where measured values are shown, or while Domain 0 cannot be heard.

import { get } from "./api.js";
import { deafen, forget, isLive, listen, pause, whenHeard } from "./stream.js";

export const EVERY_MS = 2000;
const APART_MS = 250; // at least, between what is asked for because of two events
export const SAMPLES = 300; // ten minutes

export const state = {
  domains: null, // Map by uuid, in the order of the list; null until it is known
  link: "", // to Domain 0: "live", "polling", "offline"; "" until it is known
  error: "",
  history: new Map(), // by uuid: { time, cpu, memory, ... } samples
  extra: null, // what a view has asked for
};

const listeners = new Set();
let timer = 0;
let running = null; // what is asked for now: a promise that resolves when it is done
let again = false;
let epoch = 0; // counts the ends of sessions: what was asked for in an earlier one is nobody's
let failures = 0;
let askedAt = 0;
let watched = () => [];
let view = 0; // counts them
let measuring = () => true;

/** `listener` is called after each change. */
export function onChange(listener) {
  listeners.add(listener);
}

export function changed() {
  for (const listener of listeners) listener();
}

/** `jobs()` gives what the present view needs: functions that ask for more, and are given one that keeps it as `extra`
 * while that view is shown. `measures()`: it shows what no event tells. */
export function watch(jobs, measures) {
  watched = jobs;
  view += 1;
  state.extra = null;
  measuring = measures;
}

function note(domain, now) {
  const samples = state.history.get(domain.uuid) || [];
  const last = samples[samples.length - 1];
  const elapsed = last ? (now - last.time) / 1000 : 0;
  if (elapsed && elapsed < 0.5) return;
  const spent = last ? domain.cpu_time_seconds - last.spent : 0;
  samples.push({
    time: now,
    spent: domain.cpu_time_seconds,
    cpu: elapsed && spent >= 0 ? (100 * spent) / elapsed : null,
    memory: domain.current_memory_mib,
  });
  if (samples.length > SAMPLES) samples.shift();
  state.history.set(domain.uuid, samples);
}

/** Rates of counters that only grow: adds `key`_rate to the samples of a history. */
export function noteCounters(key, counters) {
  const samples = state.history.get(key) || [];
  const last = samples[samples.length - 1];
  const now = performance.now();
  const elapsed = last ? (now - last.time) / 1000 : 0;
  if (elapsed && elapsed < 0.5) return;
  const sample = { time: now, counters };
  for (const [name, value] of Object.entries(counters)) {
    const before = last?.counters[name];
    sample[name] = elapsed && value >= before ? (value - before) / elapsed : null;
  }
  samples.push(sample);
  if (samples.length > SAMPLES) samples.shift();
  state.history.set(key, samples);
}

async function ask() {
  const now = performance.now();
  const asking = view;
  const asker = epoch;
  const jobs = watched();
  const keep = (value) => {
    if (asking === view && asker === epoch) state.extra = value; // else it is another view's by now
  };
  const domains = await get("/domains?ended=true&halted=true");
  if (asker !== epoch) return;
  state.domains = new Map(domains.map((domain) => [domain.uuid, domain]));
  for (const domain of domains) if (domain.exists) note(domain, now);
  await Promise.all(jobs.map((job) => job(keep)));
}

/** When to ask again if nothing is heard: never, if everything that is shown would be heard of. */
function schedule() {
  clearTimeout(timer);
  if (document.hidden || (state.link === "live" && !measuring())) return;
  timer = setTimeout(refresh, state.link === "offline" ? pause(failures) : EVERY_MS);
}

/** Asks, and keeps what is answered, if who asked is still here. */
async function update() {
  const asker = epoch;
  askedAt = performance.now();
  try {
    await ask();
    if (asker !== epoch) return;
    failures = 0;
    state.link = isLive() ? "live" : "polling";
    state.error = "";
    listen();
  } catch (error) {
    if (asker !== epoch) return; // a 401, too: it has ended the session
    failures += 1;
    state.link = "offline";
    state.error = error.message;
  }
  changed();
}

/** Asks now, and then as often as is needed. */
export async function refresh() {
  clearTimeout(timer);
  if (running) {
    again = true;
    return;
  }
  const asker = epoch;
  running = update();
  try {
    await running;
  } finally {
    running = null;
  }
  if (again) {
    again = false;
    heard();
  } else if (asker === epoch) {
    schedule();
  }
}

function heard() {
  if (running) {
    again = true; // its end forgets timers
    return;
  }
  const wait = askedAt + APART_MS - performance.now();
  if (wait <= 0) {
    refresh();
    return;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

/** Ends a session: forgets what is known, and what is still being asked for. Resolves when nothing is asked for. */
export async function stop() {
  epoch += 1;
  again = false;
  clearTimeout(timer);
  forget();
  state.link = "";
  state.domains = null;
  state.history.clear();
  await running;
}

whenHeard(heard, refresh);
document.addEventListener("visibilitychange", () => {
  if (!state.domains) return;
  if (document.hidden) deafen();
  else refresh();
});
addEventListener("online", () => state.domains && refresh());
