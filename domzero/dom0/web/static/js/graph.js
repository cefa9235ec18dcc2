// SPDX-License-Identifier: Apache-2.0
// Graphs of what was measured in the last minutes.

import { html, svg, nothing } from "../vendor/lit-html/lit-html.js";
import { EVERY_MS, SAMPLES } from "./store.js";

const WIDTH = 600;
const HEIGHT = 120;
const MINUTE_MS = 60_000;
const SPANS_MIN = [1, 2, 5, (EVERY_MS * SAMPLES) / MINUTE_MS];

/** Minutes that a graph shows: the fewest that hold all samples. */
function minutes(samples) {
  if (!samples.length) return SPANS_MIN[0];
  const length = samples[samples.length - 1].time - samples[0].time;
  return SPANS_MIN.find((each) => each * MINUTE_MS >= length) || SPANS_MIN[SPANS_MIN.length - 1];
}

function lately(samples) {
  const now = samples.length ? samples[samples.length - 1].time : 0;
  const length = minutes(samples);
  return { now, span: length * MINUTE_MS, words: `${length} min ago` };
}

/** The points of one line, in pieces where something is missing. */
function pieces(samples, key, max, now, span) {
  const found = [[]];
  for (const sample of samples) {
    const value = sample[key];
    if (value === null || value === undefined) {
      if (found[found.length - 1].length) found.push([]);
      continue;
    }
    const x = WIDTH * (1 - (now - sample.time) / span);
    const y = HEIGHT - (HEIGHT - 2) * Math.min(1, value / max) - 1;
    if (x >= 0) found[found.length - 1].push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  return found.filter((piece) => piece.length > 1);
}

function line(samples, series, max, now, span) {
  return pieces(samples, series.key, max, now, span).map((piece) => {
    const first = piece[0].split(",")[0];
    const last = piece[piece.length - 1].split(",")[0];
    return svg`
      <polygon class="area ${series.colour}" points="${first},${HEIGHT} ${piece.join(" ")} ${last},${HEIGHT}"></polygon>
      <polyline class="line ${series.colour}" points=${piece.join(" ")}></polyline>`;
  });
}

/**
 * A graph with its present values.
 *
 * title: what it shows; series: [{key, name, colour}]; format: of a value; max: of the axis, at least;
 * period: {now, span, words} in milliseconds, the last minutes if absent.
 */
export function graph({ title, samples, series, format, max = 0, ceiling = 0, period = lately(samples) }) {
  const { now, span } = period;
  const last = samples[samples.length - 1] || {};
  const values = samples.flatMap((sample) => series.map(({ key }) => sample[key] ?? 0));
  const top = ceiling || Math.max(max, ...values, 1e-9);
  const present = series.map(({ key, name }) => {
    const value = last[key] === null || last[key] === undefined ? "–" : format(last[key]);
    return { name, value };
  });
  const words = present.map(({ name, value }) => (name ? `${name} ${value}` : value)).join(", ");
  return html`
    <figure class="graph">
      <figcaption>
        <span class="graph-title">${title}</span>
        ${present.map(
          ({ name, value }, index) =>
            html`<span class="graph-value"
              >${name ? html`<i class="key ${series[index].colour}"></i>${name} ` : nothing}<b>${value}</b></span
            >`,
        )}
      </figcaption>
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title}: ${words}">
        ${[0.25, 0.5, 0.75].map((part) => svg`<path class="grid" d="M0 ${HEIGHT * part}H${WIDTH}"></path>`)}
        ${series.map((each) => line(samples, each, top, now, span))}
      </svg>
      <div class="axis" aria-hidden="true"><span>${period.words}</span><span>top: ${format(top)}</span><span>now</span></div>
    </figure>
  `;
}

/** A small graph without words, beside a number that says the same. */
export function sparkline(samples, key, max, colour) {
  const { now, span } = lately(samples);
  return html`<svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">
    ${line(samples, { key, colour }, max, now, span)}
  </svg>`;
}
