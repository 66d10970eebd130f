"""The frame and the style of `report.html`, for light and dark screens, narrow ones and paper."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{command}{facts}</header>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root {
  --ground: #fbfbfa; --card: #fff; --ink: #1d1f21; --soft: #62676d; --rule: #e3e4e6; --code: #f1f2f3;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #15171a; --card: #1c1f23; --ink: #e4e6e8; --soft: #9aa1a8; --rule: #2e3237; --code: #24282d; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5; -webkit-text-size-adjust: 100%;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 1rem; }
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1.25rem; margin-top: 1.25rem;
}
img { display: block; max-width: 100%; height: auto; }
.crisp { image-rendering: pixelated; }
.facts { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin: 0; }
.facts dt { color: var(--soft); font-size: 0.8rem; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.classes {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.4rem 0.9rem; align-items: center; margin: 0;
}
.classes dt { color: var(--soft); text-align: right; max-width: 8rem; overflow-wrap: anywhere; }
.classes dd { margin: 0; max-width: 40rem; }
.classes img, .pair img, .panels img { width: 100%; }
.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1.25rem; align-items: start;
}
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.25rem; }
figure { margin: 0; min-width: 0; }
figcaption { color: var(--soft); font-size: 0.875rem; margin-top: 0.4rem; }
.panels figcaption { color: var(--ink); font-weight: 600; margin: 0 0 0.25rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.45rem 0 0.45rem 1.25rem; border-bottom: 1px solid var(--rule); }
th[scope="row"] { text-align: left; font-weight: 400; padding-left: 0; }
th[scope="col"] { color: var(--soft); font-weight: 400; font-size: 0.875rem; }
.scores td { white-space: nowrap; }
.scores td:nth-child(2) { font-weight: 600; }
.plain { font-size: 0.875rem; }
.plain td { text-align: left; overflow-wrap: anywhere; width: 99%; }
.plain th[scope="row"] { color: var(--soft); white-space: nowrap; vertical-align: top; }
.points { margin: 0 auto; width: min(100%, 36rem); }
.note { color: var(--soft); font-size: 0.875rem; margin: 0.75rem 0 0; max-width: 46rem; }
.note + .panels { margin-top: 1rem; }
details { margin-top: 0.9rem; }
.others, details + .wide { margin-top: 1.25rem; }
summary { cursor: pointer; color: var(--soft); }
pre {
  background: var(--code); border-radius: 6px; padding: 0.8rem 1rem; margin: 0.5rem 0 0; overflow-x: auto;
  font: 0.85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
.command { white-space: pre-wrap; margin: 0 0 1.25rem; }
.command span { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  main { padding: 1.5rem 0.75rem 3rem; }
  section { padding: 1rem; }
  .scores tr {
    display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 3fr) 2.5rem; gap: 0 0.75rem;
    border-bottom: 1px solid var(--rule); padding: 0.4rem 0;
  }
  .scores td { white-space: normal; }
  .scores th, .scores td { border: 0; padding: 0; text-align: left; }
  .scores th[scope="row"] { grid-column: 1 / -1; }
  .scores td:empty, .scores th:empty { display: none; }
}
@media print { section { break-inside: avoid; } }
"""
