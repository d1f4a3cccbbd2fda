"use strict";
const byId = (id) => document.getElementById(id);
const made = (tag, parent, className = "", text = "") => {
  const element = parent.appendChild(document.createElement(tag));
  if (className) element.className = className;
  element.textContent = text;
  return element;
};

// Light or dark: what the system says until somebody presses the button; remembered where the browser allows it.
const root = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
const remembered = (value) => {
  try {
    if (value) localStorage.setItem("birthplace-theme", value);
    return localStorage.getItem("birthplace-theme");
  } catch { return null; }
};
const theme = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
const nameTheme = () => { byId("theme").textContent = theme() === "dark" ? "Light colours" : "Dark colours"; };
if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
byId("theme").hidden = false;
byId("theme").addEventListener("click", () => {
  root.dataset.theme = theme() === "dark" ? "light" : "dark";
  remembered(root.dataset.theme);
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();

// A table is sorted by the button in a column's head; pressing it again turns the order. Without a value: last.
const order = new Intl.Collator("en", { numeric: true });
const compared = (one, other, turn) => {
  const missing = [one, other].map((value) => value === null || value === "" || value === "–");
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  return turn * (typeof one === "number" ? one - other : order.compare(one, other));
};
const makeSortable = (headers, sort) => headers.forEach((header, column) => {
  const label = header.textContent;
  header.textContent = "";
  const button = made("button", header, "", label);
  button.type = "button";
  button.addEventListener("click", () => {
    const turn = header.getAttribute("aria-sort") === "descending" ? 1
      : header.getAttribute("aria-sort") === "ascending" ? -1 : header.classList.contains("number") ? -1 : 1;
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    sort(column, turn);
  });
});
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (cell) => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  makeSortable([...table.tHead.rows[0].cells], (column, turn) => {
    const rows = [...body.rows].map((row) => [row, value(row.cells[column])]);
    const numbers = rows.some(([, key]) => typeof key === "number");
    for (const row of rows) if (numbers && typeof row[1] !== "number") row[1] = null;
    body.append(...rows.sort((a, b) => compared(a[1], b[1], turn)).map(([row]) => row));
  });
}

// The answers of one run at a time. Strings stand once; everything else is their numbers.
const data = JSON.parse(byId("data").textContent), page = 25;
const state = { run: 0, rows: [], first: 0, column: null, turn: 1 };
const shares = data.sets.map(() => null);
function rightRuns(set) {
  if (!shares[set]) {
    const runs = data.runs.filter((run) => run.set === set);
    shares[set] = data.sets[set][1].map((answer, i) => runs.reduce((sum, run) => sum + (run.said[i] === answer), 0));
    shares[set].of = runs.length;
  }
  return shares[set];
}
function chooseRun(number) {
  const run = data.runs[number], [questions, answers] = data.sets[run.set], right = rightRuns(run.set);
  state.run = number;
  state.rows = questions.map((question, i) => ({
    question: data.strings[question], answer: data.strings[answers[i]], prediction: data.strings[run.said[i]],
    right: run.said[i] === answers[i], sure: run.sure[i] < 0 ? null : run.sure[i] / 1000, runs: right[i], at: i,
  }));
}
const keys = [(row) => row.question, (row) => row.answer, (row) => row.prediction, (row) => Number(row.right),
  (row) => row.sure, (row) => row.runs];
function chosenRows() {
  const words = byId("search").value.toLowerCase(), verdict = byId("verdict").value;
  const bound = (id, otherwise) => byId(id).value === "" ? otherwise : Number(byId(id).value) / 100;
  const low = bound("low", null), high = bound("high", null);
  const rows = state.rows.filter((row) => (verdict === "all" || row.right === (verdict === "right"))
    && (low === null || (row.sure !== null && row.sure >= low)) && (high === null || (row.sure !== null && row.sure <= high))
    && (!words || [row.question, row.answer, row.prediction].some((text) => text.toLowerCase().includes(words))));
  if (state.column === null) return rows;
  const key = keys[state.column];
  return rows.sort((a, b) => compared(key(a), key(b), state.turn) || a.at - b.at);
}
function show() {
  const rows = chosenRows(), body = byId("said").tBodies[0];
  state.first = Math.max(0, Math.min(state.first, Math.floor((rows.length - 1) / page) * page));
  body.textContent = "";
  for (const row of rows.slice(state.first, state.first + page)) {
    const line = made("tr", body);
    made("th", line, "", row.question).scope = "row";
    made("td", line, "", row.answer);
    made("td", line, "", row.prediction || "(nothing)");
    made("td", line, row.right ? "right" : "wrong", row.right ? "✓ right" : "✗ wrong");
    made("td", line, "number", row.sure === null ? "–" : `${(100 * row.sure).toFixed(1)}%`);
    made("td", line, "number", `${row.runs} of ${shares[data.runs[state.run].set].of}`);
  }
  const last = Math.min(state.first + page, rows.length), right = rows.filter((row) => row.right).length;
  byId("found").textContent = rows.length
    ? `${state.first + 1}–${last} of ${rows.length} answers (${right} right), ${state.rows.length} in this run`
    : "No answer of this run is like that.";
  byId("previous").disabled = state.first === 0;
  byId("next").disabled = last >= rows.length;
}
if (data.runs.length) {
  const groups = new Map();
  data.runs.forEach((run, number) => {
    if (!groups.has(run.variant)) {
      groups.set(run.variant, byId("run").appendChild(document.createElement("optgroup")));
      groups.get(run.variant).label = run.variant;
    }
    made("option", groups.get(run.variant), "", run.name).value = number;
  });
  const again = () => { state.first = 0; show(); };
  byId("run").addEventListener("change", () => { chooseRun(Number(byId("run").value)); again(); });
  for (const id of ["search", "verdict", "low", "high"]) byId(id).addEventListener("input", again);
  byId("previous").addEventListener("click", () => { state.first -= page; show(); });
  byId("next").addEventListener("click", () => { state.first += page; show(); });
  makeSortable([...byId("said").tHead.rows[0].cells], (column, turn) => {
    Object.assign(state, { column, turn });
    again();
  });
  byId("without").hidden = true;
  byId("browser").hidden = false;
  chooseRun(0);
  show();
}
