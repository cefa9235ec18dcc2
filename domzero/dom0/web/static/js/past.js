// SPDX-License-Identifier: Apache-2.0
// What a domain used before the page was opened: Domain 0 keeps a day by the minute, and a month by the hour.

import { get } from "./api.js";

const SECOND_MS = 1000;
const AGAIN_MS = 60 * SECOND_MS;

/** What graphs can show: `span` and `step` in seconds; the first one is what the page itself has seen. */
export const PERIODS = [
  { name: "Now" },
  { name: "Day", span: 86400, step: 300, words: "24 hours ago" },
  { name: "Month", span: 30 * 86400, step: 3600, words: "30 days ago" },
];

let asked = { uuid: "", name: "", at: 0 };
let samples = [];

/** Asks for a period, at most once a minute. */
export async function askPast(uuid, period) {
  if (asked.uuid === uuid && asked.name === period.name && Date.now() - asked.at < AGAIN_MS) return;
  const since = new Date(Date.now() - period.span * SECOND_MS).toISOString();
  const past = await get(`/domains/${uuid}/metrics?since=${encodeURIComponent(since)}&step=${period.step}`);
  asked = { uuid, name: period.name, at: Date.now() };
  samples = [];
  let before = 0;
  for (const point of past.points) {
    const time = Date.parse(point.at);
    if (before && time - before > 1.5 * period.step * SECOND_MS) samples.push({ time: before }); // it did not run
    const memory = point.memory_mib;
    const { disk_read_bytes: read, disk_written_bytes: written } = point;
    const { network_received_bytes: received, network_sent_bytes: sent } = point;
    samples.push({ time, cpu: 100 * point.cpu, memory, read, written, received, sent });
    before = time;
  }
}

/** What was asked for last, if it is this. */
export const pastOf = (uuid, period) => (asked.uuid === uuid && asked.name === period.name ? samples : []);

export const periodOf = (period) => ({ now: Date.now(), span: period.span * SECOND_MS, words: period.words });
