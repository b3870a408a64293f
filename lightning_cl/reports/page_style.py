"""Looks of the HTML page: light and dark by the reader's setting, narrow and wide, on paper."""

STYLE = """
:root { --ground: #f6f7f8; --card: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --accent: #0b5cad;
  --good: #1a7f37; --bad: #b42318; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1317; --card: #171c22; --ink: #e6eaee; --soft: #9aa5b1;
  --line: #2d353f; --accent: #6cb0f5; --good: #5dcf7c; --bad: #ff8a7e; --warn: #3b3214; }
  figure img { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 20px 16px 40px; }
h1 { font-size: 1.5rem; margin: .2em 0 .7em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: .2em 0 .6em; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 .5em; }
article { min-width: 0; display: grid; gap: 14px; align-content: start; grid-template-columns: minmax(0, 1fr); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; min-width: 0; }
.runs { display: grid; gap: 20px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.lead { margin: 0 0 .7em; color: var(--soft); }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
.tile b { display: block; font-size: 1.7rem; font-weight: 650; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile small { font-size: .9rem; font-weight: 400; color: var(--soft); }
.tile span, .small, figcaption { color: var(--soft); font-size: .82rem; }
.notes { margin: .9em 0 0; padding-left: 1.1em; color: var(--soft); font-size: .88rem; }
.warning { background: var(--warn); border-radius: 6px; padding: 8px 12px; margin: 0 0 10px; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: left; }
.matrix th { color: var(--soft); text-align: center; font-size: .82rem; padding: 2px 6px; }
.matrix tbody th, .matrix thead th:first-child { position: sticky; left: 0; background: var(--card); }
.matrix td { text-align: center; min-width: 3.3em; height: 2.1em; padding: 0 5px; border: 1px solid var(--card); }
.matrix td.mean { font-weight: 650; padding-left: 10px; }
.matrix.dense { font-size: .74rem; }
.matrix.dense td { min-width: 2.6em; height: 1.9em; padding: 0 2px; }
.summary, .protocol { width: 100%; }
.summary th, .summary td, .protocol th, .protocol td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.summary tr:last-child > *, .protocol tr:last-child > * { border-bottom: 0; }
.summary tbody th, .protocol th { white-space: nowrap; }
.num { text-align: right; white-space: nowrap; }
.summary td.small { min-width: 16em; }
.pass td:nth-child(2) { color: var(--good); } .fail td:nth-child(2) { color: var(--bad); font-weight: 650; }
.not-checked td:nth-child(2) { color: var(--soft); } .protocol td:nth-child(2) { white-space: nowrap; }
.pictures { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); }
figure { margin: 0; text-align: center; } figure img { width: 100%; max-width: 560px; height: auto; }
details { border-top: 1px solid var(--line); padding: 6px 0; } details:first-of-type { border-top: 0; }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(9em, max-content) minmax(0, 1fr); gap: 2px 14px; margin: 6px 0 4px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: 6px 0 4px; line-height: 1.35; }
code, pre { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .9em; }
@media (max-width: 560px) { main { padding: 12px 8px 24px; } .card { padding: 12px; } h1 { font-size: 1.2rem; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 4px; } .matrix td { min-width: 2.8em; padding: 0 2px; }
  .summary tbody th { white-space: normal; } .summary .word { white-space: normal; min-width: 5.5em;
  overflow-wrap: anywhere; } .summary td.small { min-width: 12em; } }
@media print { :root { --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --good: #1a7f37;
  --bad: #b42318; --warn: #fff; } body { font-size: 10pt; } main { max-width: none; padding: 0; }
  .card { border: 0; padding: 4px 0; } tr, figure { break-inside: avoid; } h3 { break-after: avoid; }
  .scroll { overflow: visible; } figure img { filter: none; } .matrix td { print-color-adjust: exact;
  -webkit-print-color-adjust: exact; } }
"""
SCRIPT = """
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
"""
