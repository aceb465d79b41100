// The machine × assumption matrix: one row for each machine, one column for each assumption. Where several observers
// looked at one assumption, the worst outcome is shown and all are listed as evidence.

const states = {
  PROOF_STATE_FAILED: { rank: 3, mark: "✗", name: "failed" },
  PROOF_STATE_UNSPECIFIED: { rank: 2, mark: "?", name: "unknown" },
  PROOF_STATE_UNPROVABLE: { rank: 1, mark: "–", name: "unprovable" },
  PROOF_STATE_PROVEN: { rank: 0, mark: "✓", name: "proven" },
};

const stateOf = (proof) => states[proof.state] ?? states.PROOF_STATE_UNSPECIFIED;

export function element(tag, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

export function drawMatrix(table, evidence, proofs, machines) {
  const slotOf = new Map(machines.map((m) => [m.metadata.name, m.spec.slot]));
  const assumptions = [...new Set(proofs.map((p) => p.assumption))].sort();
  const cells = new Map();
  for (const p of proofs) {
    const key = p.machine + "\n" + p.assumption;
    cells.set(key, [...(cells.get(key) ?? []), p]);
  }
  const head = element("tr");
  head.append(element("th", "Machine"), ...assumptions.map((a) => element("th", a)));
  head.querySelectorAll("th").forEach((th) => { th.scope = "col"; });

  const rows = machines.toSorted((a, b) => a.spec.index - b.spec.index).map((m) => {
    const row = element("tr");
    const name = element("th", m.spec.slot);
    name.scope = "row";
    row.append(name);
    for (const a of assumptions) {
      const cell = element("td");
      const found = cells.get(m.metadata.name + "\n" + a);
      if (found) cell.append(mark(m, a, found, slotOf, evidence));
      row.append(cell);
    }
    return row;
  });
  const thead = element("thead"), tbody = element("tbody");
  thead.append(head);
  tbody.append(...rows);
  table.replaceChildren(thead, tbody);
}

function mark(machine, assumption, proofs, slotOf, evidence) {
  const worst = proofs.map(stateOf).reduce((a, b) => (a.rank >= b.rank ? a : b));
  const button = element("button", worst.mark, worst.name);
  button.type = "button";
  button.setAttribute("aria-label", `${machine.spec.slot} ${assumption}: ${worst.name}`);
  button.addEventListener("click", () => {
    evidence.textContent = proofs.map((p) => describe(machine, p, slotOf)).join("\n\n");
    evidence.hidden = false;
  });
  return button;
}

function describe(machine, p, slotOf) {
  const observer = p.observer === p.machine ? "itself" : slotOf.get(p.observer) ?? p.observer;
  const lines = [`${machine.spec.slot} ${p.assumption}: ${stateOf(p).name}, seen by ${observer}`];
  if (p.expected) lines.push(`expected  ${p.expected}`);
  if (p.found) lines.push(`found     ${p.found}`);
  if (p.remedy) lines.push(`what to do: ${p.remedy}`);
  return lines.join("\n");
}
