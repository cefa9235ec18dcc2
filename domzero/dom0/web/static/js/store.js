// SPDX-License-Identifier: Apache-2.0
// What the page knows: domains and what a view needs, asked for every two seconds while somebody looks, and what became of them.

import { get } from "./api.js";

export const EVERY_MS = 2000;
export const SAMPLES = 300; // ten minutes

export const state = {
  domains: null, // Map by uuid, in the order of the list; null until it is known
  offline: false,
  error: "",
  history: new Map(), // by uuid: { time, cpu, memory, ... } samples
  extra: null, // what a view has asked for
};

const listeners = new Set();
let timer = 0;
let running = false;
let again = false;
let watched = () => [];

/** `listener` is called after each change. */
export function onChange(listener) {
  listeners.add(listener);
}

export function changed() {
  for (const listener of listeners) listener();
}

/** `jobs()` gives what the present view needs: functions that ask for more. */
export function watch(jobs) {
  watched = jobs;
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
  const domains = await get("/domains?ended=true&halted=true");
  state.domains = new Map(domains.map((domain) => [domain.uuid, domain]));
  for (const domain of domains) if (domain.exists) note(domain, now);
  await Promise.all(watched().map((job) => job()));
}

/** Asks now, and then every two seconds. */
export async function refresh() {
  clearTimeout(timer);
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    await ask();
    state.offline = false;
    state.error = "";
  } catch (error) {
    state.offline = error.status !== 401;
    state.error = error.message;
    if (error.status === 401) return;
  } finally {
    running = false;
    changed();
  }
  if (again) {
    again = false;
    refresh();
  } else if (!document.hidden) {
    timer = setTimeout(refresh, EVERY_MS);
  }
}

export function stop() {
  clearTimeout(timer);
  state.domains = null;
  state.history.clear();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state.domains) refresh();
});
