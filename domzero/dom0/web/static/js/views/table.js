// SPDX-License-Identifier: Apache-2.0
// Tables that become lists of cards on a phone.

import { html } from "../../vendor/lit-html/lit-html.js";

/** `columns`: [[name, cell(row), class]]. The first names its row. */
export function table(label, columns, rows) {
  return html`<div class="table">
    <table>
      <caption class="hidden">${label}</caption>
      <thead>
        <tr>${columns.map(([name, , kind = ""]) => html`<th scope="col" class=${kind}>${name || html`<span class="hidden">Actions</span>`}</th>`)}</tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr>
            ${columns.map(([name, cell, kind = ""], index) =>
              index === 0
                ? html`<th scope="row" class=${kind}>${cell(row)}</th>`
                : html`<td class=${kind} data-name=${name}>${cell(row)}</td>`,
            )}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
